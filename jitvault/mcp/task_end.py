"""Ask `jitvault exec` whether its task is over, when a tool failed.

The runner has no login of its own, and a tool whose login is gone fails before anybody has told the runner why. Each
question is a datagram with a number, and so is the answer, with the reason after it. An answer that comes too late is
none to the next question, and a question that nobody waits for any more gets none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

PATIENCE_S = 2.0
"""The longest that a tool's answer waits for it."""
_NUMBER = 4
_LONGEST = 4096


def serve(line: socket.socket, why: Callable[[], str]) -> None:
    """Answer the newest question with what `why` returns, as long as this process lives."""
    with suppress(OSError):
        while number := line.recv(_NUMBER):
            with suppress(BlockingIOError):
                # who asked before it waits no more
                while newer := line.recv(_NUMBER, socket.MSG_DONTWAIT):
                    number = newer
            line.send(number + why().encode()[: _LONGEST - _NUMBER])


class Asking:
    """The runner's side; without a descriptor nobody answers."""

    def __init__(self, descriptor: int | None) -> None:
        self._line = None
        if descriptor is not None:
            # no tool is to get it
            os.set_inheritable(descriptor, False)
            self._line = socket.socket(fileno=descriptor)
        self._number = 0
        self._one_at_a_time = Lock()

    def why(self) -> str:
        """Return why the task is over, "" where it is not or nobody answers.

        Several tools may fail at once: each waits PATIENCE_S at most, for those before it as well.
        """
        deadline = time.monotonic() + PATIENCE_S
        if self._line is None or not self._one_at_a_time.acquire(timeout=PATIENCE_S):
            return ""
        try:
            return self._answer(self._line, deadline)
        except OSError:
            return ""
        finally:
            self._one_at_a_time.release()

    def _answer(self, line: socket.socket, deadline: float) -> str:
        """Ask, and return the answer. Raises OSError where none comes in time."""
        self._number += 1
        number = self._number.to_bytes(_NUMBER, "big")
        line.settimeout(max(0.0, deadline - time.monotonic()))
        line.send(number)
        while (left := deadline - time.monotonic()) > 0:
            line.settimeout(left)
            answer = line.recv(_LONGEST)
            if answer[:_NUMBER] == number:
                return answer[_NUMBER:].decode(errors="replace")
        return ""
