"""The channels for notices.

They are a command that gets the JSON on its standard input, and a webhook.

Neither gets a token of jitvault's. Neither the URL nor the answer is ever logged, since both can contain a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from jitvault.errors import UsageError
from jitvault.formats.secret import Secret
from jitvault.http.connection import NoAnswer, NotTrusted, ServerAddress, connect
from jitvault.http.deadline_socket import TimeLimit

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
        limit = TimeLimit(timeout_s, time.monotonic() + timeout_s)
        try:
            server = ServerAddress.of(self.url)
            parts = urlsplit(self.url)
            target = f"{parts.path or '/'}?{parts.query}".removesuffix("?")
            # only the status says whether it is delivered
            with closing(connect(server, limit)) as connection:
                answer = connection.ask("POST", target, headers, body, limit, most=None)
        except NotTrusted:
            return "the webhook does not answer: its certificate is not trusted"
        except (NoAnswer, ValueError) as error:
            return f"the webhook does not answer: {error}"
        return None if 200 <= answer.status_code < 300 else f"the webhook answered {answer.status_code}"


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
