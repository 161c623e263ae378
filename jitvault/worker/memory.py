"""Keep what the worker has in memory, its token among it, from everybody but root."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Have no core dump written, and no other process of this user read the memory.

    The limit stops files. A system that hands dumps to a program ignores it and looks at the flag, where there is one.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
