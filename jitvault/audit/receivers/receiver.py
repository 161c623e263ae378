"""What receivers have in common: running, stopping, and notices.

Each way in which Vault can push its audit lines is one file with one `Receiver`: `receive_socket`, `receive_http`,
`receive_stream`. All of them write into a spool, and the readers of the spool do not know which one wrote it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Event, Lock, Thread
from typing import Protocol

from jitvault.audit.files.spool import Spool

POLL_S = 0.25
DRAIN_S = 3.0
FLUSH_S = 0.1
_CLEAN_S = 3600.0
_REPEAT_S = 60.0
MOST_CONNECTIONS = 128
"""How many connections a receiver serves at once; with their spool files, fewer than any system allows to open."""

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


@dataclass(slots=True)
class _Told:
    """What was told of one kind.

    It is when that was, how many more there were since, and the last one's details.
    """

    at: float
    more: int
    details: str


class Notices:
    """A receiver's messages to its operator.

    The first of a kind is told at once, and how many more there were a minute later or at the end: there is never a
    message for each line.
    """

    def __init__(self, tell: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._now = now
        self._told: dict[str, _Told] = {}
        self._lock = Lock()

    def say(self, what: str, details: str = "", *, times: int = 1) -> None:
        """Tell `what`, or only count it until `tell_counts` does."""
        with self._lock:
            told = self._told.get(what)
            if told is not None:
                told.more += times
                told.details = details
                return
            self._told[what] = _Told(self._now(), times - 1, details)
        self._write(what, details)

    def tell_counts(self, *, at_end: bool = False) -> None:
        """Tell what was only counted for a minute, or all of it at the end."""
        due: list[tuple[str, _Told]] = []
        with self._lock:
            now = self._now()
            for what, told in list(self._told.items()):
                if not at_end and now - told.at < _REPEAT_S:
                    continue
                del self._told[what]
                if told.more:
                    due.append((what, told))
                    self._told[what] = _Told(now, 0, "")
        for what, told in due:
            self._write(what, f"{told.more} more; {told.details}" if told.details else f"{told.more} more")

    def _write(self, what: str, details: str) -> None:
        # the messages may go to the very disk that is full
        with suppress(OSError):
            self._tell(f"{what} ({details})" if details else what)


def receive(receiver: Receiver, spool: Spool, *, keep: timedelta, stopping: Event, notices: Notices) -> None:
    """Run a receiver, and look after its spool.

    The spool is flushed ten times a second; once an hour, files that ended `keep` ago are removed. Notices that were
    only counted are told when they are due, and at the end.
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
        notices.tell_counts(at_end=True)
    if failures:
        raise failures[0]


def _upkeep(spool: Spool, keep: timedelta, ended: Event, notices: Notices) -> None:
    clean_at = time.monotonic()
    while not ended.wait(FLUSH_S):
        try:
            spool.flush()
        except OSError as error:
            notices.say("the spool cannot be made durable", str(error.strerror))
        notices.tell_counts()
        if time.monotonic() >= clean_at:
            clean_at = time.monotonic() + _CLEAN_S
            try:
                spool.remove_old(keep)
            except OSError as error:
                notices.say("the spool cannot be cleaned", str(error.strerror))
