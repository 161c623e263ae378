"""One file of an audit log, open for reading.

A rotated file may be compressed.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from jitvault.audit.files.file_identity import BEGINNING, SAMPLE, Bookmark, Cursor, began
from jitvault.errors import AuditUntrusted

# Chunks of this size stay in the processor's cache while their lines are decoded; 1 MiB is slower.
CHUNK = 96 * 1024
# some hundred lines
_LAST = 256 * 1024
_GZIP = b"\x1f\x8b\x08"
# How the kernel encodes FS_IOC_GETVERSION, _IOR('v', 1, long), on most machines; elsewhere the call is refused.
_GENERATION = (2 << 30) | (struct.calcsize("l") << 16) | (ord("v") << 8) | 1
_T = TypeVar("_T")


class Rewritten(Exception):
    """The file no longer holds what was just read of it."""


class LogFile:
    """A log file that continues to read where it stopped; `with` closes it.

    Raises AuditUntrusted if the file cannot be read. `key` tells the file from every other one that is or was in
    its directory: the inode and, where the file system has one, its generation, since the inodes of deleted files
    are used again.
    """

    def __init__(self, path: Path, *, rotated: bool) -> None:
        """Open the file; only a rotated one can be compressed.

        Raises FileNotFoundError, AuditUntrusted.
        """
        self.path = path
        self.damage = ""
        self._ended = False
        self._beginning = b""
        self._began: int | None = None
        self._rest = b""
        self._buffer = bytearray()
        self._last = b""
        self._at = 0
        try:
            # without O_NONBLOCK, opening a pipe would wait for its writer
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(path, error) from None
        self._gzip: gzip.GzipFile | None = None
        try:
            status = os.fstat(self._descriptor)
            _check_kind(path, status.st_mode)
            self.inode, self.size = status.st_ino, status.st_size
            self.key = _key(self._descriptor, status.st_ino)
            if rotated and self._pread(len(_GZIP), 0) == _GZIP:
                self._gzip = gzip.GzipFile(fileobj=os.fdopen(self._descriptor, "rb", closefd=False), mode="rb")
                self._beginning = b"".join(self.pieces(BEGINNING))
                self._began = began(self._beginning, self._unpacked)
                self._back_to(0)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def compressed(self) -> bool:
        return self._gzip is not None

    def beginning(self) -> bytes:
        """Return the first bytes of the content."""
        return self._beginning if self._gzip else self._pread(BEGINNING, 0)

    @property
    def began(self) -> int | None:
        """Vault's time of the first entry, or None.

        The time is in microseconds of the epoch.
        """
        return self._began if self._gzip else began(self.beginning(), self._content)

    def find(self, mark: Bookmark) -> Cursor | None:
        """Go to the bookmark.

        The result is None if the content before the bookmark is not what was read.
        """
        if self._gzip:
            cursor = self._run(mark.offset)
        else:
            sample = min(SAMPLE, mark.offset)
            tail = self._pread(sample, mark.offset - sample)
            cursor = Cursor(mark.offset, self._pread(sample, 0), tail)
        if cursor.mark(mark.key, mark.since) != mark:
            return None
        self.seek_to(cursor)
        return cursor

    def seek_to(self, cursor: Cursor) -> None:
        """Continue to read from the cursor; what was read after it comes again."""
        if self._gzip:
            self._back_to(cursor.offset)
        else:
            self._at = cursor.offset
            self._last = cursor.tail

    def whole_lines(self, size: int = CHUNK) -> bytes:
        """Return the whole lines in about the next `size` bytes.

        A line that begins after them comes again. The result is empty if there is no whole line: at the present
        end, and where one line is longer. Raises Rewritten, as `read` does.
        """
        if self._gzip:
            data = self._rest + b"".join(self._inflated(size))
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            return data[:end]
        known = len(self._last)
        if len(self._buffer) < size + known:
            # One buffer for all reads: fresh memory each time costs more than the read.
            self._buffer = bytearray(size + SAMPLE)
        there = self._preadv(memoryview(self._buffer)[: size + known], self._at - known)
        if not self._buffer.startswith(self._last) or there < known:
            raise Rewritten
        end = self._buffer.rfind(b"\n", known, there) + 1
        data = bytes(memoryview(self._buffer)[known:end]) if end else b""
        self._pass_over(data)
        return data

    def read(self, size: int = CHUNK) -> bytes:
        """Return the next bytes; empty at the present end.

        Raises Rewritten: the bytes before are read again in the same call, so that a file that is truncated
        and grows again while it is read does not pass for one that only grew.
        """
        if self._gzip:
            data = self._rest[:size] or self._inflate(size)
            self._rest = self._rest[size:]
            return data
        data = self._pread(size + len(self._last), self._at - len(self._last))
        if not data.startswith(self._last):
            raise Rewritten
        data = data[len(self._last) :]
        self._pass_over(data)
        return data

    def _pass_over(self, data: bytes) -> None:
        self._at += len(data)
        self._last = data[-SAMPLE:] if len(data) >= SAMPLE else (self._last + data)[-SAMPLE:]

    def pieces(self, length: int) -> Iterator[bytes]:
        """Yield the next `length` bytes, or fewer if the file ends."""
        while length > 0 and (data := self.read(min(CHUNK, length))):
            length -= len(data)
            yield data

    def has_more(self) -> bool:
        """Return whether anything can be read now, or what was read is gone."""
        try:
            return bool(self.read(1))
        except Rewritten:
            return True

    def is_at(self, path: Path) -> bool:
        """Return whether the file is the one that has this name now."""
        with suppress(OSError):
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        return False

    def last_line_end(self) -> int:
        """Return the end of the last whole line; not for a compressed file."""
        end = os.fstat(self._descriptor).st_size
        while end > 0:
            begin = max(0, end - BEGINNING)
            found = self._pread(end - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
        return 0

    def cursor_at(self, offset: int) -> Cursor:
        sample = min(SAMPLE, offset)
        return Cursor(offset, self._pread(sample, 0), self._pread(sample, offset - sample))

    def _content(self) -> Iterator[bytes]:
        """Yield all of an uncompressed file, without moving the place of reading."""
        at = 0
        while data := self._pread(CHUNK, at):
            at += len(data)
            yield data

    def _unpacked(self) -> Iterator[bytes]:
        """Yield all of a compressed file.

        The caller has to go to a place again afterwards.
        """
        self._back_to(0)
        while data := self._inflate(CHUNK):
            yield data

    def _run(self, offset: int) -> Cursor:
        cursor = Cursor()
        for data in self.pieces(offset):
            cursor.pass_over(data)
        return cursor

    def _inflate(self, size: int) -> bytes:
        return b"" if self._ended else self._decompressing(lambda file: file.read1(size)) or b""

    def _inflated(self, size: int) -> Iterator[bytes]:
        while size > 0 and (data := self._inflate(size)):
            size -= len(data)
            yield data

    def _back_to(self, offset: int) -> None:
        self._ended = False
        self._rest = b""
        self._decompressing(lambda file: file.seek(offset))

    def _decompressing(self, act: Callable[[gzip.GzipFile], _T]) -> _T | None:
        """Return what `act` gives; a damaged file ends where the damage is."""
        assert self._gzip is not None  # noqa: S101 (for the type checker)
        try:
            return act(self._gzip)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            self.damage = str(error)
            self._ended = True
            return None
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _preadv(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise unreadable(self.path, error) from None


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise AuditUntrusted(f"the audit file {path} cannot be read: it is {what}")


def last_bytes(path: Path) -> bytes:
    """Return the end of an audit file as it is now.

    The result is empty if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST))
            return file.read(_LAST)
    except OSError:
        return b""


def unreadable(path: Path, error: OSError) -> AuditUntrusted:
    return AuditUntrusted(f"the audit file {path} cannot be read: {error.strerror}")


def _key(descriptor: int, inode: int) -> str:
    with suppress(OSError):
        answer = fcntl.ioctl(descriptor, _GENERATION, bytes(struct.calcsize("l")))
        return f"{inode}.{int.from_bytes(answer[:4], 'little')}"
    return str(inode)
