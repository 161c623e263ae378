"""Renew a task's token and leases in small steps.

Each is renewed at half of its TTL, and never past the deadline. The caller has just checked that everything still
holds, on a trusted stream. Should the worker die, the token expires within one step, and Vault revokes its leases with
it.

A renewal makes no event. The latest time at which the token can expire is committed ahead, by one event for several
renewals (`RenewIntended`): a proof that the token expired rests on the chain alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    TargetUnavailable,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.formats.clocks import TOLERANCE
from jitvault.ledger.model import (
    Change,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    TaskRecord,
)
from jitvault.ledger.upkeep import Upkeep, record_after_upkeep
from jitvault.lifecycle.record.due_time import is_due_now
from jitvault.lifecycle.record.renewals import expiry_to_commit, latest_expiry, renewals_to_name
from jitvault.lifecycle.renewal.schedule import next_due_at, renewable_credentials
from jitvault.model.event_bodies import TOKEN_EXPIRED, EndCause, RenewIntended
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.ttl import increment, is_due, least, renew_at
from jitvault.operations import DONE, new_operation, record_answer


def renew_due(worker: WorkerContext, record: TaskRecord, claim: int) -> EndCause | None:
    """Renew what is due, and record when the task is due next.

    Returns why the task ends where its token has expired, None otherwise. Once every credential had its turn, raises
    the first error that kept Vault from answering. What was not renewed stays due.
    """
    due, seconds = due_credentials(worker, record, worker.now())
    if due and seconds:
        return _renew(worker, record, claim, due, seconds)
    look = next_due_at(worker, record)
    # a due time that is earlier than needed does no harm, and each change of it is a commit
    if look != record.task.due_at and is_due_now(worker, record):
        worker.ledger.keep_up(record, Upkeep(record.task.task_id, claim, fields={"due_at": look}))
    return None


def due_credentials(
    worker: WorkerContext, record: TaskRecord, now: datetime
) -> tuple[Sequence[GrantRow | LeaseRow], int]:
    """Return the credentials that are to be renewed now, and by how many seconds; 0 is not at all."""
    grant, ends_at = record.grants[-1], record.task.ends_at
    # a step is never longer than this worker's, whatever the row says
    step_s = least(grant.step_s, worker.rolling_step // timedelta(seconds=1))
    longest = timedelta(seconds=grant.step_s)
    due = [row for row in renewable_credentials(record) if is_due(row.renew_at, now, longest)]
    return due, increment(now, ends_at, step_s) if ends_at else 0


def new_operations(
    worker: WorkerContext, record: TaskRecord, due: Sequence[GrantRow | LeaseRow]
) -> tuple[OperationRow, ...]:
    """Return an intended operation for each renewal; the caller commits them before the first is sent."""
    kinds = {GrantRow: OperationKind.RENEW_TOKEN, LeaseRow: OperationKind.RENEW_LEASE}
    return tuple(new_operation(worker, kinds[type(row)], _subject(row), task_id=record.task.task_id) for row in due)


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of one renewal.

    `over` says that Vault has no such credential. An answer that was lost is no failure where a look-up says the rest.
    """

    row: GrantRow | LeaseRow
    op: OperationRow
    over: bool = False
    failure: JitvaultError | None = None
    is_answered: bool = True


def renew_credential(
    worker: WorkerContext, record: TaskRecord, row: GrantRow | LeaseRow, op: OperationRow, seconds: int
) -> Renewed:
    """Send a renewal whose intent is committed, and return what became of it."""
    if isinstance(row, GrantRow):
        return _renew_token(worker, record, row, op, seconds)
    return _renew_lease(worker, record, row, op, seconds)


def _renew(
    worker: WorkerContext, record: TaskRecord, claim: int, due: Sequence[GrantRow | LeaseRow], seconds: int
) -> EndCause | None:
    """Commit all intents, renew one after the other, and commit the results."""
    ops = new_operations(worker, record, due)
    record = _commit_intents(worker, record, claim, ops, seconds)
    done: list[Renewed] = []
    for row, op in zip(due, ops, strict=True):
        if worker.is_late() and isinstance(row, LeaseRow):
            done.append(Renewed(row, record_answer(worker, op, OpState.ABANDONED, "the time was over before its turn")))
        else:
            done.append(renew_credential(worker, record, row, op, seconds))
    _commit_results(worker, record, claim, done, seconds)
    if any(result.over for result in done if isinstance(result.row, GrantRow)):
        return TOKEN_EXPIRED
    for result in done:
        if result.failure is not None:
            raise result.failure
    return None


def _commit_intents(
    worker: WorkerContext, record: TaskRecord, claim: int, ops: tuple[OperationRow, ...], seconds: int
) -> TaskRecord:
    """Commit that these renewals are sent; return the task."""
    if not outlives_chain(worker, record, ops, seconds):
        return worker.ledger.keep_up(record, Upkeep(record.task.task_id, claim, ops))
    return worker.ledger.change(record, expiry_change(worker, record, ops, seconds), claim=claim, at=worker.now())


