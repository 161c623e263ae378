"""Look-ups of credentials: the recorded answers, and asking Vault again.

The checks look for the audit lines of the recorded look-ups in the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail
from jitvault.context import WorkerContext
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.model.kinds import LookupAnswer, OperationKind
from jitvault.model.states import DEAD, Verdict

BACK = "Vault has again what was proven dead"

_KINDS = (OperationKind.LOOKUP_TOKEN, OperationKind.LOOKUP_LEASE)


def proven_before(record: TaskRecord) -> list[GrantRow | LeaseRow]:
    """Return the credentials of the task that count as proven dead.

    Neither Vault nor a target was asked about them since.
    """
    rows: tuple[GrantRow | LeaseRow, ...] = (*record.grants, *record.leases)
    return [row for row in rows if row.verdict in DEAD]


def gone_before(record: TaskRecord) -> list[GrantRow | LeaseRow]:
    """Return the credentials of the task that were gone when Vault was asked about them last."""
    rows: tuple[GrantRow | LeaseRow, ...] = (*record.grants, *record.leases)
    return [row for row in rows if row.verdict in DEAD | {Verdict.GONE}]


def is_any_live(worker: WorkerContext, credentials: Iterable[GrantRow | LeaseRow]) -> bool:
    """Return whether Vault has one of the credentials at this moment.

    A Vault that was restored has credentials again that were revoked. A grant that was never issued belongs to no one:
    a token that comes back of it is an untracked credential, which a sweep revokes.
    """
    # each is looked up, without a short cut: one that was not seen alive after a restore cannot be proven dead after it
    live = [_is_live(worker, row) for row in credentials]
    return any(live)


def _is_live(worker: WorkerContext, row: GrantRow | LeaseRow) -> bool:
    """Return whether Vault has the credential at this moment."""
    if isinstance(row, LeaseRow):
        return worker.leases.lookup(row.lease_id, revoked=True) is not None
    if row.verdict is Verdict.NEVER_ISSUED:
        return False
    if row.wrapped_accessor:
        return worker.tokens.lookup_accessor(row.wrapped_accessor) is not None
    # the accessor of such a token was lost in a crash
    return bool(row.token_lease) and worker.leases.lookup(row.token_lease or "", revoked=True) is not None


def gone_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """Return the ids of look-ups of `subject` that did not find it."""
    return _lookups(operations, subject, LookupAnswer.GONE)


def live_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """Return the ids of look-ups of `subject` that found it alive."""
    return _lookups(operations, subject, LookupAnswer.LIVE)


def shown_hmac(record: TaskRecord, lease: LeaseRow, trail: AuditTrail) -> str:
    """Return the HMAC of a lease's id that the lines of the worker's own look-ups of it show.

    The result is empty where they show none, or several: then somebody used the id of a look-up for another one, or the
    device was made anew.
    """
    ops = gone_lookups(record.operations, lease.lease_id) | live_lookups(record.operations, lease.lease_id)
    own = (o for o in trail.observations if o.op in ops and o.actor in trail.worker_accessors)
    shown = {o.subject for o in own if o.kind is Kind.LEASE_LOOKUP}
    return shown.pop() if len(shown) == 1 else ""


def last_found(operations: Sequence[OperationRow], subject: str) -> LookupAnswer | None:
    """Return what the newest look-up of `subject` found.

    The result is None where Vault did not answer the look-up, or there was none.
    """
    lookups = (op for op in operations if op.kind in _KINDS and op.subject == subject)
    newest = max(lookups, key=lambda op: op.sent_at, default=None)
    return LookupAnswer.of(newest.answer) if newest else None


def _lookups(operations: Sequence[OperationRow], subject: str, answer: LookupAnswer) -> frozenset[str]:
    return frozenset(
        op.op_id for op in operations if op.kind in _KINDS and op.subject == subject and op.answer == answer
    )
