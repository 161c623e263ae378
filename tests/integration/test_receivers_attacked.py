"""Those who may not send to the receivers: nothing of theirs is in a spool, and Vault's lines come through."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from attended import Attended, wait_for
from receivers import (
    Https,
    Receiving,
    TrustingVault,
    ask,
    connect,
    eventually,
    keys,
    reference,
    socket_device,
)
from rig import Rig, own_rig
from stage import staged
from test_receivers import figures, raw

from jitvault.audit.receivers.receiver import MOST_CONNECTIONS
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import env
from jitvault.worker.stream_loops import CONNECTIONS

FORGED = b'{"type":"response","request":{"id":"forged","path":"sys/leases/revoke"}}\n'
# what a stranger sends of a request before it sends nothing more, or little: over TLS, or of TLS
UNFINISHED = {
    "a handshake that does not end": (False, b"\x16\x03\x01\x02\x00\x01"),
    "a head that does not end": (True, b"POST /audit HTTP/1.1\r\nX: "),
    "a body without a bearer": (True, b"POST /audit HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"),
}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


@pytest.fixture
def https(tmp_path: Path) -> Https:
    return Https(tmp_path / "https")


@pytest.fixture
def door() -> Iterator[str]:
    """A socket in a directory that every user can enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield f"unix://{directory}/audit.sock"


@contextmanager
def user(uid: int) -> Iterator[None]:
    """Be another user for a moment."""
    if os.geteuid():
        pytest.skip("only root can be another user")
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


# --- who may send ---


