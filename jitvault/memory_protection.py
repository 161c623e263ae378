"""Keep a process's memory, with the tokens in it, from everyone but root."""

from __future__ import annotations

import resource

from jitvault.prctl import prctl

_PR_SET_DUMPABLE = 4


def keep_private() -> bool:
    """Prevent core dumps, and reads of the memory by other processes.

    The limit prevents dump files. A system that hands dumps to a program ignores the limit and looks at the dumpable
    flag, where there is one. Return whether the flag is set.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return prctl(_PR_SET_DUMPABLE, 0)
