"""Keep a task alive in small steps: what has had half of its life is renewed, and never past the deadline.

The caller has just seen that everything still holds, on a stream that it trusts. Should this process die, the token is
over within one step, and Vault ends its leases with it.
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
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import (
    Change,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    Row,
    TaskRecord,
)
from jitvault.lifecycle.renewal.schedule import is_due_now, next_due_at, renewable_credentials
from jitvault.lifecycle.revocation.revoke import EndCause
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import EndReason
from jitvault.model.ttl import increment, is_due, least, renew_at
from jitvault.operations import DONE, new_operation, record_answer

TOKEN_EXPIRED: EndCause = (EndReason.EXPIRED, {"note": "its token was over before it was renewed"})


def renew_due(worker: WorkerContext, file: TaskRecord, claim: int) -> EndCause | None:
    """Renew what is due and note when the task has to be looked at next. Gives why it ends when its token is over.

    Raises, once everything had its turn, the first thing that kept Vault from answering. What was not renewed is due
    again.
    """
    now, ends_at = worker.now(), file.task.ends_at
    # no longer at a time than this worker gives, whatever stands in the row
    step_s = least(file.grants[-1].step_s, worker.rolling_step // timedelta(seconds=1))
    due = [
        row
        for row in renewable_credentials(file)
        if is_due(row.renew_at, now, timedelta(seconds=file.grants[-1].step_s))
    ]
    seconds = increment(now, ends_at, step_s) if ends_at else 0
    if due and seconds:
        return _renew(worker, file, claim, due, seconds)
    look = next_due_at(worker, file)
    # an earlier look than the one that is noted does no harm, and each note is an event
    if look != file.task.due_at and is_due_now(worker, file):
        change = Change(EventKind.KEPT, fields={"due_at": look})
        worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())
    return None


@dataclass(frozen=True, slots=True)
class _Renewed:
    """What came of one renewal. `over`: Vault has no such credential any more."""

    row: GrantRow | LeaseRow
    op: OperationRow
    over: bool = False
    failure: JitvaultError | None = None


def _renew(
    worker: WorkerContext, file: TaskRecord, claim: int, due: Sequence[GrantRow | LeaseRow], seconds: int
) -> EndCause | None:
    """Commit all intents, renew one after the other, commit what came of it."""
    task_id = file.task.task_id
    kinds = {GrantRow: OperationKind.RENEW_TOKEN, LeaseRow: OperationKind.RENEW_LEASE}
    ops = [new_operation(worker, kinds[type(row)], _subject(row), task_id=task_id) for row in due]
    grants = [_at_most(worker, row, seconds) for row in due if isinstance(row, GrantRow)]
    told = {"ops": [op.op_id for op in ops], "subjects": [op.subject for op in ops], "seconds": seconds}
    change = Change(EventKind.RENEW_INTENDED, {**told, **_dated(grants)}, rows=(*grants, *ops))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    done: list[_Renewed] = []
    for row, op in zip(due, ops, strict=True):
        if worker.is_late() and isinstance(row, LeaseRow):
            done.append(
                _Renewed(row, record_answer(worker, op, OpState.ABANDONED, "the time was over before its turn"))
            )
        elif isinstance(row, GrantRow):
            done.append(_renew_token(worker, file, row, op, seconds))
        else:
            done.append(_renew_lease(worker, file, row, op, seconds))
    _commit(worker, file, claim, done)
    if any(one.over for one in done if isinstance(one.row, GrantRow)):
        return TOKEN_EXPIRED
    for one in done:
        if one.failure is not None:
            raise one.failure
    return None


def _renew_token(worker: WorkerContext, file: TaskRecord, grant: GrantRow, op: OperationRow, seconds: int) -> _Renewed:
    """By accessor, unwrapped or not. What it has then is looked up, also where the answer was lost."""
    accessor, sent = grant.wrapped_accessor or "", worker.now()
    try:
        worker.tokens.renew_accessor(accessor, seconds, op=op.op_id)
        answered = record_answer(worker, op, OpState.ANSWERED, DONE)
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        answered = record_answer(worker, op, OpState.ABANDONED, error)
    except (VaultRefused, VaultUnavailable) as error:
        return _Renewed(grant, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    try:
        facts = worker.tokens.lookup_accessor(accessor)
    except (OutcomeUnknown, VaultRefused, VaultUnavailable) as error:
        return _Renewed(_at_most(worker, grant, seconds), answered, failure=error)
    if facts is None:
        return _Renewed(grant, _settled(answered), over=True)
    again = renew_at(sent, facts.ttl_s, file.task.ends_at or sent)
    return _Renewed(replace(grant, expires_at=facts.expires_at, renew_at=again), _settled(answered))


def _renew_lease(worker: WorkerContext, file: TaskRecord, lease: LeaseRow, op: OperationRow, seconds: int) -> _Renewed:
    """By its id. What Vault does not have any more, or cannot renew, is left alone: its token's end is its end."""
    sent = worker.now()
    try:
        given = worker.leases.renew(lease.lease_id, seconds, op=op.op_id)
        answered = record_answer(
            worker, op, OpState.ANSWERED if given else OpState.ABANDONED, DONE if given else "not renewable"
        )
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
        try:
            record = worker.leases.lookup(lease.lease_id)
        except (OutcomeUnknown, VaultRefused, VaultUnavailable):
            return _Renewed(lease, answered, failure=error)
        answered = _settled(answered)
        if record and record.ttl_s > seconds:
            # not done: it has longer than a step still
            return _Renewed(lease, answered)
        given = record.ttl_s if record and record.renewable else None
    except VaultRejected as error:
        # the backend failed: that is nothing about who asked
        failure = TargetUnavailable(f"Vault could not renew a lease: {error}")
        return _Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=failure)
    except (VaultRefused, VaultUnavailable) as error:
        return _Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    again = renew_at(sent, given, file.task.ends_at or sent) if given else None
    return _Renewed(replace(lease, renew_at=again), answered)


