"""What the services work with: one value that the composition root fills."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jitvault.errors import JitvaultError, Unreadable
from jitvault.formats.product import Release, late_lines

if TYPE_CHECKING:
    from jitvault.audit.source import Sources
    from jitvault.engines.interface import Engine
    from jitvault.ledger.ledger import Ledger
    from jitvault.ledger.model import TaskRecord
    from jitvault.model.template import AccessTemplate
    from jitvault.policy.interface import Authorizer
    from jitvault.vault.interface import (
        Documents,
        Hasher,
        Identity,
        Leases,
        Reader,
        Signer,
        TokenFacts,
        Tokens,
    )


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Everything under the worker's identity. Only this decides, issues, revokes and proves."""

    ledger: Ledger
    sources: Sources
    authorizer: Authorizer
    engines: Mapping[str, Engine]
    templates: Mapping[str, AccessTemplate]
    clock: Clock
    tokens: Tokens
    leases: Leases
    hasher: Hasher
    signer: Signer
    documents: Documents
    identity: Identity
    reader: Reader
    installation: str
    longest_request: timedelta
    """How long Vault lets one request run: JITVAULT_SETTLE_WINDOW."""
    release: Callable[[], Release | None]
    """Which product and version the server is; None where nobody knows."""
    rolling_step: timedelta
    denied_limit: int
    shared_hosts: tuple[str, ...]
    open_requests: int
    """How many tasks of one requester may wait for their grant."""
    deadline: float | None = None
    """By `clock.monotonic()`: after it nothing new is begun. What was begun is finished, the rest stays due."""
    stopped: Callable[[], bool] = never
    """Whether this process is to end: then it is as if the deadline were over."""
    tells_persons: bool = False
    """Whether entities say which person they are: `jitvault.vault.interface.Entity.person`."""
    waits: bool = True
    """Whether a quiet second is waited for here. Who looks after many tasks comes back to each instead."""
    reads_on: bool = False
    """Whether loops of this process read the stream all the time."""
    shared: ReadCache | None = None
    """Answers that scheduled renewals may share (`lifecycle/renewal/cached_reads.py`)."""
    glances: bool = False
    """Whether this task's renewal goes by the shared answers."""
    is_blind: bool = False
    """Whether what was written lately may not be known from the audit stream."""
    asked_by: str | None = None
    """The entity for whom a task is looked at: what they signed about its end is read first."""

    @property
    def settle_window(self) -> timedelta:
        """After it no line of a request can come any more."""
        return self.longest_request + late_lines(self.release())

    def now(self) -> datetime:
        """The time to go by: Vault's, where this host's clock disagrees with it."""
        return self.clock.agreed()

    def file(self, task_id: str) -> TaskRecord:
        """All that the ledger has of a task that it knows. Raises JitvaultError where it is gone."""
        try:
            file = self.ledger.file(task_id)
        except Unreadable as error:
            self.ledger.finding(task_id, "ledger_edited", str(error), self.now())
            raise
        if file is None:
            raise JitvaultError(f"task {task_id} vanished from the ledger")
        return file

    def legible(self, task_id: str) -> TaskRecord | None:
        """The same for who looks at many: None for one that is gone, or that was edited so that nobody can read it.

        Whoever looks after that one tells it.
        """
        try:
            return self.ledger.file(task_id)
        except Unreadable:
            return None

    def is_late(self, after_s: float = 0.0) -> bool:
        """Whether the deadline is over, or will be in `after_s` seconds."""
        late = self.deadline is not None and self.clock.monotonic() + after_s >= self.deadline
        return late or self.stopped()


@dataclass(frozen=True, slots=True)
class Person:
    """Everything under the identity of an operator, approver or agent: it only writes, signs and reads."""

    me: TokenFacts
    signer: Signer
    documents: Documents
    clock: Clock

    @property
    def entity(self) -> str:
        return self.me.entity_id


def new_id() -> str:
    """128 random bits in hex: operation ids, grant ids, nonces."""
    return secrets.token_hex(16)


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC: this host's own clock, right or wrong. For whoever compares it with another one."""
        ...

    def agreed(self) -> datetime:
        """The same, or Vault's where the two disagree (`jitvault.formats.clocks`).

        For windows, due times and all that is written down. The order of what happened is the stream's, not this.
        """
        ...

    def behind(self) -> timedelta:
        """By how much this host's clock is behind Vault's at least; negative where it is ahead."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def monotonic(self) -> float: ...


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
