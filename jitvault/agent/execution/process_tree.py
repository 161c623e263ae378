"""Find and kill the processes below this one, orphans among them.

A program that is to outlive its parent makes a session of its own and forks twice. On Linux a subreaper becomes the
parent of such orphans, so they stay below the process that started them. Elsewhere only the process group is killed,
and `can_hold_orphans` is False.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
# rounds of finding and killing: a process may fork while the others are killed
_ROUNDS = 50
_PAUSE_S = 0.002
can_hold_orphans = sys.platform == "linux"


def hold_orphans() -> None:
    """Become the parent of processes below this one whose own parent ends."""
    if can_hold_orphans:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends.

    It survives an exec.
    """
    if can_hold_orphans:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_private() -> None:
    """Prevent core dumps, and reads of the memory by this user's processes."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if can_hold_orphans:
        _prctl(_PR_SET_DUMPABLE, 0)


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, the nearest first.

    Empty where that cannot be found out.
    """
    below: dict[int, list[int]] = {}
    for child, parent in _parents():
        below.setdefault(parent, []).append(child)
    found = list(below.get(pid, ()))
    for each in found:
        found.extend(below.get(each, ()))
    return found


def kill_below(pid: int, group: int | None = None) -> None:
    """Kill every process below `pid`, and those of the group `group`.

    It is repeated until none is found, since a process can fork between being found and being killed. A process that is
    stopped cannot fork: each is stopped first.
    """
    for _ in range(_ROUNDS):
        if group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        living = descendants(pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in living:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(each, number)
        if not descendants(pid):
            return
        time.sleep(_PAUSE_S)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each living process with its parent.

    A zombie has ended, and does not count.
    """
    with suppress(OSError):
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            with suppress(OSError, ValueError, IndexError):
                # the name of the program is in brackets, and may have brackets and spaces itself
                state, parent = (directory / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    yield int(directory.name), int(parent)


def _prctl(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
