"""Tell Vault's spool files from those of other senders, and bound these.

A receiver has no ledger and no token: it cannot know whose lines it takes. The reader knows, once it has found in a
file the HMAC of a random canary that Vault was asked for: without the audit device's salt nobody can make that. The
reader then puts an empty file with the ending `.trusted` beside the sender's file. Only whoever may write the spool
can do so, and the reader believes those anyway.

All files without such a mark share one quota. Files that are no longer written are removed first: files of senders
that are gone, and earlier segments, the oldest first. An open file is removed only if nothing else is left.
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
# A relief frees this part of the quota in addition, so that not every chunk asks for one.
_SLACK = 8


def mark_trusted(path: Path) -> None:
    """Record that a canary was found in a sender's file.

    If the spool cannot be written, the receiver never learns it.
    """
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
    """Return the labels of all senders that a canary vouched for.

    Senders that are gone are included.
    """
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
    """How much untrusted senders have in one spool, and their quota.

    Threads may share it. A quarter of the quota is for bodies that are still being received, and another one for
    what those become in their files before there is space again. Half of the quota is for files.
    """

    def __init__(self, directory: Path, quota: int = DEFAULT_QUOTA) -> None:
        """Count the files that are there. Raises OSError."""
        self.body_bytes = quota // 4
        self.segment_bytes = quota // 8
        self._file_bytes = quota - 2 * self.body_bytes
        self._directory = directory
        self._lock = Lock()
        self._used = self._files = self._on_the_way = self._removed = 0
        self.relieve()

    @property
    def is_over(self) -> bool:
        """Whether the quota is exceeded, or there are too many files.

        The reader has to look into each file.
        """
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
        """Count a part of a body that is being received.

        The result is False if there is no space for it. It counts until `give_back`.
        """
        with self._lock:
            if self._on_the_way + size > self.body_bytes:
                return False
            self._on_the_way += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._on_the_way -= size

    def relieve(self, *, everything: bool = False) -> int:
        """Remove files until there is space; return how many bytes that freed.

        The directory is read anew: a file that was marked meanwhile does not count any more. Raises OSError.
        """
        goal = 0 if everything else self._file_bytes - self._file_bytes // _SLACK
        with self._lock:
            found = list(_untrusted(self._directory))
            used = sum(file.size for file in found)
            removable = [file for file in found if file.removable]
            # segments are older than what came after them, and the highest number is the oldest
            removable.sort(key=lambda file: (file.written_at, -file.segment))
            freed = 0
            files = len(removable)
            enough = used <= self._file_bytes and files <= MAX_FILES and not everything
            for file in () if enough else removable:
                if used <= goal and files <= MAX_FILES - MAX_FILES // _SLACK:
                    break
                if _remove(file.path):
                    used -= file.size
                    freed += file.size
                    files -= 1
            self._used = used
            self._files = files
            self._removed += freed
            return freed

    def removed(self) -> int:
        """Return how many bytes were removed since the last call."""
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
    """Return whether a sender is still connected.

    A writer holds a lock on its file.
    """
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
