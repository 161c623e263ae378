"""Ask the process that holds a task why the task is over.

A login that is gone fails before anybody has said why. So whoever used it asks, before an answer is given that looks
like a lost login.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

PATIENCE_S = 2.0
"""How long the answer is waited for."""
EVERY = 0
"""The number in an answer to every question."""
# how long an answer counts, so that a loop of failures does not become one of requests
_COUNTS_S = 0.1


class EndQuestion:
    """Asks one question at a time, for all threads.

    `ask` sends the number of a question. `answer` returns the number and the reason of the next answer, which it waits
    for some seconds. Either raises OSError where nobody answers.
    """

    def __init__(self, ask: Callable[[int], object], answer: Callable[[float], tuple[int, str]]) -> None:
        self._ask = ask
        self._answer = answer
        self._number = EVERY
        self._found = 0.0, ""
        self._one_at_a_time = Lock()

    def why(self) -> str:
        """Return why the task is over, "" where it is not or nobody answers.

        Several threads may fail at once: each waits PATIENCE_S at most, for those before it as well.
        """
        # whoever asks before has an earlier deadline
        deadline = time.monotonic() + PATIENCE_S
        with self._one_at_a_time:
            counts_until, reason = self._found
            if time.monotonic() >= counts_until:
                reason = self._asked(deadline)
                self._found = time.monotonic() + _COUNTS_S, reason
        return reason

    def _asked(self, deadline: float) -> str:
        self._number += 1
        with suppress(OSError):
            self._ask(self._number)
            while (left := deadline - time.monotonic()) > 0:
                number, reason = self._answer(left)
                # an answer that comes too late is none to the next question
                if number in (EVERY, self._number):
                    return reason
        return ""
