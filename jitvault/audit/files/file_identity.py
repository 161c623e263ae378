"""How a file of a log is told from others.

A file is told by a bookmark in it, and by the time at which its first entry was written. With a bookmark another
process finds its place again. The inode alone says little: a truncated file keeps its inode, and a new file may get the
inode of a deleted one. So the bytes at the beginning of the file and before the place are part of a bookmark; they stay
equal after a rename, in a copy and in a compressed file. The files of one log are ordered by their first entries.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from jitvault.audit.decoding.json_tokens import Undecodable
from jitvault.audit.decoding.oversized import skim
from jitvault.formats.conversion import converter

SAMPLE = 512


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A saved place: `offset` bytes into the file that was known as `key`.

    `head` and `tail` are hashes of at most 512 bytes at the beginning of the file and before the place. At offset 0
    nothing of the file was read. Files that began before `since` are done with (Vault's time, in microseconds of
    the epoch).
    """

    key: str = ""
    offset: int = 0
    head: str = ""
    tail: str = ""
    since: int = 0

    def __str__(self) -> str:
        return f"{self.key} {self.offset} {self.head} {self.tail} {self.since}" if self != Bookmark() else ""

    @classmethod
    def parse(cls, text: str) -> Bookmark:
        """Return the bookmark that `text` holds.

        An invalid text gives a bookmark that no file matches.
        """
        if not text:
            return cls()
        try:
            key, offset, head, tail, since = text.split(" ")
            return cls(key, int(offset), head, tail, int(since))
        except ValueError:
            return cls("?", offset=1)


@dataclass(slots=True)
class Cursor:
    """How far one file was read.

    A cursor makes bookmarks without reading the file again.
    """

    offset: int = 0
    head: bytes = b""
    tail: bytes = field(default=b"", repr=False)

    def pass_over(self, data: bytes, begin: int = 0, end: int | None = None) -> None:
        """Advance over `data[begin:end]`, the bytes that follow in the file."""
        end = len(data) if end is None else end
        if len(self.head) < SAMPLE:
            self.head += data[begin : min(end, begin + SAMPLE - len(self.head))]
        if end - begin >= SAMPLE:
            self.tail = data[end - SAMPLE : end]
        else:
            self.tail = (self.tail + data[begin:end])[-SAMPLE:]
        self.offset += end - begin

    def mark(self, key: str, since: int) -> Bookmark:
        if not self.offset:
            return Bookmark(key, since=since)
        return Bookmark(key, self.offset, digest(self.head), digest(self.tail), since)


def digest(sample: bytes) -> str:
    return hashlib.sha256(sample).hexdigest()[:32]


BEGINNING = 64 * 1024
"""An entry that begins after so many bytes is not looked for: the file is no audit log."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The device's option `prefix` puts text before the entry.
_PREFIX = re.compile(rb"[^{\n]{0,64}(?=\{)")
_TIME_FIRST = re.compile(rb'\{\s*"time"\s*:\s*"([^"]{1,40})"')


class _Stamp(msgspec.Struct):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    type: str


_stamps = msgspec.json.Decoder(_Stamp)
_time = converter(datetime)


def began(beginning: bytes, content: Callable[[], Iterator[bytes]] | None = None) -> int | None:
    """Return Vault's time of the first entry, or None.

    The time is in microseconds of the epoch. `beginning` are the first bytes of a file, at most BEGINNING of them,
    and `content` gives the whole file: OpenBao writes the time first, some versions of HashiCorp Vault write the
    keys in alphabetical order, and a client can make a line as long as it likes. The file is read only as far as
    its first entry.
    """
    offset = 0
    for line in beginning.splitlines(keepends=True):
        prefix = _PREFIX.match(line)
        raw = line[prefix.end() :] if prefix else line
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return _microseconds(_stamps.decode(raw).time)
        if not raw.endswith(b"\n"):
            # the line is longer than what was read
            if found := _TIME_FIRST.match(raw):
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    return _microseconds(_time(found[1].decode()))
            if content is not None and prefix is not None:
                return _of_long_line(content(), offset)
        offset += len(line)
    return None


def _of_long_line(content: Iterator[bytes], offset: int) -> int | None:
    """Return the time in the one line that begins at `offset`, or None.

    None means that the line is no entry, or that its end is not there yet.
    """
    with suppress(Undecodable, msgspec.MsgspecError, UnicodeDecodeError):
        return _microseconds(_stamps.decode(skim(_one_line(content, offset)).reduced).time)
    return None


def _one_line(content: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """Yield the bytes from `offset` to the next newline.

    Raises Undecodable if there is none.
    """
    for piece in content:
        data = piece[offset:]
        offset = max(0, offset - len(piece))
        end = data.find(b"\n")
        if end >= 0:
            yield data[: end + 1]
            return
        if data:
            yield data
    raise Undecodable("its end is not there yet")


def _microseconds(time: datetime) -> int | None:
    return (time - _EPOCH) // timedelta(microseconds=1) if time.tzinfo else None
