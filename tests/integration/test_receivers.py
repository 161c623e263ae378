"""The receivers against a real OpenBao that pushes to them; its file device says what has to arrive."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from commands import Cli
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from receivers import Receiving, TrustingVault, ask, device, eventually, keys, reference, socket_device

from jitvault.audit.files.spool import SpoolSources
from jitvault.formats.server_product import Product
from jitvault.sandbox.vault_server import VaultServer

MB = 1024 * 1024
TCP = ("--socket", "tcp://127.0.0.1:0")
HTTP = ("--http", "http://127.0.0.1:0/audit", "--no-bearer")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """Where a receiver writes; gone afterwards, since some of it is large."""
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


def connect(receiver: Receiving) -> socket.socket:
    if receiver.url.startswith("unix"):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(receiver.url.removeprefix("unix://"))
        return caller
    return socket.create_connection(receiver.host_and_port, timeout=10)


def post(receiver: Receiving, body: bytes | Iterator[bytes], path: str = "/audit", **headers: str) -> int:
    connection = http.client.HTTPConnection(*receiver.host_and_port, timeout=15)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


def figures(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def limit_files(receiver: Receiving, length: int) -> None:
    """No file of the receiver can be longer from now on: the disk is full, as far as it can tell."""
    _, hard = resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (length, hard))


@pytest.fixture(params=["tcp", "unix"])
def socket_args(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    return TCP if request.param == "tcp" else ("--socket", f"unix://{tmp_path}/audit.sock")


# --- what OpenBao sends ---


def test_what_a_socket_device_sends_is_in_the_spool_in_order(
    tmp_path: Path, spool: Path, socket_args: tuple[str, str]
) -> None:
    with Receiving(spool, *socket_args) as receiver:
        with VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao:
            ask(bao, 20)
            eventually(lambda: len(keys(receiver.lines())) >= len(reference(bao)))
            assert keys(receiver.lines()) == reference(bao)
            assert len(reference(bao)) >= 40
            # OpenBao connects a first time with its test message only
            first = [0] if bao.product is Product.OPENBAO else []
            found = [len(keys(path.read_bytes().splitlines(True))) for path in receiver.files()]
            assert found == [*first, len(reference(bao))]
            ask(bao, 200, at_once=8)
            expected = reference(bao)
        assert receiver.stop() < 5
        assert Counter(keys(receiver.lines())) == Counter(expected)
        assert stat.S_IMODE(receiver.files()[0].stat().st_mode) == 0o600
        assert stat.S_IMODE(spool.stat().st_mode) == 0o700
        batches = [b for s in SpoolSources(spool, name="push").present() for b in s.read(s.start())]
        assert sum(batch.lines for batch in batches) == len(receiver.lines())
        assert not any(batch.gaps for batch in batches)


@pytest.mark.needs("http-device")
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls-and-bearer"])
def test_what_an_http_device_sends_is_in_the_spool_in_order(tmp_path: Path, spool: Path, secured: bool) -> None:
    options, args = {}, list(HTTP)
    if secured:
        certificate, key = self_signed(tmp_path)
        (tmp_path / "bearer").write_text(f"Bearer {secrets.token_hex(16)}")
        options["headers"] = json.dumps({"Authorization": [f"file://{tmp_path}/bearer"]})
        args = ["--http", "https://127.0.0.1:0/audit", "--tls-cert", str(certificate), "--tls-key", str(key)]
        args += ["--bearer-file", str(tmp_path / "bearer")]
    with Receiving(spool, *args) as receiver:
        bao = TrustingVault(tmp_path / "bao", more_devices=[device("http", uri=receiver.url, **options)])
        bao.trusted = tmp_path / "cert.pem"
        with bao:
            ask(bao, 20)
            # no waiting: OpenBao answers when the device has taken the line, so it is there
            assert keys(receiver.lines()) == reference(bao)
            ask(bao, 200, at_once=8)
            assert Counter(keys(receiver.lines())) == Counter(reference(bao))
        assert receiver.stop() < 5
        assert len(receiver.files()) == 1 and "http-127.0.0.1" in receiver.files()[0].name
        assert receiver.stderr == ""


def test_what_is_piped_in_is_in_the_spool_without_what_is_mixed_with_it(tmp_path: Path, spool: Path) -> None:
    mixed = tmp_path / "mixed.log"
    mixed.write_text("2026-11-24T15:43:07Z [INFO] core: not an audit line {\n")
    prefixed = device("file", file_path=str(mixed), prefix="@cee: ")
    with (
        VaultServer(
            tmp_path / "bao", more_configuration="allow_audit_log_prefixing = true", more_devices=[prefixed]
        ) as bao,
        subprocess.Popen(["tail", "-n", "+1", "-f", str(mixed)], stdout=subprocess.PIPE) as tail,
    ):
        assert tail.stdout
        with Receiving(spool, "--stdin", "--prefix", "@cee: ", stdin=tail.stdout.fileno()) as receiver:
            ask(bao, 20)
            with mixed.open("a") as file:
                file.write("@cee: and neither is this\n@cee:{}\n")
            ask(bao, 20)
            eventually(lambda: len(keys(receiver.lines())) >= len(reference(bao)))
            tail.terminate()
            assert receiver.process.wait(timeout=10) == 0, "it ends with its input"
            assert keys(receiver.lines()) == reference(bao)


# --- two senders ---


def test_bytes_of_two_connections_are_never_in_one_file(
    tmp_path: Path, spool: Path, socket_args: tuple[str, str]
) -> None:
    with Receiving(spool, *socket_args) as receiver:
        with (
            VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao,
            connect(receiver) as forger,
        ):
            for n in range(10):
                # also in the middle of lines
                forger.sendall(b'{"forged": %d' % n)
                ask(bao, 2)
                forger.sendall(b"}\n")
            expected = reference(bao)
        receiver.stop()
        files = [path.read_bytes() for path in receiver.files()]
        (forged,) = (content for content in files if b"forged" in content)
        assert forged == b"".join(b'{"forged": %d}\n' % n for n in range(10))
        files.remove(forged)
        assert keys(line for content in files for line in content.splitlines(True)) == expected


def test_over_the_limit_the_oldest_connection_is_dropped_and_the_others_go_on(spool: Path) -> None:
    with Receiving(spool, *TCP, "--max-connections", "2") as receiver:
        with connect(receiver) as first, connect(receiver) as second:
            for n, caller in enumerate((first, second)):
                caller.sendall(b"before %d\n" % n)
            eventually(lambda: len(receiver.lines()) == 2)
            # silent ones have places of their own, and lose them soon
            silent = [connect(receiver) for _ in range(3)]
            for third in silent:
                with third, suppress(ConnectionResetError):
                    assert third.recv(1) == b""
            second.sendall(b"after\n")
            eventually(lambda: len(receiver.lines()) == 3)
            with connect(receiver) as third:
                third.sendall(b"newer\n")
                eventually(lambda: len(receiver.lines()) == 4)
            # of several that nobody vouched for the oldest is dropped
            with suppress(ConnectionResetError):
                assert first.recv(1) == b""
            second.sendall(b"still here\n")
            eventually(lambda: len(receiver.lines()) == 5)
        eventually(lambda: "dropped" in receiver.stderr)
        assert receiver.stderr.count("\n") == 1, "not a line for each"
        receiver.stop()


# --- killed and restarted ---


def test_a_killed_receiver_of_a_socket_comes_back_and_vault_with_it(
    tmp_path: Path, spool: Path, socket_args: tuple[str, str]
) -> None:
    with Receiving(spool, *socket_args) as receiver:
        receiver.args = ("--socket", receiver.url)
        with (
            VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao,
            ThreadPoolExecutor() as pool,
        ):
            for _ in range(3):
                asking = pool.submit(ask, bao, 100, at_once=2)
                time.sleep(0.03)
                receiver.kill()
                receiver.start()
                assert set(asking.result()) == {200}, "the file device takes the lines meanwhile"
            ask(bao, 4)
            expected = reference(bao)
        receiver.stop()
        for path in receiver.files():
            assert all(json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]), "torn at most at the end"
        found = Counter(keys(receiver.lines()))
        assert not found - Counter(expected), "nothing twice, and nothing that was not"
        assert keys(receiver.lines())[-8:] == expected[-8:], "Vault is connected again"
        assert len(receiver.files()) >= 2


def test_what_was_acknowledged_over_http_survives_a_kill(tmp_path: Path, spool: Path) -> None:
    acknowledged: list[bytes] = []

    def send(name: int) -> None:
        for n in range(1000):
            line = b'{"sender": %d, "n": %d}\n' % (name, n)
            try:
                if post(receiver, line) == 204:
                    acknowledged.append(line)
            except (OSError, http.client.HTTPException):
                return

    with Receiving(spool, *HTTP) as receiver:
        with ThreadPoolExecutor() as pool:
            for name in range(8):
                pool.submit(send, name)
            eventually(lambda: len(acknowledged) > 50)
            receiver.kill()
        found = Counter(receiver.lines())
        assert len(acknowledged) > 50
        assert not Counter(acknowledged) - found
        assert max(found.values()) == 1
        assert all(line.endswith(b"}\n") for line in found), "a body is there whole or not at all"


@pytest.mark.needs("http-device")
def test_openbao_s_http_device_goes_on_after_a_restart_of_the_receiver(tmp_path: Path, spool: Path) -> None:
    with Receiving(spool, *HTTP) as receiver:
        receiver.args = ("--http", receiver.url, "--no-bearer")
        with VaultServer(tmp_path / "bao", more_devices=[device("http", uri=receiver.url)]) as bao:
            ask(bao, 5)
            receiver.stop()
            before = len(reference(bao))
            assert ask(bao, 5) == [200] * 5, "the file device takes them"
            missing = len(reference(bao)) - before
            receiver.start()
            ask(bao, 5)
            expected = reference(bao)
            assert keys(receiver.lines()) == expected[:before] + expected[before + missing :]


# --- a disk that takes nothing ---


def test_a_full_disk_is_507_for_http_and_nothing_stays_of_what_was_refused(tmp_path: Path, spool: Path) -> None:
    with Receiving(spool, *HTTP) as receiver:
        assert post(receiver, b"first\n") == 204
        limit_files(receiver, 1000)
        assert [post(receiver, b"x" * length + b"\n") for length in (100_000, 1_000_000)] == [507, 507]
        assert post(receiver, b"short\n") == 204, "it fits"
        limit_files(receiver, 100 * MB)
        assert post(receiver, b"last\n") == 204
        receiver.stop()
        assert receiver.lines() == [b"first\n", b"short\n", b"last\n"]
        assert receiver.stderr.count("takes nothing") == 1


@pytest.mark.needs("http-device")
def test_a_full_disk_makes_openbao_s_only_device_fail(tmp_path: Path, spool: Path) -> None:
    with (
        Receiving(spool, *HTTP) as receiver,
        VaultServer(tmp_path / "bao", more_devices=[device("http", uri=receiver.url)]) as bao,
    ):
        ask(bao, 2)
        taken = len(receiver.lines())
        limit_files(receiver, 10)
        ask(bao, 2)
        assert len(receiver.lines()) == taken
        eventually(lambda: "507" in bao.log_file.read_text())


def test_a_socket_is_closed_while_the_disk_is_full_and_vault_finds_it_again(
    tmp_path: Path, spool: Path, socket_args: tuple[str, str]
) -> None:
    with Receiving(spool, *socket_args) as receiver:
        with VaultServer(tmp_path / "bao", more_devices=[socket_device(receiver.url)]) as bao:
            ask(bao, 2)
            eventually(lambda: keys(receiver.lines()) == reference(bao))
            limit_files(receiver, 10)
            ask(bao, 2)
            eventually(lambda: "closed while the spool takes nothing" in receiver.stderr)
            with pytest.raises(OSError):
                connect(receiver)
            limit_files(receiver, 100 * MB)
            eventually(lambda: "open again" in receiver.stderr)
            before = len(reference(bao))
            ask(bao, 5)
            after = reference(bao)[before:]
            eventually(lambda: keys(receiver.lines())[-len(after) :] == after)
        receiver.stop()


def test_a_pipe_waits_while_the_disk_is_full(tmp_path: Path, spool: Path) -> None:
    with Receiving(spool, "--stdin", stdin=subprocess.PIPE) as receiver:
        pipe = receiver.process.stdin
        assert pipe
        limit_files(receiver, 10)
        pipe.write(b"more than ten bytes\n")
        pipe.flush()
        eventually(lambda: "takes nothing" in receiver.stderr)
        limit_files(receiver, 100 * MB)
        pipe.write(b"and the next\n")
        pipe.close()
        assert receiver.process.wait(timeout=10) == 0
        assert receiver.lines() == [b"more than ten bytes\n", b"and the next\n"]


def test_a_pipe_that_is_stopped_while_the_disk_is_full_says_what_is_missing(tmp_path: Path, spool: Path) -> None:
    with Receiving(spool, "--stdin", stdin=subprocess.PIPE) as receiver:
        assert receiver.process.stdin
        limit_files(receiver, 10)
        with receiver.process.stdin as pipe:
            pipe.write(b"more than ten bytes\n")
            pipe.flush()
            eventually(lambda: "takes nothing" in receiver.stderr)
            receiver.process.terminate()
            assert receiver.process.wait(timeout=10) == 7
        assert "cannot store the lines that were read last" in receiver.stderr


# --- much ---


def test_memory_stays_bounded_when_64_connections_flood(spool: Path) -> None:
    block = (b"x" * 1023 + b"\n") * 1024
    with Receiving(spool, *TCP, "--untrusted", "2GiB") as receiver:

        def flood(_: int) -> None:
            with connect(receiver) as caller:
                for _ in range(10):
                    caller.sendall(block)

        began = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(flood, range(64)))
        eventually(lambda: sum(p.stat().st_size for p in receiver.files()) == 640 * MB, within=15)
        figures(f"640 MB in {time.monotonic() - began:.1f} s, peak {receiver.peak_memory() / MB:.0f} MB")
        assert receiver.peak_memory() < 100 * MB
        receiver.stop()
        assert len(receiver.files()) == 64


def test_memory_stays_bounded_with_lines_of_100_mb(spool: Path) -> None:
    """As large as the largest that OpenBao was seen to write, over HTTP eight at once, and over a socket."""
    length = 100 * MB

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b"y" * MB

    with Receiving(spool, *HTTP, "--untrusted", "2GiB") as receiver:
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: post(receiver, body(), Content_Length=str(length)), range(4)))
        assert statuses == [204] * 4
        figures(f"4 times 100 MB, peak {receiver.peak_memory() / MB:.0f} MB")
        assert receiver.peak_memory() < 100 * MB
        receiver.stop()
        assert [len(line) for line in receiver.lines()] == [length + 1] * 4, "one line each, its end added"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_arrived_when_it_is_told_to_stop_is_kept(spool: Path, number: int) -> None:
    with Receiving(spool, *TCP) as receiver:
        with connect(receiver) as caller:
            caller.sendall(b"z" * (3 * MB) + b"\n")
            sent = time.monotonic()
            assert receiver.stop(number) < 5
            assert time.monotonic() - sent < 5
            with pytest.raises(OSError):
                # at once, so that Vault notices and connects again
                caller.sendall(b"too late\n")
        assert [len(line) for line in receiver.lines()] == [3 * MB + 1]


def test_a_request_that_has_begun_is_answered_when_it_is_told_to_stop(spool: Path) -> None:
    with Receiving(spool, *HTTP) as receiver, socket.create_connection(receiver.host_and_port, timeout=10) as idle:
        with socket.create_connection(receiver.host_and_port, timeout=10) as caller:
            caller.sendall(b"POST /audit HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nbeg")
            time.sleep(0.3)
            receiver.process.terminate()
            time.sleep(0.5)
            caller.sendall(b"un\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 204")
        assert receiver.process.wait(timeout=10) == 0
        assert receiver.lines() == [b"begun\n"]
        assert idle.recv(1) == b""


# --- requests that are not OpenBao's ---


def test_an_http_request_that_is_not_right_is_refused_and_leaves_nothing(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "bearer").write_text("right\n")
    right = {"Authorization": "Bearer right"}
    with Receiving(spool, *HTTP[:2], "--bearer-file", str(tmp_path / "bearer")) as receiver:
        assert post(receiver, b"{}\n", **right) == 204
        assert post(receiver, b"no end, \n two lines", **right) == 204
        assert post(receiver, b"{}\n") == 401
        assert post(receiver, b"{}\n", Authorization="Bearer wrong") == 401
        assert post(receiver, b"{}\n", Authorization="right") == 401
        assert post(receiver, b"{}\n", path="/audit/", **right) == 404
        assert post(receiver, b"{}\n", path="/", **right) == 404
        assert post(receiver, b"", **right) == 400
        assert post(receiver, iter([b"{}\n"]), **right) == 411
        assert post(receiver, b"{}\n", Content_Length=str(10**12), **right) == 413
        assert post(receiver, b"{}\n", Content_Length="-3", **right) == 400
        assert post(receiver, b"{}\n", Content_Length="9" * 5000, **right) == 413
        assert raw(receiver, b"GET /audit HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405")
        assert raw(receiver, b"BANANA /audit HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 501")
        assert not raw(receiver, b"\x16\x03\x01 not http\r\n\r\n").startswith(b"HTTP/1.1 2")
        assert raw(receiver, b"POST /audit HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")[:12] in (
            b"",
            b"HTTP/1.1 431",
        )
        receiver.stop()
        assert receiver.lines() == [b"{}\n", b"no end, \n", b" two lines\n"]
        assert "right" not in receiver.stderr.replace("the right bearer", "")


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", "Content-Length: 9000000000000", "Content-Length: -3"])
def test_whoever_is_refused_while_still_sending_can_read_why(spool: Path, head: str) -> None:
    with Receiving(spool, *HTTP) as receiver:
        with socket.create_connection(receiver.host_and_port, timeout=10) as caller:
            caller.sendall(f"POST /audit HTTP/1.1\r\n{head}\r\n\r\n".encode())
            # as libraries send: each part by itself, and only then is the answer looked at
            for _ in range(4):
                time.sleep(0.05)
                caller.sendall(b"3\r\n{}\n\r\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 4")
        began = time.monotonic()
        receiver.stop()
        assert time.monotonic() - began < 3
        assert receiver.lines() == []


def test_a_body_whose_sender_goes_away_leaves_nothing(spool: Path) -> None:
    with Receiving(spool, *HTTP) as receiver:
        raw(receiver, b"POST /audit HTTP/1.1\r\nContent-Length: 100\r\n\r\nonly the beginn")
        assert post(receiver, b"whole\n") == 204
        receiver.stop()
        assert receiver.lines() == [b"whole\n"]


def test_whoever_connects_and_comes_to_no_end_does_not_keep_the_others_out(spool: Path) -> None:
    with Receiving(spool, *HTTP, "--max-connections", "2") as receiver:
        with connect(receiver), connect(receiver) as slow, ThreadPoolExecutor() as pool:
            began = time.monotonic()
            done = pool.submit(post, receiver, b"{}\n")
            with suppress(OSError):
                # each byte is a sign of life
                while not done.done() and time.monotonic() - began < 15:
                    slow.sendall(b"x")
                    time.sleep(0.5)
            assert done.result() == 204
            assert time.monotonic() - began < 2, "they have places of their own"
            # and the slow one loses that
            assert post(receiver, b"{}\n") == 204
            with pytest.raises(OSError):
                for _ in range(30):
                    slow.sendall(b"x")
                    time.sleep(0.2)
        receiver.stop()


def test_tls_is_1_2_or_newer_and_plain_text_is_not_taken(tmp_path: Path, spool: Path) -> None:
    certificate, key = self_signed(tmp_path)
    url = "https://127.0.0.1:0/audit"
    with Receiving(
        spool, "--http", url, "--no-bearer", "--tls-cert", str(certificate), "--tls-key", str(key)
    ) as receiver:
        trusting = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(*receiver.host_and_port, context=trusting, timeout=10)
        for _ in range(2):
            connection.request("POST", "/audit", b"{}\n")
            response = connection.getresponse()
            response.read()
            assert response.status == 204
        connection.close()
        with pytest.raises((OSError, http.client.HTTPException)):
            post(receiver, b"plain\n")
        receiver.stop()
        assert receiver.lines() == [b"{}\n"] * 2


def raw(receiver: Receiving, request: bytes) -> bytes:
    with socket.create_connection(receiver.host_and_port, timeout=10) as caller, suppress(OSError):
        caller.sendall(request)
        caller.shutdown(socket.SHUT_WR)
        return caller.recv(1000)
    return b""


# --- how it starts ---


def test_a_stale_socket_is_replaced_and_one_in_use_is_not(cli: Cli, tmp_path: Path, spool: Path) -> None:
    path = tmp_path / "audit.sock"
    args = ("--socket", f"unix://{path}")
    with Receiving(spool, *args) as receiver:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        failed = cli(None, "audit", "receive", *args, "--into", spool, code=2)
        assert "listens on" in failed.stderr
        receiver.kill()
        assert path.exists()
        receiver.start()
        receiver.stop()
        assert not path.exists()
    path.write_text("a file of somebody's")
    assert "not a socket" in cli(None, "audit", "receive", *args, "--into", spool, code=2).stderr
    assert path.read_text() == "a file of somebody's"


def test_a_wrong_command_line_is_2_and_says_what_is_wrong(quick: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    wrong: list[tuple[list[str], str]] = [
        ([], "--socket, --http and --stdin"),
        (["--stdin", *TCP], "--socket, --http and --stdin"),
        (["--socket", "tcp://127.0.0.1"], "expected tcp://"),
        (["--socket", "tcp://127.0.0.1:banana"], "expected tcp://"),
        (["--socket", "udp://127.0.0.1:1"], "expected tcp://"),
        (["--socket", "unix://relative"], "expected tcp://"),
        (["--socket", "unix:///" + "x" * 200], "cannot be used to listen on"),
        (["--socket", "tcp://192.0.2.1:1"], "cannot be used to listen on"),
        ([*HTTP[:2]], "either --bearer-file or --no-bearer"),
        ([*HTTP, "--bearer-file", str(tmp_path / "empty")], "either --bearer-file or --no-bearer"),
        (["--http", "ftp://127.0.0.1:1/", "--no-bearer"], "expected http(s)://"),
        (["--http", "http://127.0.0.1/", "--no-bearer"], "expected http(s)://"),
        (["--http", "http://192.0.2.1:1/", "--no-bearer"], "cannot be used to listen on"),
        (["--http", "https://127.0.0.1:0/", "--no-bearer"], "--tls-cert"),
        ([*HTTP, "--tls-cert", str(tmp_path / "empty")], "--tls-cert"),
        ([*HTTP[:2], "--bearer-file", str(tmp_path / "none")], "cannot be read"),
        ([*HTTP[:2], "--bearer-file", str(tmp_path / "empty")], "has no bearer in it"),
        ([*TCP, "--bearer-file", str(tmp_path / "empty")], "go with --http"),
        ([*TCP, "--prefix", "x"], "--prefix goes with --stdin"),
        ([*TCP, "--keep", "soon"], "'--keep': expected"),
        (
            ["--http", "https://127.0.0.1:0/", *HTTP[2:], "--tls-cert", str(tmp_path / "empty"), "--tls-key", "none"],
            "does not exist",
        ),
    ]
    for args, said in wrong:
        failed = quick(None, "audit", "receive", *args, "--into", tmp_path / "spool", code=2)
        assert said in failed.stderr, (args, failed.stderr)
    failed = quick(None, "audit", "receive", *TCP, "--into", tmp_path / "empty", code=2)
    assert "cannot be written" in failed.stderr
    failed = quick(None, "audit", "receive", *TCP, "--into", tmp_path / "open", code=2)
    assert "others may write" in failed.stderr


def test_without_json_it_says_on_stderr_where_it_listens(cli: Cli, spool: Path) -> None:
    done = cli(None, "audit", "receive", "--stdin", "--into", spool, given="{}\n")
    assert (done.stdout, done.stderr) == ("", f"Receiving from standard input into {spool}\n")


def test_what_ended_long_ago_is_removed_when_it_starts(spool: Path) -> None:
    with Receiving(spool, *TCP) as receiver:
        with connect(receiver) as gone:
            gone.sendall(b"gone\n")
        eventually(lambda: len(receiver.lines()) == 1)
        (old,) = receiver.files()
        with connect(receiver) as silent:
            silent.sendall(b"silent\n")
            eventually(lambda: len(receiver.lines()) == 2)
            week_ago = time.time() - 8 * 86_400
            for path in receiver.files():
                os.utime(path, (week_ago, week_ago))
            other = spool / "somebody's.log"
            other.touch()
            os.utime(other, (week_ago, week_ago))
            with Receiving(spool, *TCP) as second:
                eventually(lambda: not old.exists())
                assert second.lines() == [b"silent\n"], "it may still speak"
                assert other.exists()


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
