"""One sender's file in the spool, and how it is cut into segments."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Condition, Lock
from typing import IO

SEGMENT_BYTES = 256 * 1024 * 1024
_CHUNK = 256 * 1024


class LineWriter:
    """Append what one sender sent to one file of the spool.

    Several threads may share a writer. A writer holds a lock (flock) on the file, which ends with the process
    however that ends. So every process can tell a sender that is merely silent from one that is gone.
    """

    def __init__(self, path: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Begin the file. Raises OSError."""
        self.path = path
        self._segment_bytes = segment_bytes
        self._descriptor = _create(path)
        self._size = 0
        self._at_line_start = True
        self._written = self._durable = 0  # over all segments
        self._broken: OSError | None = None
        self._appending = Lock()
        self._synced = Condition()
        self._syncing = False

    def write(self, data: bytes) -> int:
        """Append the beginning of `data`, as os.write does, and return its length.

        Not all is written if the segment, or the space on the disk, ends within `data`. Raises OSError if nothing
        is written.
        """
        with self._appending:
            self._check()
            if not self._make_room():
                data = data[: data.find(b"\n") + 1] or data
            done = os.write(self._descriptor, data)
            self._count(done, data[done - 1 : done])
            return done

    def append(self, body: IO[bytes]) -> None:
        """Append all of `body`, and a line feed if it ends without one.

        Raises OSError; then nothing of `body` is in the file. What other threads append meanwhile is before or
        after it.
        """
        with self._appending:
            self._check()
            self._make_room()
            size = 0
            try:
                for chunk in _lines(body):
                    view = memoryview(chunk)
                    while view:
                        done = os.write(self._descriptor, view)
                        view = view[done:]
                        size += done
            except BaseException:
                self._undo_append()
                raise
            self._count(size, b"\n")

    def flush(self) -> None:
        """Return when everything that was written before is on the disk.

        Raises OSError.

        One of the waiting threads syncs for all threads that came before it began.
        """
        target = self._written
        with self._synced:
            self._synced.wait_for(lambda: not self._syncing or self._durable >= target)
            if self._durable >= target:
                return
            self._check()
            self._syncing = True
            upto = self._written
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            # the kernel reports it once and forgets the pages: a second fsync would succeed and prove nothing
            self._broken = error
            raise
        else:
            self._durable = upto
        finally:
            with self._synced:
                self._syncing = False
                self._synced.notify_all()

    def close(self) -> None:
        """Flush, and end the sender's file.

        Raises OSError; even then nothing stays open.
        """
        with self._appending:
            try:
                self.flush()
            finally:
                os.close(self._descriptor)
                self._broken = self._broken or OSError(errno.EBADF, os.strerror(errno.EBADF))

    @property
    def broken(self) -> bool:
        """Whether the file accepts nothing any more, whatever becomes of the disk."""
        return self._broken is not None

    @property
    def pending(self) -> bool:
        """Whether something was written that is not known to be on the disk."""
        return self._durable < self._written

    def _count(self, done: int, last: bytes) -> None:
        self._size += done
        self._written += done
        self._at_line_start = last == b"\n"

    def _undo_append(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            # whatever came next would be glued to half of what could not be written
            self._broken = error

    def _check(self) -> None:
        if self._broken:
            raise OSError(self._broken.errno, self._broken.strerror)

    def _make_room(self) -> bool:
        """Begin a new segment if the present one is full.

        The result is False in the middle of a line, where that is not possible.
        """
        if self._size < self._segment_bytes:
            return True
        if not self._at_line_start:
            return False
        # If that fails, this segment goes on: the disk is full then, and the append will raise that.
        with suppress(OSError):
            self.flush()
            self._rotate()
        return True

    def _rotate(self) -> None:
        """Make the file, all of it on the disk, segment 1 and begin a new file.

        There is a file under its name at every moment.
        """
        fresh = self.path.with_name(f".{self.path.name}")
        descriptor = _create(fresh)
        try:
            _shift(self.path, 1)
            os.link(self.path, _segment(self.path, 1))
            fresh.rename(self.path)
        except OSError:
            os.close(descriptor)
            fresh.unlink()
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._size = 0
        _sync_directory(self.path.parent)


def _segment(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _shift(path: Path, number: int) -> None:
    """Free the name of a segment.

    Each segment from it on gets the next higher number.
    """
    if _segment(path, number).exists():
        _shift(path, number + 1)
        _segment(path, number).rename(_segment(path, number + 1))


def _lines(body: IO[bytes]) -> Iterator[bytes]:
    """Yield a body in chunks, ended by a line feed."""
    body.seek(0)
    last = b""
    while chunk := body.read(_CHUNK):
        yield chunk
        last = chunk[-1:]
    if last != b"\n":
        yield b"\n"


def _create(path: Path) -> int:
    """Create a file for its owner alone, locked by us. Raises OSError.

    Its name survives a power failure.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sync_directory(path.parent)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
