"""What receivers have in common: running, stopping, and notices.

Each way in which Vault can push its audit lines is one file with one `Receiver`: `receive_socket`, `receive_http`,
`receive_stream`. All of them write into a spool, and the readers of the spool do not know which one wrote it.
"""

from __future__ import annotations

import errno
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from typing import Protocol

from jitvault.audit.files.spool import Spool
from jitvault.errors import UsageError

POLL_S = 0.25
DRAIN_S = 3.0
FLUSH_S = 0.1
_CLEAN_S = 3600.0
_REPEAT_S = 60.0
_OPEN_FILES = 256

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Receiver(Protocol):
    """One way in for audit lines.

    It is ready to be reached when it is made; its lines go to its spool.
    """

    listening: str
    """Where it can be reached, as a person would write it."""

    def run(self, stopping: Event) -> None:
        """Receive until `stopping` is set or the input ends.

        What has arrived by then is in the spool.
        """
        ...


class Notices:
    """A receiver's messages to its operator.

    There is never one for each line, and each comes at most once a minute.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._last_said: dict[str, float] = {}
        self._held_back: dict[str, int] = {}
        self._lock = Lock()

    def say(self, what: str, details: str = "") -> None:
        """Report `what`, or only count it within a minute of the last report."""
        with self._lock:
            now = time.monotonic()
            if now - self._last_said.get(what, -_REPEAT_S) < _REPEAT_S:
                self._held_back[what] = self._held_back.get(what, 0) + 1
                return
            more = self._held_back.pop(what, 0)
            self._last_said[what] = now
        # the messages may go to the very disk that is full
        message = what
        if details:
            message += f" ({details})"
        if more:
            message += f", and {more} times more before"
        with suppress(OSError):
            self._tell(message)


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files for so many connections.

    Raises UsageError if that is not allowed.
    """
    # one for each connection and one for its spool file, those of silent connections, and our own
    needed = 2 * connections + _OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < needed:
        raise UsageError(
            f"--max-connections {connections} needs {needed} open files, and this process may open only {hard}",
            hint="Raise its limit (LimitNOFILE= in a systemd unit), or lower --max-connections.",
        )
    if resource.RLIM_INFINITY != soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def receive(receiver: Receiver, spool: Spool, *, keep: timedelta, stopping: Event, notices: Notices) -> None:
    """Run a receiver, and look after its spool.

    The spool is flushed ten times a second; once an hour, files that ended `keep` ago are removed.
    """
    failures: list[Exception] = []

    def upkeep() -> None:
        try:
            _upkeep(spool, keep, ended, notices)
        except Exception as error:  # noqa: BLE001 - without a flush, nothing that is received is durable
            failures.append(error)
            stopping.set()

    ended = Event()
    thread = Thread(target=upkeep, name="spool upkeep")
    thread.start()
    try:
        receiver.run(stopping)
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def _upkeep(spool: Spool, keep: timedelta, ended: Event, notices: Notices) -> None:
    clean_at = time.monotonic()
    while not ended.wait(FLUSH_S):
        try:
            spool.flush()
        except OSError as error:
            notices.say("the spool cannot be made durable", str(error.strerror))
        if time.monotonic() >= clean_at:
            clean_at = time.monotonic() + _CLEAN_S
            try:
                spool.remove_old(keep)
            except OSError as error:
                notices.say("the spool cannot be cleaned", str(error.strerror))
