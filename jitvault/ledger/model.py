"""Rows of the ledger as values, and the change that writes them.

A task changes in one function (`jitvault.ledger.task_change.write_change`). Everything that one step writes is in one
`Change`, which is decided before the transaction begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Any

from msgspec import Struct

from jitvault.model.event_bodies import NOTHING, EventBody
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import Check
from jitvault.model.states import EndReason, State, Verdict
from jitvault.policy.question import HeldLeases


class OpState(StrEnum):
    """The state of a call to Vault that creates or destroys something.

    `intended` is committed before the call is sent. An operation that is still `intended` after a crash is treated as
    `unknown`: Vault may have carried it out.
    """

    INTENDED = "intended"
    ANSWERED = "answered"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    ABANDONED = "abandoned"


ENDED_UNSEEN = "ended unseen"
"""The recorded answer of a create that left neither an answer nor an audit line.

Its token was found in Vault's list of accessors and revoked.
"""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task: its state, the head of its event chain, and its times.

    `ends_at` is the deadline of a task whose token was issued. `due_at` is when a worker has to look at the task next.
    """

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
    """The task that delegated a part of its access to this one, as this task's revision names it."""

    @property
    def is_being_replaced(self) -> bool:
        """Return whether the task is between two tokens.

        An extension replaces the first token.
        """
        return self.state is State.ISSUING and self.ends_at is not None


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One revision of a task's spec, with the decision on it.

    `body` holds the canonical bytes. `digest` is computed over these bytes and never again from newer models.
    """

    task_id: str
    revision: int
    digest: str
    body: bytes
    decision: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AccessRow:
    """One template that a revision asks for.

    The rows let held leases be counted: a task holds at most `lease_budget` leases of the template.
    """

    task_id: str
    revision: int
    template: str
    agent: str
    owner: str
    lease_budget: int


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A cached copy of a signed decision in Vault, for display only.

    The signed document was verified before it was cached. No decision of a worker reads this row. `decision` is
    `lapsed` for an approval that counted once and counts no more; a `TaskRecord` leaves lapsed rows out.
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
    """One attempt to issue a task's token.

    At most one grant of a task is not settled. `token_lease` is the token's own lease path, known only where its
    accessor was lost in a crash. `ttl_s` is how long a credential may live without a renewal, `step_s` how long the
    token is given at a time, both in seconds. `rolling` says that the token and its leases have to be renewed to live
    until the deadline. `renew_at` is when the token is renewed next, None where it already lives until the deadline.
    `expires_at` is never before the token's real end, by Vault's clock. `wrapping_hmac` is the HMAC of the wrapping
    token that is delivered. `asked` is what the create's request says (`jitvault.audit.create_intent.Intent.words`).
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

    @property
    def unwrap_deadline(self) -> datetime | None:
        """Return when the wrapping token expires, by Vault's clock."""
        return self.issued_at + timedelta(seconds=self.wrap_ttl_s) if self.issued_at else None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One lease that the audit stream showed.

    `target_name` is the name by which the target knows the credential, for a probe. `renew_at` is when the lease is
    renewed next, None for a lease that is not renewed.
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


class CheckRow(Check, frozen=True, kw_only=True):
    """One numbered check of a task, and the credential or the task that it is about."""

    task_id: str
    subject: str


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One call to Vault that creates or destroys something.

    `task_id` is None for a call about something that belongs to no task.
    """

    op_id: str
    task_id: str | None
    kind: str
    subject: str
    state: OpState
    answer: str | None
    sent_at: datetime
    answered_at: datetime | None


def columns_of(kind: Any) -> tuple[str, ...]:
    """Return the names of the columns of a kind of row."""
    if issubclass(kind, Struct):
        return tuple(map(str, kind.__struct_fields__))
    return tuple(field.name for field in fields(kind))


Row = RevisionRow | AccessRow | DecisionRow | GrantRow | LeaseRow | CheckRow | OperationRow


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that one step writes to a task.

    `fields` are columns of the task. `rows` are inserted, or replace the rows with their keys. With `gives_back` the
    claim under which it is written ends with it: what follows is only told to others.
    """

    event: EventKind
    body: EventBody = NOTHING
    state: State | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    gives_back: bool = False


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """Everything the ledger knows about one task.

    Settled renewals are left out: a task that is held for hours has hundreds of them, and no decision depends on them.
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


@dataclass(frozen=True, slots=True)
class GrantAdmission:
    """What a grant was decided on, to be checked again where it begins.

    The ledger calls `judge` in the transaction that begins the grant. `judge` gets the loads as `Ledger.load` returns
    them, and the revisions of the parent's other children whose credentials may still be live. It raises to refuse the
    grant, and must not do anything slow.
    """

    task_id: str
    agent: str
    owner: str
    templates: Sequence[str]
    since: datetime
    parent: str | None
    judge: Callable[[Mapping[str, HeldLeases], Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class UntrackedCredentialRow:
    """A credential in Vault that no task explains.

    `task_id` is set where a task calls the credential dead. `line` is the audit line that shows how the credential was
    made, where there is one. `revoking` says that its revocation has begun: the row is not finished before the
    credential's end is confirmed.
    """

    lease_id: str
    kind: str
    path: str
    task_id: str | None
    issued_at: datetime | None
    expires_at: datetime | None
    line: str
    request_id: str
    first_seen_at: datetime
    verdict: Verdict
    revoking: bool
    checks: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding to record, unless its task, rule and message are recorded."""

    task_id: str | None
    rule: str
    message: str
    line: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """Who closes findings, why and when.

    `entity` is None where the token belongs to no entity of Vault; `name` is then how Vault displays the token.
    """

    name: str
    entity: str | None
    why: str
    at: datetime

    def columns(self) -> dict[str, Any]:
        """Return what the row of a closed finding says."""
        return {
            "closed_at": self.at,
            "closed_why": self.why[:500],
            "closed_by": self.name[:255],
            "closed_by_entity": self.entity,
        }


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding in the ledger.

    `id` is its number. `author` is the entity that wrote what it is about, `agent` that of its task. `more` is how many
    further findings the row stands for. `closed_by` is the name of whoever closed it, `closed_by_entity` their entity
    in Vault, None where their token belongs to no entity.
    """

    id: int
    task_id: str | None
    agent: str | None
    author: str | None
    rule: str
    message: str
    more: int
    at: datetime
    line: str | None
    request_id: str | None
    closed_at: datetime | None
    closed_why: str | None
    closed_by: str | None
    closed_by_entity: str | None


class Turn(Enum):
    """The result of trying to claim a task without waiting.

    OURS: this process holds the claim, or the ledger does not know the task. ANOTHERS: another worker holds the claim
    at this moment. OVER: another worker has already done everything that was wanted.
    """

    OURS = auto()
    ANOTHERS = auto()
    OVER = auto()


class GapKind(StrEnum):
    """Why a segment of an audit source does not continue the one before it.

    - `READ_FROM_START`: a recovery reads the source again from its beginning;
    - `LEDGER_REBUILT`: a recovery is over, and lines from before it were not checked when they were read;
    - `DEVICE_ANEW`: the audit device has another salt.
    """

    READ_FROM_START = auto()
    LEDGER_REBUILT = auto()
    DEVICE_ANEW = auto()
    OTHER = auto()