def _settled(op: OperationRow) -> OperationRow:
    """A renewal whose answer was lost: what became of it was looked up."""
    return replace(op, state=OpState.SETTLED, answer="looked up") if op.state is OpState.UNKNOWN else op


def _commit(worker: WorkerContext, file: TaskRecord, claim: int, done: Sequence[_Renewed]) -> None:
    new = {_subject(one.row): one.row for one in done}
    grants = [row for row in new.values() if isinstance(row, GrantRow)]
    leases = tuple(row for lease in file.leases if isinstance(row := new.get(lease.lease_id, lease), LeaseRow))
    look = next_due_at(worker, replace(file, grants=(*file.grants[:-1], *(grants or file.grants[-1:])), leases=leases))
    body = {"answers": {one.op.op_id: one.op.answer for one in done}, **_dated(grants)}
    rows: list[Row] = [row for one in done for row in (one.row, one.op)]
    change = Change(EventKind.RENEWED, body, fields={"due_at": look}, rows=rows)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _at_most(worker: WorkerContext, grant: GrantRow, seconds: int) -> GrantRow:
    """The grant with the latest end that a renewal sent now can give it, by any clock: for when nobody sees its answer.

    It is what a proof of its end without a revocation rests on.
    """
    latest = worker.now() + timedelta(seconds=seconds) + worker.settle_window + MAX_SKEW
    return replace(grant, expires_at=max(latest, grant.expires_at or latest))


def _dated(grants: Sequence[GrantRow]) -> dict[str, object]:
    """What the chain says of a token's end, so that nobody can change it without a trace."""
    dated = [(grant.grant_id, grant.expires_at) for grant in grants]
    return {"grant": dated[0][0], "expires_at": dated[0][1].isoformat()} if dated and dated[0][1] else {}


def _subject(row: GrantRow | LeaseRow) -> str:
    return row.lease_id if isinstance(row, LeaseRow) else row.accessor_hmac or ""
