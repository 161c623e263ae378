"""Strangers at the receivers: they may connect and write, and Vault's lines come through all the same."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from attended import Attended, wait_for
from disk import small_disk
from receivers import Receiving, TrustingVault, ask, device, eventually, keys, reference, socket_device
from rig import Rig, own_rig
from stage import staged
from test_receivers import HTTP, MB, TCP, connect, figures, post, self_signed

from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import env
from jitvault.worker.stream_loops import CONNECTIONS

Attack = Callable[[socket.socket], None]
# what a stranger says of a request before it says nothing more, or little
UNFINISHED = {
    "nothing": b"",
    "a head that does not end": b"POST /audit HTTP/1.1\r\nX: ",
    "a body that does not come": b"POST /audit HTTP/1.1\r\nContent-Length: 1000\r\n\r\n",
}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


@contextmanager
def strangers(receiver: Receiving, number: int, says: bytes, *, trickle: bool = False) -> Iterator[None]:
    """So many connections at once, each of which comes back as soon as it is dropped."""
    ended = threading.Event()

    def come_back(callers: list[socket.socket]) -> None:
        while not ended.wait(0.2):
            for at, caller in enumerate(callers):
                try:
                    caller.sendall(says[-1:] if trickle and says else b"")
                    if caller.recv(1) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    continue
                except OSError:
                    caller.close()
                    callers[at] = come()

    def come() -> socket.socket:
        caller = socket.socket(socket.AF_INET)
        caller.setblocking(False)
        with suppress(BlockingIOError):
            caller.connect(receiver.host_and_port)
        caller.settimeout(1)
        with suppress(OSError):
            caller.sendall(says)
        caller.setblocking(False)
        return caller

    callers = [come() for _ in range(number)]
    thread = threading.Thread(target=come_back, args=[callers])
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for caller in callers:
            caller.close()


def how_long(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.needs("http-device")
@pytest.mark.parametrize("says", UNFINISHED.values(), ids=UNFINISHED)
def test_300_connections_that_come_to_no_end_do_not_keep_vault_waiting(
    tmp_path: Path, spool: Path, says: bytes
) -> None:
    with (
        Receiving(spool, *HTTP) as receiver,
        VaultServer(tmp_path / "bao", more_devices=[device("http", uri=receiver.url)]) as bao,
    ):
        ask(bao, 2)
        with strangers(receiver, 300, says, trickle=True):
            took = how_long(lambda: ask(bao, 4, at_once=2))
        figures(f"4 requests of Vault's among 300 strangers: {took:.2f} s")
        assert took < 4, "two seconds for each, one after the other"
        assert Counter(keys(receiver.lines())) == Counter(reference(bao)), "no line was refused"
        receiver.stop()
        dropped = [line for line in receiver.stderr.splitlines() if "dropped" in line]
        assert len(dropped) == 1 and len(receiver.stderr.splitlines()) < 5, receiver.stderr


@pytest.mark.needs("http-device")
def test_handshakes_that_never_end_do_not_keep_vault_waiting(tmp_path: Path, spool: Path) -> None:
    certificate, key = self_signed(tmp_path)
    args = ["--http", "https://127.0.0.1:0/audit", "--no-bearer", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with Receiving(spool, *args) as receiver:
        bao = TrustingVault(tmp_path / "bao", more_devices=[device("http", uri=receiver.url)])
        bao.trusted = certificate
        # the beginning of a ClientHello
        with bao, strangers(receiver, 300, b"\x16\x03\x01\x02\x00\x01"):
            assert how_long(lambda: ask(bao, 4, at_once=2)) < 4
            assert Counter(keys(receiver.lines())) == Counter(reference(bao))
        receiver.stop()


@pytest.mark.parametrize("says", [b"", b'{"type":"request"}\n'], ids=["silent", "talking"])
def test_strangers_at_the_port_do_not_keep_vault_s_connection_out(tmp_path: Path, spool: Path, says: bytes) -> None:
    with Receiving(spool, *TCP) as receiver, strangers(receiver, 150, says):
        # it does not start when its device takes no line
        with VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao:
            ask(bao, 2)
            eventually(lambda: keys(told_by(bao, receiver)) == reference(bao), within=2)
        receiver.stop()
        assert len(receiver.stderr.splitlines()) < 5, receiver.stderr


def told_by(bao: VaultServer, receiver: Receiving) -> list[bytes]:
    """The lines of the receiver that no stranger sent."""
    found: list[bytes] = []
    for path in receiver.files():
        # those of strangers go any time
        with suppress(FileNotFoundError):
            found += path.read_bytes().splitlines(keepends=True)
    return [line for line in found if b'"request":{' in line]


def test_what_strangers_write_is_bounded_on_the_disk_and_vault_goes_on(tmp_path: Path, spool: Path) -> None:
    block = (b"x" * 1023 + b"\n") * 1024
    with (
        Receiving(spool, *TCP, "--untrusted", "8MiB") as receiver,
        VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao,
    ):
        ask(bao, 2)
        most = 0
        for _ in range(4):
            with connect(receiver) as stranger, suppress(OSError):
                for _ in range(30):
                    stranger.sendall(block)
                    most = max(most, used(spool))
        ask(bao, 2)
        eventually(lambda: keys(told_by(bao, receiver)) == reference(bao), within=2)
        receiver.stop()
        assert max(most, used(spool)) < 9 * MB
        assert 0 < len(receiver.stderr.splitlines()) < 3, receiver.stderr


def used(spool: Path) -> int:
    total = 0
    for path in spool.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_bodies_of_strangers_are_bounded_too(spool: Path) -> None:
    with Receiving(spool, *HTTP, "--untrusted", "8MiB") as receiver:
        assert post(receiver, b"y" * (3 * MB)) == 413
        for _ in range(12):
            assert post(receiver, b"y" * (3 * MB // 2)) == 204
            assert used(spool) < 9 * MB
        receiver.stop()


def test_strangers_who_filled_the_disk_give_way_to_vault(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, Receiving(disk.directory / "spool", *TCP) as receiver:
        for _ in range(6):
            with connect(receiver) as stranger, suppress(OSError):
                for _ in range(4):
                    stranger.sendall(b"x" * MB)
        with VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao:
            ask(bao, 2)
            eventually(lambda: keys(told_by(bao, receiver)) == reference(bao), within=2)
        receiver.stop()


@pytest.fixture
def pushed(spool: Path, tmp_path: Path) -> Iterator[tuple[Receiving, Rig]]:
    """A receiver, and a rig that reads nothing but its spool."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiving(spool, *TCP, "--untrusted", "8MiB"))
        device = socket_device(receiver.url)
        stage = stack.enter_context(staged(lambda directory: VaultServer(directory, more_devices=[device])))
        variables = {**env(stage.world, "", Path("none")), "JITVAULT_AUDIT_FILE": str(spool)}
        rig = own_rig(stage.world, {**variables, "JITVAULT_AUDIT_DEVICE": "push"}, tmp_path)
        policy = (rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"]
        policy += 'path "sys/audit-hash/push" { capabilities = ["update"] }'
        rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": policy})
        yield receiver, rig


def test_whom_a_canary_vouched_for_keeps_its_place_and_its_lines(pushed: tuple[Receiving, Rig]) -> None:
    receiver, rig = pushed
    assert rig(None, "audit", "status").json["state"] == "trusted"
    (trusted,) = receiver.spool.glob("*.trusted")
    ours = trusted.with_suffix("")
    # a stranger says all that it can know: what Vault's lines look like
    lines = [line for line in ours.read_bytes().splitlines(keepends=True) if b"sys/audit-hash/" in line]
    forged = [line.replace(b"hmac-sha256:", b"hmac-sha256:0") for line in lines]
    assert forged
    with strangers(receiver, 150, b"".join(forged[-2:])), connect(receiver) as flood:
        with suppress(OSError):
            for _ in range(30):
                flood.sendall(b'{"type":"request"}\n' * 50_000)
        assert how_long(lambda: rig(None, "audit", "status")) < 3
        before = ours.stat().st_size
        rig(None, "audit", "status")
        assert ours.stat().st_size > before, "Vault is still on its first connection"
    assert list(receiver.spool.glob("*.trusted")) == [trusted], "nobody vouches for itself"
    assert len(receiver.files()) > 20
    with Attended(rig, look_around_s=0.1) as worker:
        wait_for(lambda: worker.started and observing())
        time.sleep(0.5)
        assert observing() == [f"observe {CONNECTIONS}"], "strangers get no thread of the worker's"
    assert {row[0] for row in rig.rows("SELECT name FROM audit_sources")} == {str(ours)}, "strangers leave no rows"


def observing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("observe ")]
