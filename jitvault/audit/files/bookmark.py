"""Bookmarks: where a reader stopped in a file.

With a bookmark another process finds the place again. The inode alone says little: a truncated file keeps its
inode, and a new file may get the inode of a deleted one. So the bytes at the beginning of the file and before the
place are part of a bookmark; they stay equal after a rename, in a copy and in a compressed file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

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
