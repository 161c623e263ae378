"""Remove a directory that a hostile program could write to.

The program may have nested directories deeper than a path or a recursion reaches, taken away the rights on them, or put
a link in the place of one. So what is nested is moved to the top, one level at a time, by descriptors that follow no
link.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

AT_ONCE_S, WHOLE_S = 0.1, 10.0
"""How long files are removed before the access is given back, and after that.

A program can leave more of them than can be removed at once, and its access does not wait for them.
"""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(directory: Path, within_s: float) -> bool:
    """Remove a directory with everything in it.

    What `within_s` seconds are not enough for stays. Return whether the directory is gone. Raises nothing.
    """
    with suppress(OSError):
        # without reading rights it could not be opened; a link is not followed: it has no rights of its own
        if stat.S_ISDIR(directory.lstat().st_mode):
            directory.chmod(0o700)
        opened = os.open(directory, _OPEN)
        try:
            empty(opened, within_s)
        finally:
            os.close(opened)
        directory.rmdir()
    return not os.path.lexists(directory)


def empty(opened: int, within_s: float) -> None:
    """Remove what is in an opened directory, wherever that was moved to.

    Raises nothing.
    """
    deadline = time.monotonic() + within_s
    numbers = count()
    with suppress(OSError):
        os.fchmod(opened, 0o700)
        while names := os.listdir(opened):
            removed = 0
            for name in names:
                if time.monotonic() >= deadline:
                    return
                with suppress(OSError):
                    _remove(opened, name, numbers)
                    removed += 1
            if not removed:
                return


def _remove(parent: int, name: str, numbers: count[int]) -> None:
    """Remove a file, or a directory, whose own ones move up to `parent`.

    Raises OSError.
    """
    if not _is_directory(parent, name):
        os.unlink(name, dir_fd=parent)
        return
    os.chmod(name, 0o700, dir_fd=parent)
    inner = os.open(name, _OPEN, dir_fd=parent)
    try:
        for each in os.listdir(inner):  # noqa: PTH208 (a path could be changed by the program meanwhile)
            if _is_directory(inner, each):
                # a directory without rights can be moved by nobody
                os.chmod(each, 0o700, dir_fd=inner)
                os.rename(each, f".moved-{next(numbers)}", src_dir_fd=inner, dst_dir_fd=parent)
            else:
                os.unlink(each, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=parent)


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)
