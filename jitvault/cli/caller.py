"""Tell the program that started this command what happens, by events.

The descriptor is this process's alone: it is closed in every copy of this process, and nothing that is started gets it.
A program that `exec` runs could otherwise tell its caller of an end that is none.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from jitvault.agent.events_variable import VARIABLE
from jitvault.errors import UsageError
from jitvault.memory_protection import keep_private

if TYPE_CHECKING:
    from jitvault.agent.command_events import Event

_STANDARD = 3


class _Caller:
    """The caller's descriptor, for all threads of this process."""

    descriptor: int | None = None


def heed_caller() -> None:
    """Tell the caller of this command what happens from now on, if the variable asks for that.

    The variable is removed, since what this process starts has other callers. Raises UsageError for a descriptor that
    cannot be written to, or is a standard stream, which a program would have as well.
    """
    _close()
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return
    if not _is_writable(number):
        raise UsageError(
            f"{VARIABLE}: expected the number of an open descriptor that can be written to, 3 or more",
            hint=f"Correct {VARIABLE} or unset it. Nothing was started.",
        )
    _Caller.descriptor = int(number)
    os.set_inheritable(_Caller.descriptor, False)
    # nor can another process of this user take the descriptor out of this one
    keep_private()


def tell(event: Event) -> None:
    """Tell the caller of this command, if it is there and wants to know."""
    if _Caller.descriptor is None:
        return
    from jitvault.agent.command_events import line

    left = line(event)
    with suppress(OSError):
        while left:
            left = left[os.write(_Caller.descriptor, left) :]


def _is_writable(number: str) -> bool:
    """Return whether a text is the number of such a descriptor."""
    try:
        mode = fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError, ValueError):
        return False
    return int(number) >= _STANDARD and mode != os.O_RDONLY


def _close() -> None:
    if _Caller.descriptor is not None:
        with suppress(OSError):
            os.close(_Caller.descriptor)
    _Caller.descriptor = None


os.register_at_fork(after_in_child=_close)
