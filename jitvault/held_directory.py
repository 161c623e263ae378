"""Directories that a process holds until it ends.

What a killed process left is held by nobody, so it can be found and removed.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def held(directory: Path, how: int) -> int | None:
    """Return a descriptor of a directory that is locked by it.

    The result is None where it was removed before, or where another process has the lock and `how` does not wait.
    """
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(opened, how)
        if os.fstat(opened).st_nlink:
            return opened
    except BlockingIOError:
        pass
    os.close(opened)
    return None
