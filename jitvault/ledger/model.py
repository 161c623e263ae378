"""The ledger: its rows as values, and the operations that the services need.

One function changes a task (`apply`); everything it writes is in one `Change`, decided before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from jitvault.audit.trail import AuditTrail
from jitvault.formats.product import Product
from jitvault.ledger.document_index import DocumentIndex
from jitvault.ledger.judgements import Intake
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.states import EndReason, State, Verdict
from jitvault.ports.admission import Admission, GrantAdmission
from jitvault.ports.notices import Notices
from jitvault.ports.orphans import Orphans
from jitvault.ports.record import Record
from jitvault.ports.recovery import Recovery
from jitvault.ports.retention import Retention
from jitvault.ports.turns import Turns


class OpState(StrEnum):
    """`intended` is committed before the call; after a crash it reads as unknown."""

    INTENDED = "intended"
    ANSWERED = "answered"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    ABANDONED = "abandoned"


ENDED_UNSEEN = "ended unseen"
"""The answer of a create of which no line and no answer came, and whose token was found in a list and ended."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """`ends_at` is the deadline of a task that was issued; `due_at` is when it has to be looked at next."""

    task_id: str
    state: State
    end_reason: EndReason | None
    revision: int
    digest: str
    requester: str
    agent: str
    version: int
    seq: int
    head: str
    created_at: datetime
    due_at: datetime | None
    ends_at: datetime | None
    ending_at: datetime | None
    dead_ms: int | None
    confirmed_ms: int | None
    receipt: Mapping[str, Any] | None
    parent: str | None = None
    """The task that handed a part of its access on to this one, as its revision says."""


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """`body` is the canonical bytes; the digest is over them and is never recomputed from newer models."""

    task_id: str
    revision: int
    digest: str
    body: bytes
    decision: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AccessRow:
    """What a revision asks for by one template, so that what is held can be counted: at most `lease_budget` leases."""

    task_id: str
    revision: int
    template: str
    agent: str
    owner: str
    lease_budget: int


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A cache of a verified document in Vault, for reading only: no decision looks at it.

    `decision` is `lapsed` for one that counted once and does not any more; a file has none of those.
    """

    task_id: str
    entity_id: str
    name: str
    decision: str
    digest: str
    expires_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One attempt to give a task its token. At most one grant of a task is not settled.

    `token_lease` is the token's own lease path, known only where its accessor was lost in a crash. `ttl_s` is how long
    a credential may live without a renewal, `step_s` how long the token is given at a time; `rolling` says that both it
    and its leases have to be renewed to live until the deadline, and `renew_at` when: None where it reaches it.
    `expires_at` is never before its end, by Vault's clock. `wrapping_hmac` is the HMAC of the wrapping token that is
    delivered, `asked` what the create's request says (`jitvault.audit.intent.Intent.words`).
    """

    grant_id: str
    task_id: str
    attempt: int
    digest: str
    role: str
    create_op: str
    wrapped_accessor: str | None
    accessor_hmac: str | None
    token_lease: str | None
    creation_path: str | None
    requested_ttl_s: int
    ttl_s: int
    step_s: int
    wrap_ttl_s: int
    issued_at: datetime | None
    expires_at: datetime | None
    rolling: bool
    renew_at: datetime | None
    delivered: bool
    settled: bool
    verdict: Verdict
    dead_at: datetime | None
    wrapping_hmac: str | None = None
    asked: dict[str, dict[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One lease that the audit stream showed. `target_name` is what its target knows it by, for a probe.

    `renew_at` is when it is renewed next, None for one that is left alone.
    """

    lease_id: str
    task_id: str
    grant_id: str
    path: str
    target_name: str | None
    issued_at: datetime
    verdict: Verdict
    dead_at: datetime | None
    renew_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CheckRow:
    task_id: str
    subject: str
    n: int
    ok: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class OperationRow:
    """`task_id` is None for an act on what belongs to no task."""

    op_id: str
    task_id: str | None
    kind: str
    subject: str
    state: OpState
    answer: str | None
    sent_at: datetime
    answered_at: datetime | None


