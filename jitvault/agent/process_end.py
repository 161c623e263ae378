"""See that another process has ended, whoever has a copy of a pipe to it.

A library may make a process without Python, and that copy has every descriptor. The end of a pipe then comes with the
end of the last copy. A pidfd is about one process alone.
"""

from __future__ import annotations

import os
import sys


def opened_end(pid: int) -> int | None:
    """Return a descriptor that can be read once the process has ended.

    `pid` is this process, or one that has to be looked at once more afterwards: its number may be another's by now. The
    result is None where the system has no such descriptors, or refuses one.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
