"""What the services work with: one value that the composition root fills."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jitvault.errors import JitvaultError, Unreadable
from jitvault.formats.product import Release, late_lines

if TYPE_CHECKING:
    from jitvault.audit.source import Sources
    from jitvault.engines.interface import Engine
    from jitvault.ledger.model import Ledger, TaskRecord
    from jitvault.model.template import AccessTemplate
    from jitvault.policy.interface import Authorizer
    from jitvault.ports.clock import Clock
    from jitvault.services.recent import ReadCache
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
    """Whether entities say which person they are: `ports.vault.Entity.person`."""
    waits: bool = True
    """Whether a quiet second is waited for here. Who looks after many tasks comes back to each instead."""
    reads_on: bool = False
    """Whether loops of this process read the stream all the time."""
    shared: ReadCache | None = None
    """What a look at a held task that is due may go by: `services.glance`. Without it each look reads everything."""
    glances: bool = False
    """Whether this one goes by it."""
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
