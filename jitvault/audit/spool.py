"""The spool: what push-type audit devices send becomes files, which the file reader follows as it follows Vault's own.

    <utc time>-<random>-<sender>.log      what one sender sent, byte for byte; its writer holds a lock on it
    <the same>.log.1, .2, …               its earlier segments, the highest number the oldest

Bytes of two senders are never in one file: whose lines count is decided by whoever reads them.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import IO, cast

from jitvault.audit.file import FileSource
from jitvault.audit.receivers.line_writer import LineWriter
from jitvault.errors import AuditUntrusted, UsageError
from jitvault.ports.audit import Position, Source

MAX_SOURCE_NAME = 255  # jitvault.ports.audit.Source
_ROOM = 1024 * 1024
_NAME = re.compile(r"(?P<base>\d{8}T\d{12}Z-[0-9a-f]{6}-[A-Za-z0-9.-]{1,80}\.log)(\.(?P<segment>\d+))?")


class Spool:
    """A directory of such files. Several receivers may fill one, and any process may read it."""

    def __init__(self, directory: Path) -> None:
        """Make the directory, for its owner alone. Raises UsageError where it cannot be written, or others may."""
        self.directory = directory
        self._writers: set[LineWriter] = set()
        self._lock = Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = directory.stat().st_mode
            self._try(1)
        except OSError as error:
            raise UsageError(
                f"the spool {directory} cannot be written: {error.strerror}",
                hint="--into names a directory, which is made if it is not there.",
            ) from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"others may write into the spool {directory}: what they put there would count as Vault's",
                hint=f"chmod 700 {directory}",
            )

    def writer(self, label: str) -> LineWriter:
        """A new file for the sender that `label` describes. Raises OSError."""
        described = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")[:80]
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(3)}-{described}.log"
        writer = LineWriter(self.directory / name)
        with self._lock:
            self._writers.add(writer)
        return writer

    def release(self, writer: LineWriter) -> None:
        """Close the file of a sender that is gone. Raises OSError where its end may not be on the disk."""
        with self._lock:
            self._writers.discard(writer)
        writer.close()

    def flush(self) -> None:
        """Make durable what all senders sent. Raises the last OSError, after all were tried."""
        with self._lock:
            pending = [writer for writer in self._writers if writer.pending]
        failed: OSError | None = None
        for writer in pending:
            try:
                writer.flush()
            except OSError as error:
                failed = error
        if failed:
            raise failed

    def temporary(self, *, in_memory: int) -> IO[bytes]:
        """A file without a name, which goes to the spool's disk when it is longer than `in_memory` bytes."""
        return cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=in_memory, dir=str(self.directory)))

    def has_room(self) -> bool:
        """Whether the disk takes anything at present."""
        try:
            self._try(_ROOM)
        except OSError:
            return False
        return True

    def _try(self, length: int) -> None:
        with tempfile.TemporaryFile(dir=self.directory) as file:
            file.write(bytes(length))
            file.flush()
            os.fsync(file.fileno())

    def remove_old(self, keep: timedelta) -> int:
        """Remove what ended, and was not written, `keep` ago or longer; gives how many files that were."""
        # the oldest first: a sender's file never goes before its segments
        found = sorted(self.directory.iterdir(), key=_segment_number, reverse=True)
        # with a dot before it where its writer was killed while it began it
        ours = (path for path in found if _NAME.fullmatch(path.name.removeprefix(".")))
        return sum(_remove_if_ended(path, keep) for path in ours)


class SpoolSources:
    """`jitvault.ports.audit.Sources` on a spool: one source for each sender's file with its segments."""

    def __init__(self, directory: Path, *, name: str, namespace: str = "") -> None:
        self._directory = directory
        self._name = name
        self._namespace = namespace

    def present(self) -> Sequence[Source]:
        """The senders' files, in the order in which they were begun. Raises AuditUntrusted."""
        try:
            with os.scandir(self._directory) as entries:
                found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError as error:
            raise AuditUntrusted(f"the spool {self._directory} cannot be read: {error.strerror}") from None
        return [self._source(name) for name in sorted(found) if _is_sender(name)]

    def _source(self, name: str) -> Source:
        # of a name that is too long its end is kept: it is what tells two senders apart
        called = f"{self._name}/{name}"[-MAX_SOURCE_NAME:]
        return _Sender(self._directory / name, name=called, namespace=self._namespace)


class _Sender(FileSource):
    """One sender's file. It counts from its first byte, also where nobody looked before it was rotated."""

    def start(self) -> Position:
        return self.beginning()


def _is_sender(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and found["segment"] is None


def _segment_number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found["segment"] or 0) if found else -1


def _remove_if_ended(path: Path, keep: timedelta) -> bool:
    """Remove a file that nobody writes and that is old enough. Files that are gone or not ours stay out of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime < keep.total_seconds():
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
