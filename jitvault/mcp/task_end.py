"""Ask `jitvault exec` why its task is over, when a tool failed.

The runner has no login of its own. Each question is a datagram with a number, and so is the answer, with the reason
after it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from jitvault.agent.end_question import PATIENCE_S, EndQuestion

_NUMBER = 4
_LONGEST = 4096


def serve(line: socket.socket, why: Callable[[], str]) -> None:
    """Answer the newest question with what `why` returns, again and again."""
    with suppress(OSError):
        while number := line.recv(_NUMBER):
            with suppress(BlockingIOError):
                # whoever asked before it waits no more
                while newer := line.recv(_NUMBER, socket.MSG_DONTWAIT):
                    number = newer
            line.send(number + why().encode()[: _LONGEST - _NUMBER])


def question(descriptor: int) -> EndQuestion:
    """Return the runner's side of the line."""
    # no tool is to get it
    os.set_inheritable(descriptor, False)
    line = socket.socket(fileno=descriptor)
    line.settimeout(PATIENCE_S)

    def answer(seconds: float) -> tuple[int, str]:
        line.settimeout(seconds)
        received = line.recv(_LONGEST)
        return int.from_bytes(received[:_NUMBER], "big"), received[_NUMBER:].decode(errors="replace")

    return EndQuestion(lambda number: line.send(number.to_bytes(_NUMBER, "big")), answer)
