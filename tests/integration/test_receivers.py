"""The receivers against a real OpenBao that pushes to them; its file device says what has to arrive."""

from __future__ import annotations

import http.client
import json
import os
import resource
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
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from commands import Cli
from receivers import Https, Receiving, TrustingVault, ask, connect, device, eventually, keys, reference, socket_device

from jitvault.audit.files.spool import SpoolSources
from jitvault.audit.receivers.receiver import MOST_CONNECTIONS
from jitvault.formats.server_product import Product
from jitvault.sandbox.vault_server import VaultServer

MB = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """Where a receiver writes; gone afterwards, since some of it is large."""
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


def figures(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def limit_files(receiver: Receiving, length: int) -> None:
    """No file of the receiver can be longer from now on: the disk is full, as far as it can tell."""
    _, hard = resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (length, hard))


@pytest.fixture
def unix(tmp_path: Path) -> tuple[str, str]:
    return "--socket", f"unix://{tmp_path}/audit.sock"


@pytest.fixture
def https(tmp_path: Path) -> Https:
    return Https(tmp_path / "https")


# --- what OpenBao sends ---


def test_what_a_socket_device_sends_is_in_the_spool_in_order(
    tmp_path: Path, spool: Path, unix: tuple[str, str]
) -> None:
    with Receiving(spool, *unix) as receiver:
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
def test_what_an_http_device_sends_is_in_the_spool_in_order(tmp_path: Path, spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        with TrustingVault(tmp_path / "bao", receiver, https) as bao:
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


def test_bytes_of_two_connections_are_never_in_one_file(tmp_path: Path, spool: Path, unix: tuple[str, str]) -> None:
    with Receiving(spool, *unix) as receiver:
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


def test_over_the_limit_a_new_connection_is_refused_and_the_others_go_on(spool: Path, unix: tuple[str, str]) -> None:
    with Receiving(spool, *unix) as receiver, ExitStack() as others:
        for _ in range(MOST_CONNECTIONS - 2):
            others.enter_context(connect(receiver))
        with connect(receiver) as first, connect(receiver) as second:
            for n, caller in enumerate((first, second)):
                caller.sendall(b"before %d\n" % n)
            eventually(lambda: len(receiver.lines()) == 2)
            for _ in range(3):
                with connect(receiver) as third, suppress(ConnectionResetError):
                    assert third.recv(1) == b""
            first.sendall(b"after\n")
            eventually(lambda: len(receiver.lines()) == 3)
            second.close()
            with connect(receiver) as third:
                third.sendall(b"in its place\n")
                eventually(lambda: len(receiver.lines()) == 4)
        eventually(lambda: "refused" in receiver.stderr)
        assert receiver.stderr.count("\n") == 1, "not a line for each"
        receiver.stop()


# --- killed and restarted ---


def test_a_killed_receiver_of_a_socket_comes_back_and_vault_with_it(
    tmp_path: Path, spool: Path, unix: tuple[str, str]
) -> None:
    with Receiving(spool, *unix) as receiver:
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


def test_what_was_acknowledged_over_http_survives_a_kill(spool: Path, https: Https) -> None:
    acknowledged: list[bytes] = []

    def send(name: int) -> None:
        for n in range(1000):
            line = b'{"sender": %d, "n": %d}\n' % (name, n)
            try:
                if https.post(receiver, line) == 204:
                    acknowledged.append(line)
            except (OSError, http.client.HTTPException):
                return

    with Receiving(spool, *https.args) as receiver:
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
def test_openbao_s_http_device_goes_on_after_a_restart_of_the_receiver(
    tmp_path: Path, spool: Path, https: Https
) -> None:
    with Receiving(spool, *https.args) as receiver:
        receiver.args = ("--http", receiver.url, *https.args[2:])
        with TrustingVault(tmp_path / "bao", receiver, https) as bao:
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


def test_a_full_disk_is_507_for_http_and_nothing_stays_of_what_was_refused(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        assert https.post(receiver, b"first\n") == 204
        limit_files(receiver, 1000)
        assert [https.post(receiver, b"x" * length + b"\n") for length in (100_000, 8_000_000)] == [507, 507]
        assert https.post(receiver, b"short\n") == 204, "it fits"
        limit_files(receiver, 100 * MB)
        assert https.post(receiver, b"last\n") == 204
        assert receiver.stderr.count("takes nothing") == 1
        receiver.stop()
        assert receiver.lines() == [b"first\n", b"short\n", b"last\n"]
        assert "takes nothing (1 more; " in receiver.stderr


@pytest.mark.needs("http-device")
def test_a_full_disk_makes_openbao_s_only_device_fail(tmp_path: Path, spool: Path, https: Https) -> None:
    with (
        Receiving(spool, *https.args) as receiver,
        TrustingVault(tmp_path / "bao", receiver, https) as bao,
    ):
        ask(bao, 2)
        taken = len(receiver.lines())
        limit_files(receiver, 10)
        ask(bao, 2)
        assert len(receiver.lines()) == taken
        eventually(lambda: "507" in bao.log_file.read_text())


def test_a_socket_is_closed_while_the_disk_is_full_and_vault_finds_it_again(
    tmp_path: Path, spool: Path, unix: tuple[str, str]
) -> None:
    with Receiving(spool, *unix) as receiver:
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


def test_memory_stays_bounded_when_64_connections_flood(spool: Path, unix: tuple[str, str]) -> None:
    block = (b"x" * 1023 + b"\n") * 1024
    with Receiving(spool, *unix) as receiver:

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


def test_memory_stays_bounded_with_lines_of_100_mb(spool: Path, https: Https) -> None:
    """As large as the largest that OpenBao was seen to write, four at once."""
    length = 100 * MB

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b"y" * MB

    with Receiving(spool, *https.args) as receiver:
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: https.post(receiver, body(), Content_Length=str(length)), range(4)))
        assert statuses == [204] * 4
        figures(f"4 times 100 MB, peak {receiver.peak_memory() / MB:.0f} MB")
        assert receiver.peak_memory() < 100 * MB
        receiver.stop()
        assert [len(line) for line in receiver.lines()] == [length + 1] * 4, "one line each, its end added"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_arrived_when_it_is_told_to_stop_is_kept(spool: Path, unix: tuple[str, str], number: int) -> None:
    with Receiving(spool, *unix) as receiver:
        with connect(receiver) as caller:
            caller.sendall(b"z" * (3 * MB) + b"\n")
            sent = time.monotonic()
            assert receiver.stop(number) < 5
            assert time.monotonic() - sent < 5
            with pytest.raises(OSError):
                # at once, so that Vault notices and connects again
                caller.sendall(b"too late\n")
        assert [len(line) for line in receiver.lines()] == [3 * MB + 1]


