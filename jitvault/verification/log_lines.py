"""Read the lines of audit files, plain or compressed, in bounded memory.

A line is identified by the SHA-256 of its bytes, line feed included.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from jitvault.audit.decoding.json_tokens import Undecodable, prefix_length
from jitvault.audit.decoding.oversized import skim
from jitvault.audit.entry import Entry
from jitvault.errors import InvalidInput, UsageError

# a longer line is not held in memory as a whole
WHOLE_LINE = 4 * 1024 * 1024
_PIECE = 256 * 1024
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


class _Readable(Protocol):
    """What an open file gives, compressed or not."""

    def readline(self, size: int, /) -> bytes: ...


_Opener = Callable[[BinaryIO], _Readable]
_COMPRESSIONS: tuple[tuple[bytes, _Opener], ...] = (
    (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_NAME_FILES = "Name the audit files, or a directory with them."
_entry = msgspec.json.Decoder(Entry).decode


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an audit file.

    `entry` is None for a line that is no audit entry. `sha256` is that of the whole line, whatever its length.
    """

    file: str
    offset: int
    sha256: str
    entry: Entry | None


def files_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files that are named, and for a directory all files below it.

    Raises UsageError for a path that is not there, and for a directory without a file.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} cannot be read: there is no such file", hint=_NAME_FILES)
        inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"there is no file in {path}", hint=_NAME_FILES)
        # a pipe has no other name than the one that was typed
        found |= dict.fromkeys(one.resolve() if one.is_file() else one for one in inside)
    return list(found)


def lines_of(path: Path) -> Iterator[LogLine]:
    """Yield the lines of one file.

    Raises UsageError for a file that cannot be read, and InvalidInput for one that cannot be decompressed to its end.
    """
    try:
        with path.open("rb") as raw:
            yield from _lines(path, _content(path, raw))
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidInput(
            f"{path} cannot be decompressed to its end: {error}", hint="Copy the file again, as a whole."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _content(path: Path, raw: BufferedReader) -> _Readable:
    """Return what the file holds, decompressed.

    Raises InvalidInput for a compression that is not known.
    """
    # a pipe cannot be read twice
    begin = raw.peek(8)
    if begin.startswith(_ZSTANDARD):
        raise InvalidInput(f"{path} is compressed by zstd, which this command cannot read", hint="`unzstd` it first.")
    opener = next((opener for magic, opener in _COMPRESSIONS if begin.startswith(magic)), None)
    return opener(raw) if opener else raw


def _lines(path: Path, content: _Readable) -> Iterator[LogLine]:
    offset = 0
    while line := content.readline(WHOLE_LINE):
        if len(line) == WHOLE_LINE and not line.endswith(b"\n"):
            pieces = _Pieces(content, line)
            yield _long_line(path, offset, pieces)
            offset += pieces.length
            continue
        # the last line of a copy may have lost its line feed, which Vault wrote
        whole = line if line.endswith(b"\n") else line + b"\n"
        yield LogLine(str(path), offset, hashlib.sha256(whole).hexdigest(), _decoded(whole))
        offset += len(line)


def _decoded(line: bytes) -> Entry | None:
    try:
        return _entry(line[prefix_length(line) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Undecodable):
        # the error may be in a part that is not needed: a client can send numbers of any size, and any depth
        return _skimmed(iter([line]))


def _skimmed(pieces: Iterator[bytes]) -> Entry | None:
    try:
        return _entry(skim(pieces).reduced)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Undecodable):
        return None


class _Pieces:
    """The pieces of one long line, line feed included, and their hash."""

    def __init__(self, content: _Readable, first: bytes) -> None:
        self._content = content
        self._next = first
        self._hash = hashlib.sha256()
        self.length = 0

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._next:
            self._hash.update(piece)
            self.length += len(piece)
            self._next = b"" if piece.endswith(b"\n") else self._content.readline(_PIECE)
            yield piece

    def sha256(self) -> str:
        """Return the hash of the whole line, of which the rest is read first."""
        for _ in self:
            pass
        return self._hash.hexdigest()


def _long_line(path: Path, offset: int, pieces: _Pieces) -> LogLine:
    entry = _skimmed(iter(pieces))
    return LogLine(str(path), offset, pieces.sha256(), entry)
