"""A directory in memory for a task's secrets, which nobody else can read.

It is on a tmpfs, `$XDG_RUNTIME_DIR` or `/dev/shm`, so nothing is written to a disk. Its holder keeps a lock on the
directory itself, which no program can replace by something else. What a killed process left is removed at the next
start: a directory that nobody holds is swept.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from jitvault.agent.execution.removal import WHOLE_S, empty, remove_tree
from jitvault.errors import UsageError
from jitvault.held_directory import held

_PREFIX = "jitvault-exec-"
_FREE_SPACE = "Free space there, or set XDG_RUNTIME_DIR to another tmpfs. Nothing was started."
_MEMORY = "/dev/shm"  # noqa: S108 (a directory of our own is made in it, with mode 0700)


class SecretFiles:
    """The files of one run, below a directory with mode 0700.

    `remove` deletes all of it, and is called once more by whoever outlives the holder.
    """

    def __init__(self, directory: Path, opened: int) -> None:
        self.directory = directory
        self._opened = opened
        self._is_removed = False

    def write(self, name: str, content: bytes) -> Path:
        """Write a file with mode 0600, which must not exist yet; return its path.

        Raises UsageError where the memory is full.
        """
        path = self.directory / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint=_FREE_SPACE) from None
        return path

    def remove(self, within_s: float = WHOLE_S) -> None:
        """Remove the directory with everything in it.

        What `within_s` seconds are not enough for stays. The program may have moved the directory, so its content is
        removed by its descriptor. Raises nothing.
        """
        if self._is_removed:
            return
        empty(self._opened, within_s)
        self._is_removed = remove_tree(self.directory, within_s)
        if self._is_removed:
            os.close(self._opened)


def secret_files(environment: Mapping[str, str]) -> SecretFiles:
    """Return a new directory, after what nobody holds any more was removed.

    Raises UsageError where there is no memory file system, and where it is full.
    """
    place = next(filter(_is_in_memory, _places(environment)), None)
    if place is None:
        raise UsageError(
            f"there is no file system in memory to write secrets to: neither XDG_RUNTIME_DIR nor {_MEMORY} is a tmpfs",
            hint="Give the program its secrets by --env, or mount a tmpfs and set XDG_RUNTIME_DIR to it.",
        )
    sweep(place)
    try:
        while True:
            directory = Path(mkdtemp(prefix=_PREFIX, dir=place))
            opened = held(directory, fcntl.LOCK_EX)
            if opened is not None:
                return SecretFiles(directory, opened)
            # swept by another process before it was locked
    except OSError as error:
        raise UsageError(
            f"no directory for secrets can be made in {place}: {error.strerror}", hint=_FREE_SPACE
        ) from None


def sweep(place: Path) -> None:
    """Remove this user's directories that nobody holds. Raises nothing."""
    with suppress(OSError):
        for directory in place.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                found = directory.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    continue
                # its program may have taken away the right to open it
                directory.chmod(0o700)
                opened = held(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if opened is not None:
                    remove_tree(directory, WHOLE_S)
                    os.close(opened)


def _places(environment: Mapping[str, str]) -> Iterator[Path]:
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime)
    yield Path(_MEMORY)


def _is_in_memory(place: Path) -> bool:
    """Return whether a directory is in memory and can be written."""
    if not os.access(place, os.W_OK | os.X_OK) or not stat.S_ISDIR(place.stat().st_mode):
        return False
    if sys.platform != "linux":
        return False
    return _type_of(place.resolve()) in ("tmpfs", "ramfs")


def _type_of(place: Path) -> str:
    """Return the type of the file system that holds a path."""
    found, longest = "", -1
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            point = before.split()[4].encode().decode("unicode_escape")
            if place.is_relative_to(point) and len(point) >= longest:
                found, longest = after.split()[0], len(point)
    return found
