"""The contexts that all other code works with.

Each holds everything a worker or a person has, in one value.

`wiring.py` fills them with the adapters of one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.formats.server_product import Release, late_lines

if TYPE_CHECKING:
    from jitvault.audit.source import Sources
    from jitvault.engines.interface import Engine
    from jitvault.ledger.kept_tasks import KeptTasks
    from jitvault.ledger.ledger import Ledger
    from jitvault.ledger.model import TaskRecord
    from jitvault.model.template import AccessTemplate
    from jitvault.policy.interface import Authorizer
    from jitvault.vault.facts import Facts
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
class RunMode:
    """How a process works on a task.

    It says how long the process works on the task, what it waits for, and which answers it shares. The defaults are
    those of a command that breaks glass. A worker and the kill switch set others.
    """

    deadline: float | None = None
    """By `clock.monotonic()`: after it nothing new is started. What was started is finished, the rest stays due."""
    stopped: Callable[[], bool] = never
    """Returns True once the process is shutting down; treated like a passed deadline."""
    is_daemon: bool = False
    """Whether loops of this process read the stream all the time and come back to a task when it is due."""
    is_scheduled: bool = False
    """Whether the task is looked at because it is due, and not because of news about it."""

    def is_over(self, now: float) -> bool:
        """Return whether nothing new may be started at `now`.

        `now` is a time of the monotonic clock.
        """
        return (self.deadline is not None and now >= self.deadline) or self.stopped()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Everything under the worker's identity.

    Only a worker decides, issues, revokes and confirms.
    """

    ledger: Ledger
    facts: Facts
    kept: KeptTasks
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
    """Returns the server's product and version; None where they are not known."""
    rolling_step: timedelta
    denied_limit: int
    shared_hosts: tuple[str, ...]
    open_requests: int
    """How many tasks of one requester may wait for their grant at most."""
    tells_persons: bool = False
    """Whether entities say which person they are: `jitvault.vault.interface.Entity.person`."""
    mode: RunMode = field(default_factory=RunMode)
    is_blind: bool = False
    """Whether the audit stream may not show the documents that were written lately."""
    asked_by: str | None = None
    """The entity for whom a task is advanced: what it signed about the end of the task is read first."""

    @property
    def settle_window(self) -> timedelta:
        """Return the time after which no line of a request arrives any more.

        The line is a request's audit line.
        """
        return self.longest_request + late_lines(self.release())

    def now(self) -> datetime:
        """Return the time that counts: Vault's, where this host's clock disagrees."""
        return self.clock.agreed()

    def record(self, task_id: str) -> TaskRecord:
        """Return a task that the ledger has to have.

        Raises JitvaultError where the task is gone, and CorruptRecord, with a finding, where its rows cannot be read.
        """
        try:
            record = self.ledger.record(task_id)
        except CorruptRecord as error:
            self.ledger.finding(task_id, "ledger_edited", str(error), self.now())
            raise
        if record is None:
            raise JitvaultError(f"task {task_id} disappeared from the ledger")
        return record

    def legible(self, task_id: str) -> TaskRecord | None:
        """Return a task for a caller that goes through many of them.

        The result is None where the task is gone, or its rows were edited so that they cannot be read. The turn of that
        task records the finding.
        """
        try:
            return self.ledger.record(task_id)
        except CorruptRecord:
            return None

    def is_late(self, after_s: float = 0.0) -> bool:
        """Return whether the deadline is over, or will be in `after_s` seconds."""
        return self.mode.is_over(self.clock.monotonic() + after_s)

    def until(self, deadline: float) -> WorkerContext:
        """Return this context with a deadline, by `clock.monotonic()`."""
        return replace(self, mode=replace(self.mode, deadline=deadline))


@dataclass(frozen=True, slots=True)
class Person:
    """Everything under the identity of an operator, approver or agent.

    A person only writes, signs and reads documents.
    """

    me: TokenFacts
    signer: Signer
    documents: Documents
    clock: Clock
    written: dict[str, str] = field(default_factory=dict)
    """What this process has signed and written, oldest first: each document's kind, by its path."""

    @property
    def entity(self) -> str:
        return self.me.entity_id


def new_id() -> str:
    """Return 128 random bits in hex, for operation ids, grant ids and nonces."""
    return secrets.token_hex(16)


class Clock(Protocol):
    def now(self) -> datetime:
        """Return this host's own time, aware and in UTC, right or wrong.

        For code that compares the host's clock with another one.
        """
        ...

    def agreed(self) -> datetime:
        """Return this host's time, or Vault's where the two disagree.

        See `jitvault.formats.clocks`. For windows, due times and all times that are recorded. The order of events comes
        from the audit stream, not from these times.
        """
        ...

    def behind(self) -> timedelta:
        """Return by how much this host's clock is behind Vault's at least.

        Negative where the host's clock is ahead.
        """
        ...

    def sleep(self, seconds: float) -> None: ...

    def monotonic(self) -> float: ...
