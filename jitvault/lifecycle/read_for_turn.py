"""Read what is true of a task now, before its turn acts on it.

What has to end whatever the audit stream says is revoked here already: anyone who may write to Vault can make the
stream long, and a revocation must not wait until it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jitvault.audit.trail import AuditTrail
from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.end_reasons import why_end_blind
from jitvault.lifecycle.record.integrity import verify_again
from jitvault.lifecycle.record.lookups import gone_before
from jitvault.lifecycle.revocation.cascade import revoke_tree
from jitvault.lifecycle.revocation.revoke import is_replaced_token_unproven
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, State
from jitvault.stream.reading import observe
from jitvault.stream.tripwires import watch

_READ_FIRST_S = 1.0
"""How long the stream is read before the task is checked for reasons to end that need no evidence from the rest."""


def read_for_turn(
    worker: WorkerContext, task_id: str, claim: int, known: TaskRecord | None
) -> tuple[TaskRecord, Sequence[TripwireHit]]:
    """Read the stream and the task; return the task and the tripwires that its lines hit.

    `known` is the verified record of the turn before. The tripwires of a delivered task are left to its renewal, and
    those of one that ends to its proof: they may read the stream further. Raises AuditUntrusted where the stream cannot
    be read, after what has to end was revoked.
    """
    if known is not None and _needs_no_stream(worker, known):
        record = known
    else:
        record = _read_with_stream(worker, task_id, claim, known)
    if record.task.state in DELIVERED_STATES and worker.ledger.is_long(record):
        # an agent that made very many lines must not keep its access while they are read
        record = _revoke_if_ending(worker, record, claim)
    if record.task.state in BEFORE_GRANT | DELIVERED_STATES | {State.ENDING}:
        return record, ()
    return check_tripwires(worker, record)


def check_tripwires(
    worker: WorkerContext, record: TaskRecord, trail: AuditTrail | None = None
) -> tuple[TaskRecord, Sequence[TripwireHit]]:
    """Record the tripwires that the task's lines hit; return the task and them.

    `trail` has the lines, where the caller has read them.
    """
    trips = watch(worker, record, trail)
    if trips:
        # a hit is a finding, which is published with the task
        record = worker.ledger.refreshed(record)
    return record, trips


def revoke_without_stream(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Revoke what has to end, although the stream cannot be read.

    Without the stream nothing is issued and nothing is confirmed, but revocation goes on.
    """
    if record.task.state in DELIVERED_STATES or is_replaced_token_unproven(record):
        _revoke_if_ending(replace(worker, is_blind=True), record, claim)
    elif record.task.state is State.ENDING:
        revoke_tree(worker, record, claim)


def _needs_no_stream(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether this turn leaves the stream to its canary, or to a daemon's loops.

    Before the grant nothing depends on the stream, and the grant itself waits for a canary. A renewal waits until the
    stream was read up to the task's due time, and news was read by who brought it. What has ended is revoked by what is
    known of it, and its proof waits for a canary. Without a daemon the stream has to be read from as early on as
    possible: lines from before the first reading are never read.
    """
    if record.task.state is State.ENDING and len(gone_before(record)) == len(record.grants) + len(record.leases):
        return True
    states = BEFORE_GRANT | DELIVERED_STATES | {State.ENDING, State.CONFIRMED}
    return worker.mode.is_daemon and record.task.state in states


def _read_with_stream(worker: WorkerContext, task_id: str, claim: int, known: TaskRecord | None) -> TaskRecord:
    """Record what the stream says, and return the task as it is then."""
    is_delivered = known is not None and known.task.state in DELIVERED_STATES
    unread = _read_stream(worker, until=worker.clock.monotonic() + _READ_FIRST_S if is_delivered else None)
    record = verify_again(worker, task_id, known)
    if isinstance(unread, AuditLagging):
        if record.task.state in DELIVERED_STATES:
            _revoke_if_ending(replace(worker, is_blind=True), record, claim)
        unread = _read_stream(worker)
        record = verify_again(worker, task_id, record)
    if unread:
        revoke_without_stream(worker, record, claim)
        raise unread
    return record


def _read_stream(worker: WorkerContext, *, until: float | None = None) -> AuditUntrusted | None:
    """Record what the stream says; return why it could not be read, if so.

    AuditLagging says that the stream was not read to its end by `until` (monotonic clock).
    """
    try:
        observe(worker, until=until)
    except AuditUntrusted as error:
        return error
    return None


def _revoke_if_ending(worker: WorkerContext, record: TaskRecord, claim: int) -> TaskRecord:
    """Revoke a task that has to end whatever its lines say; return the task."""
    ending = why_end_blind(worker, record)
    return record if ending is None else revoke_tree(worker, record, claim, why=ending)
