"""One file of an audit log, open for reading: as Vault writes it, or compressed after it was rotated."""

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

from jitvault.audit.files.bookmark import SAMPLE, Bookmark, Cursor
from jitvault.audit.files.first_entry import BEGINNING, began
from jitvault.errors import AuditUntrusted

# chunks of this size stay in the processor's cache while their lines are decoded; 1 MiB is slower
CHUNK = 96 * 1024
# some hundred lines
_LAST = 256 * 1024
_GZIP = b"\x1f\x8b\x08"
# how the kernel encodes FS_IOC_GETVERSION, _IOR('v', 1, long), on most machines; elsewhere it is refused
_GENERATION = (2 << 30) | (struct.calcsize("l") << 16) | (ord("v") << 8) | 1
_T = TypeVar("_T")


class Rewritten(Exception):
    """The file does not hold any more what was just read of it."""


class LogFile:
    """Reads on from where it was left; `with` closes it. Raises AuditUntrusted where it cannot be read.

    `key` tells the file from every other one that is or was in its directory: the inode and, where the file system
    has one, its generation, since the inodes of deleted files are used again.
    """

    def __init__(self, path: Path, *, rotated: bool) -> None:
        """Raises FileNotFoundError, AuditUntrusted. Only rotated files can be compressed."""
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
            # without O_NONBLOCK a pipe would have us wait for its writer
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
        """The first bytes of the content."""
        return self._beginning if self._gzip else self._pread(BEGINNING, 0)

    @property
    def began(self) -> int | None:
        """Vault's time of its first entry, in microseconds of the epoch; None where there is none."""
        return self._began if self._gzip else began(self.beginning(), self._content)

    def find(self, mark: Bookmark) -> Cursor | None:
        """Stand at the mark; None where the content before it is not what was read."""
        if self._gzip:
            cursor = self._run(mark.offset)
        else:
            sample = min(SAMPLE, mark.offset)
            tail = self._pread(sample, mark.offset - sample)
            cursor = Cursor(mark.offset, self._pread(sample, 0), tail)
        if cursor.mark(mark.key, mark.since) != mark:
            return None
        self.stand_at(cursor)
        return cursor

    def stand_at(self, cursor: Cursor) -> None:
        """Read on from there; what was read after it comes again."""
        if self._gzip:
            self._back_to(cursor.offset)
        else:
            self._at, self._last = cursor.offset, cursor.tail

    def whole_lines(self, size: int = CHUNK) -> bytes:
        """The whole lines in about the next `size` bytes; what begins after them comes again.

        Empty where there is none: at the present end, and where one line is longer. Raises Rewritten, as `read`.
        """
        if self._gzip:
            data = self._rest + b"".join(self._inflated(size))
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            return data[:end]
        known = len(self._last)
        if len(self._buffer) < size + known:
            # one buffer for all: memory that is new each time costs more than to read it
            self._buffer = bytearray(size + SAMPLE)
        there = self._preadv(memoryview(self._buffer)[: size + known], self._at - known)
        if not self._buffer.startswith(self._last) or there < known:
            raise Rewritten
        end = self._buffer.rfind(b"\n", known, there) + 1
        data = bytes(memoryview(self._buffer)[known:end]) if end else b""
        self._pass_over(data)
        return data

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes, empty at the present end.

        Raises Rewritten: the bytes before are read once more in the same call, so that a file that is truncated
        and grows again while it is read does not pass for one that only grew.
        """
        if self._gzip:
            data, self._rest = self._rest[:size] or self._inflate(size), self._rest[size:]
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
        """The next `length` bytes, or less where the file ends."""
        while length > 0 and (data := self.read(min(CHUNK, length))):
            length -= len(data)
            yield data

    def has_more(self) -> bool:
        """Whether anything can be read now, and what was read is still there."""
        try:
            return bool(self.read(1))
        except Rewritten:
            return True

    def is_at(self, path: Path) -> bool:
        """Whether the file is the one that has this name now."""
        with suppress(OSError):
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        return False

    def last_line_end(self) -> int:
        """The end of the last whole line that is there now. Not of a compressed file."""
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
        """All of a file that is not compressed, wherever it is read."""
        at = 0
        while data := self._pread(CHUNK, at):
            at += len(data)
            yield data

    def _unpacked(self) -> Iterator[bytes]:
        """All of a compressed file; it has to be stood at anew afterwards."""
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
        self._ended, self._rest = False, b""
        self._decompressing(lambda file: file.seek(offset))

    def _decompressing(self, act: Callable[[gzip.GzipFile], _T]) -> _T | None:
        """What `act` gives; a damaged file ends where the damage is."""
        assert self._gzip is not None  # noqa: S101 (for the type checker)
        try:
            return act(self._gzip)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            self.damage, self._ended = str(error), True
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
        kind = "Is a directory" if stat.S_ISDIR(mode) else "It is not a regular file"
        raise AuditUntrusted(f"the audit file {path} cannot be read: {kind}")


def last_bytes(path: Path) -> bytes:
    """The end of an audit file as it is now; nothing where there is none to be read."""
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
