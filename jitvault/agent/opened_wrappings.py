"""Remember which wrapping tokens this user opened.

None is opened twice by mistake.

Vault cannot tell a second unwrap by the same person from theft: whoever comes second is refused, and that refusal ends
the task as intercepted. So the command refuses the second time itself, before Vault is asked.

A record is a file of the user's own state directory, named by the SHA-256 of the wrapping token. The token is never
stored. A record that cannot be read or written prevents no unwrap: the user is warned.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jitvault.errors import WrongState
from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.secret import Secret

KEPT_FOR = timedelta(days=30)
"""How long a record stays. A task's token lives for eight hours at most; a copy of a wrapping may be tried later."""
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Opened:
    """When this user opened a wrapping token, and which task's it was.

    `task_id` and `vault`, the server's address, are empty where the record does not name one.
    """

    at: datetime
    task_id: str
    vault: str = ""


def state_directory(environment: Mapping[str, str]) -> Path:
    """Return the directory of this user's records.

    It is in the XDG state directory; a relative XDG_STATE_HOME is ignored, as XDG's specification wants it. A user
    without a home directory gets a path at which nothing can be written.
    """
    named = Path(environment.get("XDG_STATE_HOME") or "")
    home = environment.get("HOME") or os.devnull
    base = named if named.is_absolute() else Path(home) / ".local" / "state"
    return base / "jitvault" / "unwrapped"


class Record:
    """The record of one wrapping token.

    It is locked until its holder has asked Vault. Without a file nothing is remembered.
    """

    def __init__(self, path: Path, descriptor: int | None, warn: Callable[[str], None]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._warn = warn

    def keep(self, task_id: str, vault: str = "") -> None:
        """Remember that the wrapping token was opened just now.

        To be called as soon as Vault has answered, and never before: a request that Vault did not answer may have to be
        sent again.
        """
        if self._descriptor is None:
            return
        said = {"at": rfc3339(datetime.now(UTC)), "task_id": task_id, "vault": vault}
        try:
            os.write(self._descriptor, json.dumps(said).encode() + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            self._warn(_not_remembered(self._path, error))
        _remove_old(self._path.parent)


@contextmanager
def locked_record(token: Secret, directory: Path, warn: Callable[[str], None]) -> Iterator[Record]:
    """Yield the record of a wrapping token that this user did not open before.

    A second process with that token waits until the first one has its answer. Raises WrongState where the token was
    opened. Where nothing can be remembered `warn` is called with the reason.
    """
    path = directory / sha256_hex(token.reveal().encode())
    # a record can be readable where no new one can be written
    _refuse_opened(path)
    try:
        descriptor = _locked(path)
    except OSError as error:
        warn(_not_remembered(path, error))
        yield Record(path, None, warn)
        return
    try:
        _refuse_opened(path)
        yield Record(path, descriptor, warn)
    finally:
        with suppress(OSError):
            if os.fstat(descriptor).st_size == 0:
                path.unlink()
        os.close(descriptor)


def opened_of_task(task_id: str, vault: str, directory: Path) -> Opened | None:
    """Return when this user last opened a wrapping token of a task, or None.

    The task is one of the server at the address `vault`: another one may have a task of that name, too.
    """
    with suppress(OSError):
        read = filter(None, map(_read, directory.iterdir()))
        found = [opened for opened in read if opened.task_id == task_id and opened.vault in (vault, "")]
        return max(found, key=lambda opened: opened.at, default=None)
    return None


def _refuse_opened(path: Path) -> None:
    """Raise WrongState where the record says that its token was opened."""
    opened = _read(path)
    if opened is None:
        return
    whose = f" of task {opened.task_id}" if opened.task_id else ""
    task = opened.task_id or "TASK"
    when = f"{opened.at:%Y-%m-%d %H:%M:%S} UTC"
    raise WrongState(
        f"you opened this wrapping token{whose} before, at {when}; Vault was not asked again",
        hint="Go on with what it gave then: to Vault a second unwrap is theft, and ends the task. If that was somebody "
        f"else, or if it is lost, raise the alarm: the operator runs `jitvault revoke {task} --reason WHY`, or the "
        f"agent `jitvault complete {task}`.",
    )


def _read(path: Path) -> Opened | None:
    """Return what a record says; None for one that is missing or empty.

    A record of any other content counts as well: its token was opened when the file was written.
    """
    try:
        with path.open("rb") as file:
            written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            text = file.read(_LONGEST)
    except OSError:
        return None
    if not text:
        return None
    try:
        said = json.loads(text)
        at = datetime.fromisoformat(said["at"]).astimezone(UTC)
        return Opened(at, str(said["task_id"]), str(said.get("vault") or ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Opened(written, "")


def _locked(path: Path) -> int:
    """Return a locked descriptor of the record.

    A missing record is created. Raises OSError.
    """
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) & 0o077:
            directory.chmod(0o700)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                os.fchmod(descriptor, 0o600)
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        # its former holder opened nothing and removed the file, while this process waited
        os.close(descriptor)


def _remove_old(directory: Path) -> None:
    """Remove records that are older than KEPT_FOR."""
    oldest = time.time() - KEPT_FOR.total_seconds()
    with suppress(OSError):
        for path in list(directory.iterdir()):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _not_remembered(path: Path, error: OSError) -> str:
    return (
        f"{path.parent} cannot be written ({error.strerror or error}): it is not remembered that this wrapping token "
        "was opened. Unwrapping it a second time would end the task."
    )
