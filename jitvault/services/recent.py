"""Answers that serve several looks, and are never older than a second. `glance` says which looks go by them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

RECENT_S = 1.0

T = TypeVar("T")


class ReadCache:
    """Answers of one process, for all its threads. What failed is no answer, and is asked again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._swept = clock()

    def of(self, key: Hashable, ask: Callable[[], T], *, at_most_s: float = RECENT_S) -> T:
        """What `ask` gives, or gave to whoever asked for `key` less than `at_most_s` seconds ago; one at most."""
        now = self._clock()
        with self._lock:
            known = self._answers.get(key)
        if known is not None and now - known[0] < min(at_most_s, RECENT_S):
            answer: T = known[1]
            return answer
        # several may ask at once: nobody waits for another's connection
        answer = ask()
        with self._lock:
            # as old as its question: what changed on the way may not be in it
            self._answers[key] = (now, answer)
            self._forget_old(now)
        return answer

    def _forget_old(self, now: float) -> None:
        if now - self._swept >= RECENT_S:
            self._swept = now
            self._answers = {key: one for key, one in self._answers.items() if now - one[0] < RECENT_S}
