"""The two ways out: what they hand over, what they take for a yes, and what they never say."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jitvault.errors import UsageError
from jitvault.formats.secret import Secret
from jitvault.notices.channels import Command, Webhook, shared_key, signature

BODY = json.dumps({"event": "pending"}).encode()


def program(directory: Path, text: str) -> list[str]:
    path = directory / "hook.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_a_command_gets_the_body_on_standard_input_and_none_of_our_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JITVAULT_WORKER_TOKEN", secrets.token_hex(8))
    out = tmp_path / "out"
    argv = program(
        tmp_path,
        "import json, os, sys\n"
        f"json.dump([sys.stdin.read(), dict(os.environ)], open({str(out)!r}, 'w'))\n"
        "print('chatter')\n",
    )
    assert Command(argv).send("n1", BODY, 10) is None
    said, environment = json.loads(out.read_text())
    assert said.encode() == BODY and environment["JITVAULT_NOTICE"] == "n1"
    assert not [name for name in environment if "TOKEN" in name]


def test_a_command_that_fails_or_is_not_there_says_why(tmp_path: Path) -> None:
    assert Command(program(tmp_path, "raise SystemExit(3)")).send("n", BODY, 10) == "the command ended with 3"
    assert "does not start" in (Command([str(tmp_path / "nothing")]).send("n", BODY, 10) or "")
    # one that does not read its input is taken by how it ends
    assert Command(["true"]).send("n", BODY * 100_000, 10) is None


@pytest.mark.parametrize("session", ["False", "True"])
def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path, session: str) -> None:
    pid = tmp_path / "pid"
    argv = program(
        tmp_path,
        "import subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '60'], start_new_session={session})\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(60)\n",
    )
    begun = time.monotonic()
    assert Command(argv).send("n", BODY, 1.5) == "the command did not end within 1.5 s"
    assert time.monotonic() - begun < 10
    for _ in range(100):
        if not _runs(int(pid.read_text())):
            return
        time.sleep(0.05)
    raise AssertionError("its child lives on")


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_a_webhook_that_trickles_is_given_up_when_the_time_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as others:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                for _ in range(100):
                    connection.sendall(b"a")
                    time.sleep(0.1)

        done = others.submit(trickle)
        begun = time.monotonic()
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", Secret("k" * 16))
        assert hook.send("n", BODY, 1) == "the webhook does not answer: it takes too long"
        assert time.monotonic() - begun < 4
        done.result()


def test_a_webhook_that_is_not_there_says_so_without_its_url() -> None:
    hook = Webhook("http://127.0.0.1:9/secret-path", Secret("k" * 16))
    why = hook.send("n", BODY, 1)
    assert why == "the webhook does not answer: Connection refused" and "secret-path" not in repr(hook)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nand so on",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_a_webhook_has_taken_a_notice_once_its_status_says_so_whatever_follows(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as others:

        def serve() -> bytes:
            connection, _ = server.accept()
            with connection:
                came = b""
                while not came.endswith(BODY):
                    came += connection.recv(65536)
                connection.sendall(head)
                connection.recv(1)
            return came

        came = others.submit(serve)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert Webhook(f"http://{address}/hook?key=s", Secret("k" * 16)).send("n", BODY, 5) is None
        lines = came.result().split(b"\r\n")
        assert lines[0] == b"POST /hook?key=s HTTP/1.1" and f"Host: {address}".encode() in lines


@pytest.mark.parametrize(("mode", "text"), [(0o640, "k" * 32), (0o600, "short"), (0o600, "")])
def test_a_key_that_others_read_or_guess_is_refused(tmp_path: Path, mode: int, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(UsageError) as refused:
        shared_key(path)
    assert not text or text not in str(refused.value)


def test_the_signature_is_of_the_key_and_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(secrets.token_hex(16) + "\n")
    path.chmod(0o600)
    key = shared_key(path)
    assert key.reveal() == path.read_text().strip()
    assert signature(key, BODY) != signature(key, BODY + b" ") != signature(Secret("x" * 32), BODY + b" ")
    with pytest.raises(UsageError):
        shared_key(tmp_path / "none")
    assert os.environ.get("JITVAULT_NOTIFY_KEY_FILE") is None
