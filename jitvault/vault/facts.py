"""What Vault answered to reads, for as long as a turn may go by it.

A turn asks several questions about the same people, keys and documents. It reads each of them once: an answer counts
that was asked for after the turn began. Scheduled renewals of thousands of tasks ask the same questions all the time;
they share the answers of one second, so that nothing is checked less often, and no answer is older than a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from jitvault.formats.secret import Secret
from jitvault.vault.client import Bearer, Connection, Vault
from jitvault.vault.responses import READS

RECENT_S = 1.0
"""How old an answer may be at most, in seconds, whenever the turn began."""
_BY_NAME, _BY_ID = "identity/entity/name/", "identity/entity/id/"
_LEASES = "sys/leases"

T = TypeVar("T")


class _Turn(threading.local):
    """The present turn of one thread: since when an answer counts, and whether it may be another turn's."""

    since = math.inf
    is_shared = False


class Facts:
    """Answers to reads, shared by the threads of a process.

    Outside of a turn every read goes to Vault. An error is not kept: the next caller asks again. Turns that share go by
    what they asked for themselves: they may take an answer for new that another turn has acted on already.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # an answer is as old as its question, since a change on the way may not be in it
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._written: dict[str, float] = {}
        self._swept = clock()
        self._turn = _Turn()

    @contextmanager
    def turn(self, *, shared: bool = False) -> Iterator[None]:
        """Let this thread go by what is asked for from now on.

        With `shared` it goes by what any other such turn asked within a second.
        """
        turn = self._turn
        before = (turn.since, turn.is_shared)
        turn.since, turn.is_shared = (-math.inf if shared else self._clock()), shared
        try:
            yield
        finally:
            turn.since, turn.is_shared = before

    @property
    def is_shared(self) -> bool:
        """Whether this thread's turn goes by the answers of others."""
        return self._turn.is_shared

    def of(self, key: Hashable, ask: Callable[[], T], *, at_most_s: float = RECENT_S, place: str = "") -> T:
        """Return an answer for `key` that counts in this turn, or ask.

        With `at_most_s` an answer also has to be younger than so many seconds. `place` is where a write changes it.
        """
        if self._turn.since == math.inf:
            return ask()
        kept_as = self._kept_as(key)
        now = self._clock()
        with self._lock:
            at, known = self._answers.get(kept_as, (-math.inf, None))
            since = max(self._turn.since, self._written.get(place, -math.inf))
        if at >= since and now - at < min(at_most_s, RECENT_S):
            answer: T = known
            return answer
        # several threads may ask at once: none waits for another thread's connection
        answer = ask()
        with self._lock:
            self._answers[kept_as] = (now, answer)
            self._forget_old(now)
        return answer

    def _kept_as(self, key: Hashable) -> Hashable:
        return (self._turn.is_shared, key)

    def also(self, key: Hashable, known: Hashable) -> None:
        """Let the answer for `known` answer `key` as well."""
        with self._lock:
            if (answer := self._answers.get(self._kept_as(known))) is not None:
                self._answers[self._kept_as(key)] = answer

    def wrote(self, *places: str) -> None:
        """Note that something was written now: no answer counts any more that was asked for before."""
        with self._lock:
            self._written |= dict.fromkeys(places, self._clock())

    def _forget_old(self, now: float) -> None:
        if now - self._swept >= RECENT_S:
            self._swept = now
            self._answers = {key: known for key, known in self._answers.items() if now - known[0] < RECENT_S}
            self._written = {place: at for place, at in self._written.items() if now - at < RECENT_S}


class WorkerVault(Vault):
    """The worker's client: what it reads are facts, and what it writes is read anew."""

    def __init__(self, connection: Connection, token: Secret | Bearer | None, facts: Facts) -> None:
        super().__init__(connection, token)
        self._facts = facts

    def _or_none(self, method: str, path: str, *, op: str | None = None, query: str = "", **how: Any) -> Any:
        ask = partial(super()._or_none, method, path, op=op, query=query, **how)
        # a read with an operation id is an act; the token that asks about itself may be replaced, and what is looked up
        # to see whether it is gone may go, at any time
        if op is not None or path.endswith("-self") or path.startswith(_LEASES):
            return ask()
        place = _mount(path) if method == "list" else _document(path)
        answer = self._facts.of((method, path, query), ask, place=place)
        if path.startswith(_BY_NAME) and answer is not None:
            # the same entity is asked for by its id right afterwards
            self._facts.also((method, _BY_ID + str(answer["data"]["id"]), query), (method, path, query))
        return answer

    def _request(self, method: str, path: str, **how: Any) -> Any:
        try:
            return super()._request(method, path, **how)
        finally:
            if method not in READS:
                self._facts.wrote(_mount(path), _document(path))


def _mount(path: str) -> str:
    """Return the place of every listing that a write to a path may change."""
    return path.partition("/")[0] + "/"


def _document(path: str) -> str:
    """Return the place of a document, whichever part of KV names it."""
    return path.replace("/metadata/", "/data/", 1)
