"""The ways out for notices: a command that gets the JSON on its standard input, and a webhook.

Both get no token of ours, and neither the URL nor what was answered is ever told: both can hold a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import requests

from jitvault.domain.secret import Secret
from jitvault.errors import UsageError

SIGNATURE, NOTICE_ID = "X-Jitvault-Signature", "X-Jitvault-Notice"
_KEPT = ("PATH", "HOME", "LANG", "TZ")
_LEAST_KEY = 16


@dataclass(frozen=True, slots=True)
class Command:
    """`jitvault.ports.notices.Messenger` by a program; it took the notice when it ends with 0 in time."""

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
            # with whatever it started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"the command did not end within {timeout_s:g} s"
        return f"the command ended with {process.returncode}" if process.returncode else None


@dataclass(frozen=True, slots=True)
class Webhook:
    """`jitvault.ports.notices.Messenger` by HTTP POST; any 2xx is a yes, and nothing is followed elsewhere."""

    url: str = field(repr=False)
    key: Secret

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        headers = {
            "Content-Type": "application/json",
            NOTICE_ID: notice_id,
            SIGNATURE: signature(self.key, body),
        }
        with requests.Session() as session:
            # neither a proxy nor a password from this person's files
            session.trust_env = False
            try:
                answer = session.post(
                    self.url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
                )
            except requests.RequestException as error:
                return f"the webhook does not answer: {type(error).__name__}"
            return None if 200 <= answer.status_code < 300 else f"the webhook answered {answer.status_code}"


def signature(key: Secret, body: bytes) -> str:
    """HMAC-SHA256 over the exact bytes of the body, in hex."""
    return "sha256=" + hmac.new(key.reveal().encode(), body, hashlib.sha256).hexdigest()


def shared_key(path: Path) -> Secret:
    """The key in a file that nobody else can read. Raises UsageError."""
    try:
        with path.open() as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read().strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: {path} cannot be read") from None
    if mode & 0o077:
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: others can read {path}", hint="Make it 0600.")
    if len(text) < _LEAST_KEY:
        raise UsageError(f"JITVAULT_NOTIFY_KEY_FILE: expected at least {_LEAST_KEY} characters in {path}")
    return Secret(text)