Row = RevisionRow | AccessRow | DecisionRow | GrantRow | LeaseRow | CheckRow | OperationRow


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that one step writes. `fields` are columns of the task; `rows` are inserted or replaced."""

    event: EventKind
    body: Mapping[str, Any] = field(default_factory=dict)
    state: State | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """All that the ledger knows of one task, but for renewals that are over: one that is held for hours has hundreds of
    them behind it, and nothing rests on them.
    """

    task: TaskRow
    revision: RevisionRow
    decisions: tuple[DecisionRow, ...]
    grants: tuple[GrantRow, ...]
    leases: tuple[LeaseRow, ...]
    checks: tuple[CheckRow, ...]
    operations: tuple[OperationRow, ...]
    events: tuple[Event, ...]
    findings: tuple[Mapping[str, Any], ...]


class Ledger(Record, Turns, Orphans, Admission, Notices, Recovery, Retention, Intake, DocumentIndex, Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def apply(
        self, task_id: str, change: Change, *, claim: int, at: datetime, admission: GrantAdmission | None = None
    ) -> TaskRow:
        """Write `change` and its event at once, if `admission` holds in that transaction.

        Raises WrongState when the claim was lost, what the admission's judge raises, and Frozen for an issue while a
        recovery is open.
        """
        ...

    def create(self, task: TaskRow, change: Change, *, at: datetime) -> TaskRow:
        """The first event of a task. Raises WrongState when the task exists."""
        ...

    def task(self, task_id: str) -> TaskRow | None: ...

    def tasks(self, states: Collection[State] = frozenset(State)) -> list[TaskRow]:
        """Those in one of `states`, the oldest first: most of all that ever were are over."""
        ...

    def named(self, task_ids: Collection[str]) -> list[TaskRow]:
        """Those of `task_ids` that are known."""
        ...

    def bodies(self) -> Iterator[bytes]:
        """What was ever asked for: the body of each revision, one at a time."""
        ...

    def children(self, task_id: str) -> list[str]:
        """The tasks that the task handed a part of its access on to, in the order of their ids.

        Also those whose own rows say so no more: its chain says it, which somebody who edits theirs does not change.
        """
        ...

    def held(self) -> dict[str, int]:
        """The tasks that hold access, each with the number of its last event."""
        ...

    def ungranted(self) -> list[str]:
        """The tasks that may still be granted, those with an issue that did not finish included."""
        ...

    def file(self, task_id: str) -> TaskRecord | None:
        """All of a task. Raises Unreadable where somebody edited it so that it cannot be read."""
        ...

    def file_again(self, file: TaskRecord) -> TaskRecord:
        """The same as `file`, which was read a moment ago, as it is now: read anew where its task has changed since.

        Of one that has not, the stream may have settled an operation more. Raises LedgerUnavailable where it is gone.
        """
        ...

    def trail(self, file: TaskRecord) -> AuditTrail:
        """The observations that concern a task, what others did that casts doubt on a proof among them, in the order of
        the stream, and the canaries around them.
        """
        ...

    def acts(self, file: TaskRecord) -> AuditTrail:
        """What the task's tokens did and what was done to them, in the order of the stream, without canaries.

        What a worker does to keep them is left out: of a task that is held for long that is nearly all there is.
        """
        ...

    def gave_back(self, token: str) -> bool:
        """Whether a task's token was revoked by itself; `token` is the HMAC of its accessor."""
        ...

    def was_unwrapped(self, token: str) -> bool:
        """Whether somebody took a task's token out of its wrapping, or tried to."""
        ...

    def is_long(self, file: TaskRecord) -> bool:
        """Whether the task's tokens left so many lines that reading them takes time."""
        ...

    def interrupted(self, file: TaskRecord) -> bool:
        """Whether lines of the task's tokens stand in another stretch than the one that is being read now."""
        ...

    def endangered(self, file: TaskRecord) -> bool:
        """Whether anybody did, since the task's token was meant, what can take a credential's record away."""
        ...

    def known_leases(self, lease_ids: Sequence[str]) -> set[str]:
        """Which of these leases belong to any task."""
        ...

    def task_of_target(self, name: str) -> str | None:
        """The task with a lease whose credential its target knows by this name."""
        ...

    def known_targets(self, names: Sequence[str]) -> set[str]:
        """Which of these names, as targets know credentials by, are those of leases that belong to any task."""
        ...

    def finding_counts(self) -> dict[str, int]:
        """How many findings each task has that has any, with those that are only counted."""
        ...

    def issue_times(self, role: str) -> set[datetime]:
        """Vault's issue times of all known tokens of a token role."""
        ...

    def installation(self) -> str | None: ...

    def set_installation(self, installation: str) -> None:
        """Bind a new ledger to an installation; one that is bound keeps its own."""
        ...

    def product(self) -> Product | None:
        """The server that it was last used with; None where none said what it is."""
        ...

    def used_with(self, product: Product) -> None:
        """Keep that it is used with that server."""
        ...

    def follow(self, generation: int) -> None:
        """Keep that a worker with rules of that generation works on the ledger: lower ones write no more."""
        ...

    def finding(
        self,
        task_id: str | None,
        rule: str,
        message: str,
        at: datetime,
        *,
        line: str = "",
        request_id: str = "",
        author: str = "",
        more: int = 0,
    ) -> None:
        """Keep a finding once. `line` and `request_id` name the audit line that shows it, `author` the entity that
        wrote what it is about.

        Of one author and rule, or of one task and rule, so many are kept one by one (`domain.finding`), and the others
        are counted in one more. `more` others are counted at once.
        """
        ...
