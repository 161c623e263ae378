"""Renew a task's token and leases in small steps.

Each is renewed at half of its TTL, and never past the deadline. The caller has just checked that everything still
holds, on a trusted stream. Should the worker die, the token expires within one step, and Vault revokes its leases with
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    TargetUnavailable,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.formats.clocks import MAX_SKEW, TOLERANCE
from jitvault.ledger.model import (
    Change,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    Row,
    TaskRecord,
)
from jitvault.lifecycle.record.due_time import is_due_now
from jitvault.lifecycle.renewal.schedule import next_due_at, renewable_credentials
from jitvault.model.event_bodies import TOKEN_EXPIRED, EndCause, Renewed, RenewIntended
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.ttl import increment, is_due, least, renew_at
from jitvault.operations import DONE, new_operation, record_answer


def renew_due(worker: WorkerContext, record: TaskRecord, claim: int) -> EndCause | None:
    """Renew what is due, and record when the task is due next.

    Returns why the task ends where its token has expired, None otherwise. Once every credential had its turn, raises
    the first error that kept Vault from answering. What was not renewed stays due.
    """
    now = worker.now()
    ends_at = record.task.ends_at
    # a step is never longer than this worker's, whatever the row says
    step_s = least(record.grants[-1].step_s, worker.rolling_step // timedelta(seconds=1))
    due = [
        row
        for row in renewable_credentials(record)
        if is_due(row.renew_at, now, timedelta(seconds=record.grants[-1].step_s))
    ]
    seconds = increment(now, ends_at, step_s) if ends_at else 0
    if due and seconds:
        return _renew(worker, record, claim, due, seconds)
    look = next_due_at(worker, record)
    # a due time that is earlier than needed does no harm, and each change of it is an event in the chain
    if look != record.task.due_at and is_due_now(worker, record):
        change = Change(EventKind.KEPT, fields={"due_at": look})
        worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())
    return None


@dataclass(frozen=True, slots=True)
class _Renewed:
    """The result of one renewal.

    `over` says that Vault has no such credential.
    """

    row: GrantRow | LeaseRow
    op: OperationRow
    over: bool = False
    failure: JitvaultError | None = None


def _renew(
    worker: WorkerContext, record: TaskRecord, claim: int, due: Sequence[GrantRow | LeaseRow], seconds: int
) -> EndCause | None:
    """Commit all intents, renew one after the other, and commit the results."""
    task_id = record.task.task_id
    kinds = {GrantRow: OperationKind.RENEW_TOKEN, LeaseRow: OperationKind.RENEW_LEASE}
    ops = [new_operation(worker, kinds[type(row)], _subject(row), task_id=task_id) for row in due]
    grants = [_with_latest_expiry(worker, row, seconds) for row in due if isinstance(row, GrantRow)]
    change = Change(EventKind.RENEW_INTENDED, RenewIntended(seconds=seconds), rows=(*grants, *ops))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    done: list[_Renewed] = []
    for row, op in zip(due, ops, strict=True):
        if worker.is_late() and isinstance(row, LeaseRow):
            done.append(
                _Renewed(row, record_answer(worker, op, OpState.ABANDONED, "the time was over before its turn"))
            )
        elif isinstance(row, GrantRow):
            done.append(_renew_token(worker, record, row, op, seconds))
        else:
            done.append(_renew_lease(worker, record, row, op, seconds))
    _commit(worker, record, claim, done)
    if any(result.over for result in done if isinstance(result.row, GrantRow)):
        return TOKEN_EXPIRED
    for result in done:
        if result.failure is not None:
            raise result.failure
    return None


def _renew_token(
    worker: WorkerContext, record: TaskRecord, grant: GrantRow, op: OperationRow, seconds: int
) -> _Renewed:
    """Renew the token by its accessor, unwrapped or not.

    The answer has the life that Vault gave. Without one the token is looked up.
    """
    accessor = grant.wrapped_accessor or ""
    sent = worker.now()
    ends_at = record.task.ends_at or sent
    latest = _with_latest_expiry(worker, grant, seconds)
    try:
        # never more than was asked for, whatever answers
        given = min(seconds, worker.tokens.renew_accessor(accessor, seconds, op=op.op_id))
        # for a proof the longest that was asked for counts: a gateway can answer with what Vault said before
        until = worker.now() + timedelta(seconds=seconds) + TOLERANCE
        renewed = replace(grant, expires_at=until, renew_at=renew_at(sent, given, ends_at))
        return _Renewed(renewed, record_answer(worker, op, OpState.ANSWERED, DONE))
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        answered = record_answer(worker, op, OpState.ABANDONED, error)
    except (VaultRefused, VaultUnavailable) as error:
        # what stands between here and Vault can refuse what Vault did
        return _Renewed(latest, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    try:
        facts = worker.tokens.lookup_accessor(accessor)
    except (OutcomeUnknown, VaultRefused, VaultUnavailable) as error:
        return _Renewed(latest, answered, failure=error)
    if facts is None:
        return _Renewed(grant, _settled(answered), over=True)
    # the renewal may still be on its way, and be done after the look-up
    return _Renewed(replace(latest, renew_at=renew_at(sent, facts.ttl_s, ends_at)), _settled(answered))


def _renew_lease(
    worker: WorkerContext, record: TaskRecord, lease: LeaseRow, op: OperationRow, seconds: int
) -> _Renewed:
    """Renew a lease by its id.

    A lease that Vault does not have any more, or cannot renew, is left alone: it ends with its token at the latest.
    """
    sent = worker.now()
    try:
        given = worker.leases.renew(lease.lease_id, seconds, op=op.op_id)
        answered = record_answer(
            worker, op, OpState.ANSWERED if given else OpState.ABANDONED, DONE if given else "not renewable"
        )
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
        try:
            in_vault = worker.leases.lookup(lease.lease_id)
        except (OutcomeUnknown, VaultRefused, VaultUnavailable):
            return _Renewed(lease, answered, failure=error)
        answered = _settled(answered)
        if in_vault and in_vault.ttl_s > seconds:
            # the renewal was not done: the lease still has more than a step
            return _Renewed(lease, answered)
        given = in_vault.ttl_s if in_vault and in_vault.renewable else None
    except VaultRejected as error:
        # the backend failed, which says nothing about the worker's own access
        failure = TargetUnavailable(f"Vault could not renew a lease: {error}")
        return _Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=failure)
    except (VaultRefused, VaultUnavailable) as error:
        return _Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    again = renew_at(sent, given, record.task.ends_at or sent) if given else None
    return _Renewed(replace(lease, renew_at=again), answered)


def _settled(op: OperationRow) -> OperationRow:
    """Return the operation as settled where its answer was lost and looked up."""
    return replace(op, state=OpState.SETTLED, answer="looked up") if op.state is OpState.UNKNOWN else op


def _commit(worker: WorkerContext, record: TaskRecord, claim: int, done: Sequence[_Renewed]) -> None:
    """Commit the results of all renewals, and when the task is due next."""
    renewed_grants = [result.row for result in done if isinstance(result.row, GrantRow)]
    renewed_leases = {result.row.lease_id: result.row for result in done if isinstance(result.row, LeaseRow)}
    grants = (*record.grants[:-1], *(renewed_grants or record.grants[-1:]))
    leases = tuple(renewed_leases.get(lease.lease_id, lease) for lease in record.leases)
    due_at = next_due_at(worker, replace(record, grants=grants, leases=leases))
    body = Renewed(answers={result.op.op_id: result.op.answer for result in done})
    rows: list[Row] = []
    for result in done:
        rows += [result.row, result.op]
    change = Change(EventKind.RENEWED, body, fields={"due_at": due_at}, rows=rows)
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())


def _with_latest_expiry(worker: WorkerContext, grant: GrantRow, seconds: int) -> GrantRow:
    """Return the grant with the latest expiry that a renewal can give it.

    The renewal is sent now. The expiry is the latest by any clock, for the case that the answer is lost. A proof that
    the token is dead without a revocation rests on it.
    """
    latest = worker.now() + timedelta(seconds=seconds) + worker.settle_window + MAX_SKEW
    return replace(grant, expires_at=max(latest, grant.expires_at or latest))


def _subject(row: GrantRow | LeaseRow) -> str:
    return row.lease_id if isinstance(row, LeaseRow) else row.accessor_hmac or ""
