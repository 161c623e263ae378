"""The ledger: its rows as values, and the operations that the services need.

One function changes a task (`apply`); everything it writes is in one `Change`, decided before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import Any

from jitvault.audit.observation import Observation
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.states import EndReason, State, Verdict
from jitvault.policy.question import HeldLeases


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


@dataclass(frozen=True, slots=True)
class GrantAdmission:
    """What a grant has been decided on and has to be so still in the very transaction that begins it.

    `judge` gets the loads as `Admission.load` gives them and the revisions of those of the parent's children, besides
    this task, of which something may be alive. It raises to refuse, and does nothing else that takes time.
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
    """A credential in Vault that no task explains. `task_id` is set where a task calls it dead.

    `line` is the audit line that shows how it was made, where there is one. `revoking` says that we have begun to end
    it: it is not finished before its end is proven.
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
    """What is told once: a finding with the same task, rule and message is not kept again."""

    task_id: str | None
    rule: str
    message: str
    line: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """The closing line of an issue, and Vault's time of its request line."""

    line: Observation
    since: datetime


PAST = "read from its beginning when the ledger was rebuilt: nobody looked for canaries in it before"


REBUILT = "the ledger was rebuilt: what stands before was not read under trust"


class Turn(Enum):
    """Whose turn a task is: ours now, another's at this moment, or nobody's, since another has had it."""

    OURS = auto()
    ANOTHERS = auto()
    OVER = auto()