def test_over_http_nothing_without_the_bearer_reaches_the_spool(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        secret = https.bearer.removeprefix("Bearer ")
        for given in (None, "", "Bearer", "Bearer wrong", secret, https.bearer[:-1], f"{https.bearer} {secret}"):
            assert https.post(receiver, FORGED, Authorization=given) == 401
        for asked in (b"POST /", b"GET /audit", b"BANANA /audit"):
            # a 404 would say which path is the right one
            answer = raw(https.connect(receiver), asked + b" HTTP/1.1\r\nContent-Length: 9000000000000\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401")
        plain = f"POST /audit HTTP/1.1\r\nAuthorization: {https.bearer}\r\nContent-Length: {len(FORGED)}\r\n\r\n"
        assert b"204" not in raw(socket.create_connection(receiver.host_and_port, timeout=10), plain.encode() + FORGED)
        assert https.post(receiver, b"{}\n") == 204
        receiver.stop()
        assert receiver.lines() == [b"{}\n"]
        assert secret not in receiver.stderr
        assert "a request was refused: 401 Unauthorized (9 more; from 127.0.0.1)" in receiver.stderr


@pytest.mark.parametrize("with_bearer", [False, True])
def test_over_http_nothing_without_a_certificate_reaches_the_spool(
    tmp_path: Path, spool: Path, https: Https, with_bearer: bool
) -> None:
    ours, others = Https(tmp_path / "ours"), Https(tmp_path / "others")
    args = [*https.args[: None if with_bearer else -2], "--client-ca", str(ours.certificate)]
    with Receiving(spool, *args) as receiver:
        for own in (None, others):
            if own:
                https.trusting.load_cert_chain(own.certificate, own.key)
            # its right bearer does not help
            with suppress(OSError):
                assert https.post(receiver, FORGED) != 204
        https.trusting.load_cert_chain(ours.certificate, ours.key)
        assert https.post(receiver, FORGED, Authorization="Bearer wrong") == (401 if with_bearer else 204)
        assert https.post(receiver, b"{}\n") == 204
        receiver.stop()
        assert receiver.lines() == ([b"{}\n"] if with_bearer else [FORGED, b"{}\n"])


def test_another_user_of_the_host_cannot_connect(spool: Path, door: str) -> None:
    with Receiving(spool, "--socket", door) as receiver:
        with user(12345), pytest.raises(PermissionError):
            connect(receiver)
        receiver.stop()
        assert receiver.files() == []


def test_a_unix_socket_takes_lines_of_allowed_users_alone(spool: Path, door: str) -> None:
    with Receiving(spool, "--socket", door, "--allow-user", "12345") as receiver:
        with user(12346):
            stranger = connect(receiver)
        with stranger, suppress(ConnectionError):
            # also where somebody who may send writes into that connection
            for _ in range(20):
                stranger.sendall(FORGED)
                time.sleep(0.01)
        with user(12345):
            sender = connect(receiver)
        with sender, connect(receiver) as own:
            sender.sendall(b"{}\n")
            own.sendall(b"{}\n")
            eventually(lambda: receiver.lines() == [b"{}\n"] * 2)
        receiver.stop()
        assert receiver.lines() == [b"{}\n"] * 2
        assert "refused (its user may not send: unix-uid12346" in receiver.stderr


# --- before they have shown that they may ---


class Strangers:
    """So many connections at once, each of which comes back as soon as it is dropped."""

    def __init__(self, receiver: Receiving, number: int, says: tuple[bool, bytes]) -> None:
        self._address = receiver.host_and_port
        self._over_tls, self._says = says
        self._anybody = ssl._create_unverified_context()
        self._ended = threading.Event()
        # several threads, so that many come at once
        crowds = [[self._come() for _ in range(number // 3)] for _ in range(3)]
        self._threads = [threading.Thread(target=self._come_back, args=[crowd]) for crowd in crowds]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _come(self) -> socket.socket:
        caller = socket.socket(socket.AF_INET)
        with suppress(OSError):
            caller.settimeout(1)
            # not Vault's address
            caller.bind(("127.0.0.2", 0))
            caller.connect(self._address)
            if self._over_tls:
                caller = self._anybody.wrap_socket(caller)
            caller.sendall(self._says)
            caller.setblocking(False)
        return caller

    def _come_back(self, crowd: list[socket.socket]) -> None:
        while not self._ended.wait(0.2):
            for at, caller in enumerate(crowd):
                if not self._stays(caller) and not self._ended.is_set():
                    caller.close()
                    crowd[at] = self._come()
        for caller in crowd:
            caller.close()

    def _stays(self, caller: socket.socket) -> bool:
        """Give a sign of life; return whether the connection is still there."""
        try:
            caller.sendall(self._says[-1:])
            return caller.recv(1) != b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False


def how_long(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.needs("http-device")
@pytest.mark.parametrize("says", UNFINISHED.values(), ids=UNFINISHED)
def test_300_connections_that_come_to_no_end_do_not_keep_vault_waiting(
    tmp_path: Path, spool: Path, https: Https, says: tuple[bool, bytes]
) -> None:
    with Receiving(spool, *https.args) as receiver, TrustingVault(tmp_path / "bao", receiver, https) as bao:
        ask(bao, 2)
        with Strangers(receiver, 300 if says[0] else 600, says):
            took = how_long(lambda: ask(bao, 4, at_once=2))
            assert Counter(keys(receiver.lines())) == Counter(reference(bao)), "no line was refused"
            # Vault keeps its connections, and these are new
            new = sorted(how_long(lambda: https.post(receiver, b"{}\n")) for _ in range(3))[1]
        figures(f"among 300 strangers: 4 requests of Vault's in {took:.2f} s, a new connection in {new:.2f} s")
        assert took < 4 and new < 3, "a place of theirs lasts two seconds"
        receiver.stop()
        kinds = Counter(line.partition(" (")[0] for line in receiver.stderr.splitlines())
        assert max(kinds.values()) <= 2, receiver.stderr


def test_where_all_places_are_taken_a_connection_without_a_right_is_dropped(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver, ExitStack() as others:
        for _ in range(MOST_CONNECTIONS + 8):
            others.enter_context(socket.create_connection(receiver.host_and_port, source_address=("127.0.0.2", 0)))
        assert https.post(receiver, b"{}\n") == 204
        assert "dropped: too many show no right to send (from 127.0.0.2)" in receiver.stderr
        receiver.stop()


# --- of those who may send ---


@pytest.fixture
def pushed(spool: Path, tmp_path: Path) -> Iterator[tuple[Receiving, Rig]]:
    """A receiver, and a rig that reads nothing but its spool."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiving(spool, "--socket", f"unix://{tmp_path}/audit.sock"))
        device = socket_device(receiver.url)
        stage = stack.enter_context(staged(lambda directory: VaultServer(directory, more_devices=[device])))
        variables = {**env(stage.world, "", Path("none")), "JITVAULT_AUDIT_FILE": str(spool)}
        rig = own_rig(stage.world, {**variables, "JITVAULT_AUDIT_DEVICE": "push"}, tmp_path)
        policy = (rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"]
        policy += 'path "sys/audit-hash/push" { capabilities = ["update"] }'
        rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": policy})
        yield receiver, rig


def test_of_servers_that_may_send_only_the_lines_of_the_one_with_a_canary_count(pushed: tuple[Receiving, Rig]) -> None:
    receiver, rig = pushed
    assert rig(None, "audit", "status").json["state"] == "trusted"
    (ours,) = (path for path in receiver.files() if b"sys/audit-hash/" in path.read_bytes())
    # another server's lines look like these
    lines = [line for line in ours.read_bytes().splitlines(keepends=True) if b"sys/audit-hash/" in line]
    for _ in range(20):
        with connect(receiver) as other:
            other.sendall(b"".join(line.replace(b"hmac-sha256:", b"hmac-sha256:0") for line in lines))
    eventually(lambda: len(receiver.files()) > 20)
    with Attended(rig, look_around_s=0.1) as worker:
        wait_for(lambda: worker.started and observing())
        time.sleep(0.5)
        assert observing() == [f"observe {CONNECTIONS}"], "a connection gets no thread of the worker's"
    assert {row[0] for row in rig.rows("SELECT name FROM audit_sources")} == {str(ours)}, "the others leave no rows"


def observing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("observe ")]
