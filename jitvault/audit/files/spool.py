"""The spool: what push-type audit devices send becomes files.

The file reader follows these files as it follows Vault's own.

    <utc time>-<random>-<sender>.log      what one sender sent, byte for byte; its writer holds a lock on it
    <that name>.log.1, .2, …              its earlier segments, the highest number the oldest
    receiver.lock                         empty; the receiver that fills the spool holds a lock on it

Receivers take lines only from those who may send. Bytes of two senders are never in one file all the same: of two
servers that may both send, only the lines of the one that shows a canary count, and the reader finds out which.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import IO, cast

from jitvault.audit.files.file_identity import Bookmark
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.source import Position, Source
from jitvault.errors import AuditUntrusted, UsageError

MAX_SOURCE_NAME = 255  # jitvault.audit.source.Source
_ROOM = 1024 * 1024
_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{6}-[A-Za-z0-9.-]{1,80}\.log(\.(?P<segment>\d+))?")
# How many bytes after a position are searched for the end of a line.
_WHOLE_LINE = 64 * 1024


class Spool:
    """A directory of spool files.

    One receiver fills it, and any process may read it.
    """

    def __init__(self, directory: Path) -> None:
        """Make the directory, for its owner alone.

        Raises UsageError if the directory cannot be written, or if others may write it.
        """
        self.directory = directory
        self._writers: set[LineWriter] = set()
        self._lock = Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = directory.stat()
            self._try(1)
        except OSError as error:
            raise UsageError(
                f"the spool {directory} cannot be written: {error.strerror}",
                hint="--into names a directory. It is created if it does not exist.",
            ) from None
        if status.st_uid != os.geteuid():
            raise UsageError(
                f"the spool {directory} belongs to another user: what they put there would count as Vault's",
                hint="Run the receiver as the user whom the spool belongs to, which is the worker's.",
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"others may write into the spool {directory}: what they put there would count as Vault's",
                hint=f"chmod 700 {directory}",
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other receiver fill the spool meanwhile.

        Raises UsageError if another one does.

        The lock ends with the process, however that ends. It is not on the directory, which others may be able to open.
        """
        path = self.directory / "receiver.lock"
        try:
            descriptor = _lock(path)
        except BlockingIOError:
            raise UsageError(
                f"another receiver already fills {self.directory}",
                hint="Name another directory. JITVAULT_AUDIT_FILE takes several, separated by `:`.",
            ) from None
        except OSError as error:
            raise UsageError(
                f"{path} cannot be locked: {error.strerror}",
                hint="A spool needs a disk with room, and a file system that has locks.",
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def writer(self, label: str) -> LineWriter:
        """Return a new file for the sender that `label` describes.

        Raises OSError.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(3)}-{_for_name(label)}.log"
        writer = LineWriter(self.directory / name)
        with self._lock:
            self._writers.add(writer)
        return writer

    def release(self, writer: LineWriter) -> None:
        """Close the file of a sender that is gone.

        Raises OSError if its end may not be on the disk.
        """
        with self._lock:
            self._writers.discard(writer)
        writer.close()

    def flush(self) -> None:
        """Sync everything to the disk.

        Raises the last OSError, after all files were tried.
        """
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
        """Return a file without a name.

        Beyond `in_memory` bytes it goes to the spool's disk.
        """
        return cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=in_memory, dir=str(self.directory)))

    def has_room(self) -> bool:
        """Return whether the disk accepts anything at present."""
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
        """Remove files that ended `keep` ago or earlier; return how many.

        A file is removed only if it was not written since then, either.
        """
        # the oldest first: a sender's file never goes before its segments
        found = sorted(self.directory.iterdir(), key=_segment_number, reverse=True)
        # the name begins with a dot if the writer was killed while it began the file
        ours = (path for path in found if _NAME.fullmatch(path.name.removeprefix(".")))
        return sum(_remove_if_ended(path, keep) for path in ours)


class SpoolSources:
    """A spool as sources: one for each sender's file with its segments.

    Implements `jitvault.audit.source.Sources`.
    """

    def __init__(self, directory: Path, *, name: str, namespace: str = "") -> None:
        self._directory = directory
        self._name = name
        self._namespace = namespace

    def present(self) -> Sequence[Source]:
        """Return the senders' files, the oldest first. Raises AuditUntrusted."""
        try:
            with os.scandir(self._directory) as entries:
                found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError as error:
            raise AuditUntrusted(f"the spool {self._directory} cannot be read: {error.strerror}") from None
        return [self._source(name) for name in sorted(found) if _is_sender(name)]

    def _source(self, name: str) -> Source:
        # the end of a long name is kept: it tells two senders apart
        source_name = f"{self._name}/{name}"[-MAX_SOURCE_NAME:]
        return _Sender(self._directory / name, name=source_name, namespace=self._namespace)


class _Sender(FileSource):
    """One sender's file, which counts from its first byte.

    It does so even if nobody read it before it was rotated.
    """

    passing = True

    def __init__(self, path: Path, *, name: str, namespace: str = "") -> None:
        super().__init__(path, name=name, namespace=namespace)
        self._path = path

    def start(self) -> Position:
        return self.beginning()

    def end(self) -> Position:
        return super().end() if self.has_more(self.beginning()) else self.beginning()

    def has_more(self, position: Position) -> bool:
        """Return whether an unread line follows.

        One read of the file tells that in most cases. Otherwise the directory is listed, which would be slow for each
        of the many files that connections leave.
        """
        mark = Bookmark.parse(position.identity)
        try:
            with self._path.open("rb") as file:
                if mark.offset and mark.key.partition(".")[0] != str(os.fstat(file.fileno()).st_ino):
                    return super().has_more(position)
                file.seek(mark.offset)
                following = file.read(_WHOLE_LINE)
        except OSError:
            return super().has_more(position)
        if b"\n" in following or len(following) == _WHOLE_LINE:
            return True
        return not mark.offset and self._path.with_name(f"{self._path.name}.1").exists()


def _lock(path: Path) -> int:
    """Create a file for its owner alone unless it is there, and lock it.

    Raises OSError; it is BlockingIOError if another process has the lock.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _for_name(label: str) -> str:
    """Return a label in the form for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")[:80]


def _is_sender(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and found["segment"] is None


def _segment_number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found["segment"] or 0) if found else -1


def _remove_if_ended(path: Path, keep: timedelta) -> bool:
    """Remove a file that is not being written and is old enough.

    Files that are gone or not ours are left alone.
    """
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