def test_a_request_that_has_begun_is_answered_when_it_is_told_to_stop(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver, https.connect(receiver) as idle:
        with https.connect(receiver) as caller:
            head = f"POST /audit HTTP/1.1\r\nAuthorization: {https.bearer}\r\nContent-Length: 6\r\n\r\nbeg"
            caller.sendall(head.encode())
            time.sleep(0.3)
            receiver.process.terminate()
            time.sleep(0.5)
            caller.sendall(b"un\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 204")
        assert receiver.process.wait(timeout=10) == 0
        assert receiver.lines() == [b"begun\n"]
        # its end, or an alert that says so
        with suppress(ssl.SSLError):
            assert idle.recv(1) == b""


# --- requests that are not OpenBao's ---


def test_an_http_request_that_is_not_right_is_refused_and_leaves_nothing(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        assert https.post(receiver, b"{}\n") == 204
        assert https.post(receiver, b"no end, \n two lines") == 204
        assert https.post(receiver, b"{}\n", path="/audit/") == 404
        assert https.post(receiver, b"{}\n", path="/") == 404
        assert https.post(receiver, b"") == 400
        assert https.post(receiver, iter([b"{}\n"])) == 411
        assert https.post(receiver, b"{}\n", Content_Length=str(10**12)) == 413
        assert https.post(receiver, b"{}\n", Content_Length="-3") == 400
        assert https.post(receiver, b"{}\n", Content_Length="9" * 5000) == 413
        bearer = f"Authorization: {https.bearer}\r\n\r\n".encode()
        assert raw(https.connect(receiver), b"GET /audit HTTP/1.1\r\n" + bearer).startswith(b"HTTP/1.1 405")
        assert raw(https.connect(receiver), b"BANANA /audit HTTP/1.1\r\n" + bearer).startswith(b"HTTP/1.1 501")
        assert not raw(https.connect(receiver), b"\x16\x03\x01 not http\r\n\r\n").startswith(b"HTTP/1.1 2")
        for header in (b"X: y\r\n" * 10_000, (b"X: " + b"y" * 10_000 + b"\r\n") * 4):
            long = b"POST /audit HTTP/1.1\r\n" + header + b"\r\n"
            assert raw(https.connect(receiver), long)[:12] in (b"", b"HTTP/1.1 431")
        receiver.stop()
        assert receiver.lines() == [b"{}\n", b"no end, \n", b" two lines\n"]
        for status in (400, 404, 405, 411, 413, 501):
            assert f"a request was refused: {status} " in receiver.stderr
        assert "a request was refused: 404 Not Found (1 more; from 127.0.0.1)" in receiver.stderr


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", "Content-Length: 9000000000000", "Content-Length: -3"])
def test_whoever_is_refused_while_still_sending_can_read_why(spool: Path, https: Https, head: str) -> None:
    with Receiving(spool, *https.args) as receiver:
        with https.connect(receiver) as caller:
            caller.sendall(f"POST /audit HTTP/1.1\r\nAuthorization: {https.bearer}\r\n{head}\r\n\r\n".encode())
            # as libraries send: each part by itself, and only then is the answer looked at
            for _ in range(4):
                time.sleep(0.05)
                caller.sendall(b"3\r\n{}\n\r\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 4")
        began = time.monotonic()
        receiver.stop()
        assert time.monotonic() - began < 3
        assert receiver.lines() == []


def test_a_body_whose_sender_goes_away_leaves_nothing(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        head = f"POST /audit HTTP/1.1\r\nAuthorization: {https.bearer}\r\nContent-Length: 100\r\n\r\n"
        raw(https.connect(receiver), head.encode() + b"only the beginn")
        assert https.post(receiver, b"whole\n") == 204
        receiver.stop()
        assert receiver.lines() == [b"whole\n"]
        assert receiver.stderr == "an incomplete body was refused (from 127.0.0.1)\n"


def test_whoever_connects_and_comes_to_no_end_does_not_keep_the_others_out(spool: Path, https: Https) -> None:
    with Receiving(spool, *https.args) as receiver:
        with https.connect(receiver), https.connect(receiver) as slow, ThreadPoolExecutor() as pool:
            began = time.monotonic()
            done = pool.submit(https.post, receiver, b"{}\n")
            with suppress(OSError):
                # each byte is a sign of life
                while not done.done() and time.monotonic() - began < 15:
                    slow.sendall(b"x")
                    time.sleep(0.5)
            assert done.result() == 204
            assert time.monotonic() - began < 2, "nobody waits for them"
            # and the slow one loses its place
            assert https.post(receiver, b"{}\n") == 204
            with pytest.raises(OSError):
                for _ in range(30):
                    slow.sendall(b"x")
                    time.sleep(0.2)
        receiver.stop()


def raw(caller: socket.socket, request: bytes) -> bytes:
    with caller, suppress(OSError):
        caller.sendall(request)
        # what comes is the end of what was sent, not of the connection
        socket.socket.shutdown(caller, socket.SHUT_WR)
        return caller.recv(1000)
    return b""


# --- how it starts ---


def test_what_a_killed_receiver_held_is_taken_over_and_what_one_in_use_holds_is_not(
    cli: Cli, tmp_path: Path, spool: Path
) -> None:
    path = tmp_path / "audit.sock"
    args = ("--socket", f"unix://{path}")
    with Receiving(spool, *args) as receiver:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        failed = cli(None, "audit", "receive", *args, "--into", tmp_path / "other", code=2)
        assert "listens on" in failed.stderr
        failed = cli(None, "audit", "receive", "--stdin", "--into", spool, code=2)
        assert f"another receiver already fills {spool}" in failed.stderr
        receiver.kill()
        assert path.exists()
        receiver.start()
        receiver.stop()
        assert not path.exists()
    path.write_text("a file of somebody's")
    assert "not a socket" in cli(None, "audit", "receive", *args, "--into", spool, code=2).stderr
    assert path.read_text() == "a file of somebody's"


def test_a_wrong_command_line_is_2_and_says_what_is_wrong(
    quick: Cli, tmp_path: Path, https: Https, unix: tuple[str, str]
) -> None:
    empty, short = tmp_path / "empty", tmp_path / "short"
    empty.touch(0o600)
    short.touch(0o600)
    short.write_text("Bearer 123456789012345")
    readable = tmp_path / "readable"
    readable.write_text(https.bearer)
    readable.chmod(0o640)
    url, tls = https.args[:2], https.tls
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    wrong: list[tuple[list[str], str]] = [
        ([], "--socket, --http and --stdin"),
        (["--stdin", *unix], "--socket, --http and --stdin"),
        # what anybody on this host or its network could write to
        (["--socket", "tcp://127.0.0.1:0"], "through a TLS tunnel"),
        (["--http", "http://127.0.0.1:0/", "--bearer-file", str(https.bearer_file)], "expected https://"),
        ([*url, *tls], "take lines only from those who may send"),
        (["--socket", "unix://relative"], "expected unix://"),
        (["--socket", "unix://[x"], "expected unix://"),
        (["--socket", "unix:///" + "x" * 200], "cannot be used to listen on"),
        ([*unix, "--allow-user", "nobody's"], "no user"),
        ([*unix, "--allow-user", "65534"], "can be anybody"),
        (["--stdin", "--allow-user", "root"], "--allow-user goes with --socket"),
        (["--http", "https://127.0.0.1/", *https.args[2:]], "expected https://"),
        (["--http", "https://192.0.2.1:1/", *https.args[2:]], "cannot be used to listen on"),
        ([*url, "--bearer-file", str(https.bearer_file)], "--tls-cert"),
        ([*url, *tls[:2], "--client-ca", str(empty)], "--tls-key"),
        ([*url, *tls, "--client-ca", str(empty)], "has no certificates"),
        ([*url, *tls[:2], "--tls-key", "none", *https.args[-2:]], "does not exist"),
        ([*url, *tls, "--bearer-file", str(tmp_path / "none")], "cannot be read"),
        ([*url, *tls, "--bearer-file", str(empty)], "at least 16 characters"),
        ([*url, *tls, "--bearer-file", str(short)], "at least 16 characters"),
        ([*url, *tls, "--bearer-file", str(readable)], "others can read"),
        ([*unix, "--bearer-file", str(empty)], "go with --http"),
        ([*unix, "--prefix", "x"], "--prefix goes with --stdin"),
        ([*unix, "--keep", "soon"], "'--keep': expected"),
    ]
    for args, said in wrong:
        # one that is taken for right does not start either
        into = tmp_path / "spool" if "listen on" in said else empty
        failed = quick(None, "audit", "receive", *args, "--into", into, code=2)
        assert said in " ".join(failed.stderr.split()), (args, failed.stderr)
    failed = quick(None, "audit", "receive", *unix, "--into", tmp_path / "empty", code=2)
    assert "cannot be written" in failed.stderr
    failed = quick(None, "audit", "receive", *unix, "--into", tmp_path / "open", code=2)
    assert "others may write" in failed.stderr


def test_without_json_it_says_on_stderr_where_it_listens(cli: Cli, spool: Path) -> None:
    done = cli(None, "audit", "receive", "--stdin", "--into", spool, given="{}\n")
    assert (done.stdout, done.stderr) == ("", f"Receiving from standard input into {spool}\n")


def test_what_ended_long_ago_is_removed_when_it_starts(spool: Path, unix: tuple[str, str]) -> None:
    with Receiving(spool, *unix) as receiver:
        with connect(receiver) as gone:
            gone.sendall(b"gone\n")
        eventually(lambda: len(receiver.lines()) == 1)
        receiver.stop()
        (old,) = receiver.files()
        other = spool / "somebody's.log"
        other.touch()
        week_ago = time.time() - 8 * 86_400
        for path in (old, other):
            os.utime(path, (week_ago, week_ago))
        receiver.start()
        eventually(lambda: not old.exists())
        assert other.exists()
