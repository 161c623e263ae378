"""Find and kill the processes below this one, orphans among them.

A program that is to outlive its parent makes a session of its own and forks twice. On Linux a subreaper becomes the
parent of such orphans, so they stay below the process that started them. Elsewhere only the process group is killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from jitvault.prctl import prctl

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# how long processes are looked for that go on appearing
_PATIENCE_S = 10.0
# of the words after the program's name in /proc/PID/stat
_THREADS = 17


def hold_orphans() -> bool:
    """Become the parent of processes below this one whose own parent ends.

    Return whether the system lets it.
    """
    return prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> bool:
    """Have the kernel kill this process when the thread that started it ends.

    It survives an exec. Return whether the system lets it.
    """
    return prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


def kill_below(pid: int, group: int | None = None, *, besides: int | None = None) -> bool:
    """Kill every process below `pid`, and those of the group `group`.

    `besides` is a process that stays, with those below it.

    A process can fork between being found and being killed. One that is stopped cannot: all are stopped first, until no
    other appears. Return whether none is left. A program whose processes fork and end faster than they can be listed is
    not caught.
    """
    deadline = time.monotonic() + _PATIENCE_S
    stopped: set[int] = set()
    while time.monotonic() < deadline:
        if group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        living = {*descendants(pid)} - _spared(besides)
        if not living:
            return True
        is_new = bool(living - stopped)
        _send(signal.SIGSTOP if is_new else signal.SIGKILL, living)
        stopped = living if is_new else set()
    left = {*descendants(pid)} - _spared(besides)
    _send(signal.SIGKILL, left)
    return not left


def _spared(pid: int | None) -> set[int]:
    """Return a process with those below it; none for None."""
    return set() if pid is None else {pid, *descendants(pid)}


def _send(number: int, pids: Iterable[int]) -> None:
    for each in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, number)


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
                facts = (directory / "stat").read_bytes().rpartition(b")")[2].split()
                # a zombie with further threads has only lost its first one
                if facts[0] not in (b"Z", b"X") or int(facts[_THREADS]) > 1:
                    yield int(directory.name), int(facts[1])
