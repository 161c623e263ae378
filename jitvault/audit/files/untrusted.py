"""Tell the spool files of Vault from those of strangers, and bound what strangers may take of the disk.

A receiver has no ledger and no token: it cannot know whose lines it takes. The reader knows, once it has found in a
file the HMAC of a random canary that Vault was asked for: nobody without the audit device's salt can make that. The
reader then puts an empty file with the ending `.trusted` beside the sender's. Only whoever may write the spool can do
so, and that is whom the reader believes anyway.

All files without such a mark share one quota. What goes first is what nobody writes any more: files of senders that are
gone, and earlier segments, the oldest first. An open file goes only where nothing else is left.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from jitvault.errors import UsageError

MARK = ".trusted"
DEFAULT_QUOTA = 256 * 1024 * 1024
MAX_FILES = 128
"""How many files of untrusted senders that are gone are kept: the reader looks into each of them."""
NAME = re.compile(r"(?P<base>\d{8}T\d{12}Z-[0-9a-f]{6}-(?P<label>[A-Za-z0-9.-]{1,80})\.log)(\.(?P<segment>\d+))?")
# below the quota by this much after a relief, so that not every chunk asks for one
_SLACK = 8


def mark_trusted(path: Path) -> None:
    """Say that a canary was found in a sender's file. Where the spool cannot be written, the receiver never knows."""
    with suppress(OSError):
        os.close(os.open(path.with_name(path.name + MARK), os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))


def is_trusted(path: Path) -> bool:
    """Return whether a canary was found in a sender's file."""
    return path.with_name(path.name + MARK).exists()


def parse_quota(text: str) -> int:
    """Return the bytes that `64MiB` or `2GiB` names. Raises UsageError."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})(MiB|GiB)", text)
    if found is None:
        raise UsageError(f"--untrusted: expected a size such as 256MiB or 2GiB, got {text!a:.100}")
    return int(found[1]) * 1024 ** (2 if found[2] == "MiB" else 3)


def labels_trusted(directory: Path) -> frozenset[str]:
    """Return the labels of all senders that a canary vouched for, also of those that are gone."""
    found = (NAME.fullmatch(path.name.removesuffix(MARK)) for path in directory.glob(f"*{MARK}"))
    return frozenset(name["label"] for name in found if name)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    base: str
    segment: int
    size: int
    written_at: float
    removable: bool


class Untrusted:
    """What untrusted senders have on the disk of one spool, against their quota. Threads may share it.

    A quarter of the quota is for bodies that are still on their way, and another one for what those become in their
    files before there is room again. Half of it is for files.
    """

    def __init__(self, directory: Path, quota: int = DEFAULT_QUOTA) -> None:
        """Count what is there. Raises OSError."""
        self.body_bytes = quota // 4
        self.segment_bytes = quota // 8
        self._file_bytes = quota - 2 * self.body_bytes
        self._directory = directory
        self._lock = Lock()
        self._used = self._files = self._on_the_way = self._removed = 0
        self.relieve()

    @property
    def is_over(self) -> bool:
        """Whether there is more than the quota, or there are more files than somebody should look into."""
        return self._used > self._file_bytes or self._files > MAX_FILES

    def charge(self, size: int) -> None:
        """Count what an untrusted sender wrote."""
        with self._lock:
            self._used += size

    def left_behind(self) -> None:
        """Count the file of an untrusted sender that is gone now."""
        with self._lock:
            self._files += 1

    def take_in(self, size: int) -> bool:
        """Count a part of a body that is on its way, until `give_back`; False where there is no room for it."""
        with self._lock:
            if self._on_the_way + size > self.body_bytes:
                return False
            self._on_the_way += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._on_the_way -= size

    def relieve(self, *, everything: bool = False) -> int:
        """Remove what may go until there is room; return how many bytes that gave. Raises OSError.

        Looks at the directory anew: what is trusted meanwhile does not count any more.
        """
        goal = 0 if everything else self._file_bytes - self._file_bytes // _SLACK
        with self._lock:
            found = list(_untrusted(self._directory))
            used, removable = sum(file.size for file in found), [file for file in found if file.removable]
            # segments are older than what came after them, and the highest number is the oldest
            removable.sort(key=lambda file: (file.written_at, -file.segment))
            freed, files = 0, len(removable)
            enough = used <= self._file_bytes and files <= MAX_FILES and not everything
            for file in () if enough else removable:
                if used <= goal and files <= MAX_FILES - MAX_FILES // _SLACK:
                    break
                if _remove(file.path):
                    used, freed, files = used - file.size, freed + file.size, files - 1
            self._used, self._files = used, files
            self._removed += freed
            return freed

    def removed(self) -> int:
        """Return how many bytes were removed since this was asked last."""
        with self._lock:
            removed, self._removed = self._removed, 0
            return removed


def remove_stale_marks(directory: Path) -> None:
    """Remove the marks of files that are gone. Raises OSError."""
    for mark in directory.glob(f"*{MARK}"):
        if not mark.with_suffix("").exists():
            mark.unlink(missing_ok=True)


def _untrusted(directory: Path) -> Iterator[_File]:
    paths = list(directory.iterdir())
    marked = {path.stem for path in paths if path.suffix == MARK}
    for path in paths:
        found = NAME.fullmatch(path.name)
        if found is None or found["base"] in marked:
            continue
        try:
            status = path.lstat()
        except OSError:
            continue
        segment = int(found["segment"] or 0)
        removable = bool(segment) or not _is_written(path)
        yield _File(path, found["base"], segment, status.st_size, status.st_mtime, removable)


def _is_written(path: Path) -> bool:
    """Return whether a sender is still connected: whoever writes a file holds a lock on it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