def outlives_chain(worker: WorkerContext, record: TaskRecord, ops: tuple[OperationRow, ...], seconds: int) -> bool:
    """Return whether the token can live for longer by these renewals than the event chain says."""
    expires_at = record.grants[-1].expires_at
    renews_token = any(op.kind == OperationKind.RENEW_TOKEN for op in ops)
    return renews_token and (expires_at is None or expires_at < latest_expiry(worker, seconds))


def expiry_change(worker: WorkerContext, record: TaskRecord, ops: tuple[OperationRow, ...], seconds: int) -> Change:
    """Return the event that commits the next latest expiry ahead, with the intents of these renewals.

    It comes before the first of them is sent.
    """
    latest, grant = latest_expiry(worker, seconds), record.grants[-1]
    until = max(latest, expiry_to_commit(worker, record.task.ends_at or latest, grant.step_s))
    body = RenewIntended(until=until, renewals=renewals_to_name(worker, record))
    return Change(EventKind.RENEW_INTENDED, body, rows=(replace(grant, expires_at=until), *ops))


def _renew_token(worker: WorkerContext, record: TaskRecord, grant: GrantRow, op: OperationRow, seconds: int) -> Renewed:
    """Renew the token by its accessor, unwrapped or not.

    The answer has the life that Vault gave. Without one the token is looked up.
    """
    accessor = grant.wrapped_accessor or ""
    sent = worker.now()
    ends_at = record.task.ends_at or sent
    try:
        # never more than was asked for, whatever answers
        given = min(seconds, worker.tokens.renew_accessor(accessor, seconds, op=op.op_id))
        renewed = replace(grant, renew_at=renew_at(sent, given, ends_at))
        return Renewed(renewed, record_answer(worker, op, OpState.ANSWERED, DONE))
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        answered = record_answer(worker, op, OpState.ABANDONED, error)
    except (VaultRefused, VaultUnavailable) as error:
        return Renewed(grant, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    try:
        facts = worker.tokens.lookup_accessor(accessor)
    except (OutcomeUnknown, VaultRefused, VaultUnavailable) as error:
        return Renewed(grant, answered, failure=error)
    if facts is None:
        return Renewed(grant, _settled(answered), over=True)
    return Renewed(replace(grant, renew_at=renew_at(sent, facts.ttl_s, ends_at)), _settled(answered))


def _renew_lease(worker: WorkerContext, record: TaskRecord, lease: LeaseRow, op: OperationRow, seconds: int) -> Renewed:
    """Renew a lease by its id.

    A lease that Vault does not have any more, or cannot renew, is left alone: it ends with its token at the latest.
    """
    sent, is_answered = worker.now(), True
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
            return Renewed(lease, answered, failure=error, is_answered=False)
        answered, is_answered = _settled(answered), False
        if in_vault and in_vault.ttl_s > seconds:
            # the renewal was not done: the lease still has more than a step
            return Renewed(lease, answered, is_answered=False)
        given = in_vault.ttl_s if in_vault and in_vault.renewable else None
    except VaultRejected as error:
        # the backend failed, which says nothing about the worker's own access
        failure = TargetUnavailable(f"Vault could not renew a lease: {error}")
        return Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=failure)
    except (VaultRefused, VaultUnavailable) as error:
        return Renewed(lease, record_answer(worker, op, OpState.ABANDONED, error), failure=error)
    again = renew_at(sent, given, record.task.ends_at or sent) if given else None
    return Renewed(replace(lease, renew_at=again), answered, is_answered=is_answered)


def _settled(op: OperationRow) -> OperationRow:
    """Return the operation as settled where its answer was lost and looked up."""
    return replace(op, state=OpState.SETTLED, answer="looked up") if op.state is OpState.UNKNOWN else op


def _commit_results(
    worker: WorkerContext, record: TaskRecord, claim: int, done: Sequence[Renewed], seconds: int
) -> None:
    """Commit the results of all renewals, and when the task is due next.

    A token that lives until the deadline now gets no further renewal. The chain then says what its answer says, so that
    the proof of its expiry has to wait no longer than that.
    """
    task_id = record.task.task_id
    rows = tuple(row for result in done for row in (result.row, result.op))
    due_at = next_due_at(worker, record_after_upkeep(record, Upkeep(task_id, claim, rows)))
    if not any(_reaches_deadline(result) for result in done):
        worker.ledger.keep_up(record, Upkeep(task_id, claim, rows, {"due_at": due_at}))
        return
    until = worker.now() + timedelta(seconds=seconds) + TOLERANCE
    body = RenewIntended(until=until, renewals=renewals_to_name(worker, record))
    others = tuple(row for row in rows if not isinstance(row, GrantRow))
    grant = replace(record.grants[-1], expires_at=until, renew_at=None)
    change = Change(EventKind.RENEW_INTENDED, body, fields={"due_at": due_at}, rows=(grant, *others))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _reaches_deadline(result: Renewed) -> bool:
    return isinstance(result.row, GrantRow) and result.op.state is OpState.ANSWERED and result.row.renew_at is None


def _subject(row: GrantRow | LeaseRow) -> str:
    return row.lease_id if isinstance(row, LeaseRow) else row.accessor_hmac or ""
