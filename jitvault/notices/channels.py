"""The channels for notices.

They are a command that gets the JSON on its standard input, and a webhook.

Neither gets a token of jitvault's. Neither the URL nor the answer is ever logged, since both can contain a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from jitvault.errors import UsageError
from jitvault.formats.secret import Secret

SIGNATURE, NOTICE_ID = "X-Jitvault-Signature", "X-Jitvault-Notice"
_KEPT = ("PATH", "HOME", "LANG", "TZ")
_LEAST_KEY = 16
# how often the processes of a command are looked for again, since one may start others while they are killed
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Command:
    """A `Messenger` that runs a program.

    The notice is delivered when the program exits with 0 in time.
    """

    argv: Sequence[str]

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            process = subprocess.Popen(  # noqa: S603 - the administrator's own command
                [*self.argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment | {"JITVAULT_NOTICE": notice_id},
                start_new_session=True,
            )
        except OSError as error:
            return f"the command does not start: {error.strerror}"
        try:
            process.communicate(body, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end_all(process, notice_id)
            return f"the command did not end within {timeout_s:g} s"
        return f"the command ended with {process.returncode}" if process.returncode else None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A `Messenger` that sends an HTTP POST.

    Any 2xx answer means that the notice is delivered. Redirects are not followed.
    """

    url: str = field(repr=False)
    key: Secret

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        headers = {
            "Content-Type": "application/json",
            NOTICE_ID: notice_id,
            SIGNATURE: signature(self.key, body),
        }
        with requests.Session() as session, Deadline(timeout_s) as deadline:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter(deadline))
            # use neither a proxy nor a password from the environment or from this user's files
            session.trust_env = False
            try:
                answer = session.post(
                    self.url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
                )
            except requests.RequestException as error:
                if not deadline.over:
                    return f"the webhook does not answer: {type(error).__name__}"
            # an answer that was cut off can look like a complete one
            if deadline.over:
                return f"the webhook does not answer within {timeout_s:g} s"
            return None if 200 <= answer.status_code < 300 else f"the webhook answered {answer.status_code}"


class Deadline:
    """Shuts down the open connections when the time is over.

    A socket's own time-out starts again with each byte, so a slow server could go on for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._open:
                one.close()
            self._open.clear()

    def watch(self, connection: socket.socket) -> None:
        # TLS takes the socket's descriptor away, but a shutdown of a copy is one of the connection
        copy = connection.dup()
        with self._lock:
            self._open.append(copy)
            if self.over:
                _shut(copy)

    def _end(self) -> None:
        with self._lock:
            self.over = True
            for one in self._open:
                _shut(one)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """An HTTP adapter that has a deadline watch each connection."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        watch = self._deadline.watch

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                watch(made)
                return made

        class Secured(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                watch(made)
                return made

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecuredPool(HTTPSConnectionPool):
            ConnectionCls = Secured

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecuredPool}


def _end_all(process: subprocess.Popen[bytes], notice_id: str) -> None:
    """Kill a command and all its processes, also in other sessions.

    Every process that the command started has the notice's id in its environment, unless it removes the id.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(_ROUNDS):
        found = [pid for pid in _processes() if _has_notice(pid, notice_id)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    try:
        return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()]
    except OSError:
        return []


def _has_notice(pid: int, notice_id: str) -> bool:
    with suppress(OSError):
        return f"JITVAULT_NOTICE={notice_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def signature(key: Secret, body: bytes) -> str:
    """Return the HMAC-SHA256 of the exact bytes of the body, in hex."""
    return "sha256=" + hmac.new(key.reveal().encode(), body, hashlib.sha256).hexdigest()


def shared_key(path: Path) -> Secret:
    """Return the key in a file that no other user can read. Raises UsageError."""
    try:
        with path.open() as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read().strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: {path} cannot be read") from None
    if mode & 0o077:
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: others can read {path}", hint="Run `chmod 600` on it.")
    if len(text) < _LEAST_KEY:
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: expected at least {_LEAST_KEY} characters in {path}")
    return Secret(text)
