"""Ask `jitvault exec` whether its task is over, when a tool failed.

The runner has no login of its own, and a tool whose login is gone fails before anybody has told the runner why. Each
question is a datagram with a number, and so is the answer, with the reason after it: an answer that comes too late is
none to the next question.
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
    """Answer questions with what `why` returns, until nobody can ask any more."""
    with suppress(OSError):
        while number := line.recv(_NUMBER):
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
        """Return why the task is over, "" where it is not or nobody answers."""
        if self._line is None:
            return ""
        with self._one_at_a_time, suppress(OSError):
            self._number += 1
            number = self._number.to_bytes(_NUMBER, "big")
            self._line.send(number)
            deadline = time.monotonic() + PATIENCE_S
            while (left := deadline - time.monotonic()) > 0:
                self._line.settimeout(left)
                answer = self._line.recv(_LONGEST)
                if answer[:_NUMBER] == number:
                    return answer[_NUMBER:].decode(errors="replace")
        return ""
