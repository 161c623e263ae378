"""The place in a file where a reader stopped, in a form that finds it again in another process.

The inode alone says little: a truncated file keeps it, and a new file may get the one of a deleted file. So the
bytes at the beginning of the file and before the place are part of it; they are the same after a rename, in a copy
and in what was compressed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

SAMPLE = 512


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A saved place: `offset` bytes into the file that was known as `key`.

    `head` and `tail` are hashes of at most 512 bytes at the beginning of the file and before the place. At offset 0
    nothing of the file was read. Files that began before `since` are done with (Vault's time, in microseconds of the
    epoch).
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
        """The mark that `text` is; one that no file matches where it is none."""
        if not text:
            return cls()
        try:
            key, offset, head, tail, since = text.split(" ")
            return cls(key, int(offset), head, tail, int(since))
        except ValueError:
            return cls("?", offset=1)


@dataclass(slots=True)
class Cursor:
    """How far one file was read; it makes marks without looking into the file again."""

    offset: int = 0
    head: bytes = b""
    tail: bytes = field(default=b"", repr=False)

    def pass_over(self, data: bytes, begin: int = 0, end: int | None = None) -> None:
        """Go on over `data[begin:end]`, the bytes that follow in the file."""
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
