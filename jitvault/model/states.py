"""The states of a task, the verdicts of a credential, and their moves.

    pending_approval → approved → issuing → issued → active → ending → confirmed → sealed
    beside them: denied, cancelled, lapsed (it was not granted in time), and unverified
    (an operator closed what could not be proven)

`issuing → ending` is a grant that could not be delivered. `confirmed → ending` is a late lease, or a proof that
does not hold any more. `confirmed → unverified` is an operator's statement about a task that cannot be sealed.
`issued → issuing` and `active → issuing` are an extension past the cap of the token: that token is revoked and
replaced by another one.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from jitvault.errors import WrongState
from jitvault.model.kinds import EventKind


class State(StrEnum):
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    ISSUING = "issuing"
    ISSUED = "issued"
    ACTIVE = "active"
    ENDING = "ending"
    CONFIRMED = "confirmed"
    SEALED = "sealed"
    UNVERIFIED = "unverified"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


class EndReason(StrEnum):
    """Why a task ended. Every reason needs the same proof."""

    COMPLETED = "completed"
    DEADLINE = "deadline"
    EXPIRED = "expired"
    UNCLAIMED = "unclaimed"
    INTERCEPTED = "intercepted"
    ISSUE_FAILED = "issue_failed"
    POLICY = "policy"
    HEARTBEAT = "heartbeat"
    FROZEN = "frozen"
    TRIPWIRE = "tripwire"
    OPERATOR = "operator"
    PARENT = "parent"
    DRIFT = "drift"


class Verdict(StrEnum):
    """What is known about one lease or token.

    The first six values are a ladder, the others stand beside it.
    """

    LIVE = "live"
    REVOKE_REQUESTED = "revoke_requested"
    ACKNOWLEDGED = "acknowledged"
    GONE = "gone"
    AUDIT_CONFIRMED = "audit_confirmed"
    TARGET_CONFIRMED = "target_confirmed"
    REVOKE_FAILED = "revoke_failed"
    IRREVOCABLE = "irrevocable"
    EXPIRED = "expired"
    NEVER_ISSUED = "never_issued"
    UNVERIFIABLE = "unverifiable"


DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})
"""The verdicts of a credential that was proven dead, or was never issued."""

START: frozenset[State] = frozenset({State.PENDING_APPROVAL, State.APPROVED, State.DENIED})
"""A task begins in the state of its first decision."""

EDGES: MappingProxyType[State, frozenset[State]] = MappingProxyType(
    {
        State.PENDING_APPROVAL: frozenset({State.APPROVED, State.DENIED, State.CANCELLED, State.LAPSED}),
        # back to pending: a new revision, or an approval that expired or was withdrawn
        State.APPROVED: frozenset({State.ISSUING, State.PENDING_APPROVAL, State.DENIED, State.CANCELLED, State.LAPSED}),
        State.ISSUING: frozenset({State.ISSUED, State.ENDING}),
        State.ISSUED: frozenset({State.ACTIVE, State.ENDING, State.ISSUING}),
        State.ACTIVE: frozenset({State.ENDING, State.ISSUING}),
        State.ENDING: frozenset({State.CONFIRMED, State.UNVERIFIED}),
        State.CONFIRMED: frozenset({State.SEALED, State.ENDING, State.UNVERIFIED}),
        # a denied or lapsed task may be revised, and one that policy denied lapses; a cancelled or sealed task is final
        State.DENIED: frozenset({State.PENDING_APPROVAL, State.APPROVED, State.LAPSED}),
        State.LAPSED: frozenset({State.PENDING_APPROVAL, State.APPROVED, State.DENIED}),
        State.CANCELLED: frozenset(),
        State.SEALED: frozenset(),
        State.UNVERIFIED: frozenset(),
    }
)

BEFORE_GRANT = frozenset({State.PENDING_APPROVAL, State.APPROVED, State.DENIED, State.LAPSED})
WAITING = frozenset({State.PENDING_APPROVAL, State.APPROVED})
LIVE_STATES = frozenset({State.ISSUING, State.ISSUED, State.ACTIVE})
"""States in which a live credential may exist and no revocation was requested."""
LIVING = LIVE_STATES | {State.ENDING}
"""States in which a task may have a credential that is not proven dead."""
DELIVERED_STATES = frozenset({State.ISSUED, State.ACTIVE})
"""Live states whose token was delivered: whatever may end the task is looked for."""
PROVEN = frozenset({State.CONFIRMED, State.SEALED})
ENDED = frozenset({State.ENDING, State.UNVERIFIED}) | PROVEN
UNSEALED = LIVE_STATES | ENDED - {State.SEALED}
"""States of a task that had access and is not sealed."""
_FINAL = frozenset({State.SEALED, State.UNVERIFIED, State.CANCELLED})
OVER = frozenset({State.SEALED, State.UNVERIFIED, State.CANCELLED, State.DENIED, State.LAPSED})


REOPENING_EVENTS = frozenset({EventKind.UNPROVEN, EventKind.LATE_LEASE})
"""The events that reopen a task: all its credentials are looked up and revoked again."""
RECOVERED_TO: frozenset[State] = frozenset({State.ENDING, State.SEALED, State.UNVERIFIED, State.CANCELLED})


def check_move(task_id: str, before: State | None, after: State, event: str = "") -> None:
    """Raise WrongState for a move that the table does not have.

    Staying in place is no move and is allowed.
    """
    if before == after:
        return
    allowed = START if before is None else EDGES[before]
    if event == EventKind.RECOVERED:
        allowed = RECOVERED_TO if before not in _FINAL else frozenset()
    if after not in allowed:
        raise WrongState(f"task {task_id} cannot go from {before or 'nothing'} to {after}")
