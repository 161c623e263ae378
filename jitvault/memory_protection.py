"""Keep a process's memory, with the tokens in it, from everyone but root."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Prevent core dumps, and reads of the memory by other processes.

    The limit prevents dump files. A system that hands dumps to a program ignores the limit and looks at the dumpable
    flag, where there is one.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
