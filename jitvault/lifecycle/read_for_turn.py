"""Read what is true of a task now, before its turn acts on it.

What has to end whatever the audit stream says is revoked here already: anyone who may write to Vault can make the
stream long, and a revocation must not wait until it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.end_reasons import why_end_blind
from jitvault.lifecycle.record.integrity import verify_again
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

    `known` is the verified record of the turn before. The tripwires of a delivered task are left to its renewal, which
    may read the stream further. Raises AuditUntrusted where the stream cannot be read, after what has to end was
    revoked.
    """
    if known is not None and _needs_no_stream(worker, known):
        file = known
    else:
        file = _read_with_stream(worker, task_id, claim, known)
    if file.task.state in DELIVERED_STATES and worker.ledger.is_long(file):
        # an agent that made very many lines must not keep its access while they are read
        file = _revoke_if_ending(worker, file, claim)
    if file.task.state in BEFORE_GRANT | DELIVERED_STATES:
        return file, ()
    return check_tripwires(worker, file)


def check_tripwires(worker: WorkerContext, file: TaskRecord) -> tuple[TaskRecord, Sequence[TripwireHit]]:
    """Record the tripwires that the task's lines hit; return the task and them."""
    trips = watch(worker, file)
    if trips:
        # a hit is a finding, which is published with the task
        file = worker.ledger.refreshed(file)
    return file, trips


def revoke_without_stream(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Revoke what has to end, although the stream cannot be read.

    Without the stream nothing is issued and nothing is confirmed, but revocation goes on.
    """
    if file.task.state in DELIVERED_STATES or is_replaced_token_unproven(file):
        _revoke_if_ending(replace(worker, is_blind=True), file, claim)
    elif file.task.state is State.ENDING:
        revoke_tree(worker, file, claim)


def _needs_no_stream(worker: WorkerContext, file: TaskRecord) -> bool:
    """Return whether this turn of a worker daemon leaves the stream to the daemon's loops.

    Before the grant nothing depends on the stream, and the grant itself waits for a canary. A scheduled renewal waits
    until the stream was read up to the task's due time. Without a daemon the stream has to be read from as early on as
    possible: lines from before the first reading are never read.
    """
    if not worker.mode.is_daemon:
        return False
    is_renewal = worker.mode.cache is not None and file.task.state in DELIVERED_STATES
    return is_renewal or file.task.state in BEFORE_GRANT


def _read_with_stream(worker: WorkerContext, task_id: str, claim: int, known: TaskRecord | None) -> TaskRecord:
    """Record what the stream says, and return the task as it is then."""
    is_delivered = known is not None and known.task.state in DELIVERED_STATES
    unread = _read_stream(worker, until=worker.clock.monotonic() + _READ_FIRST_S if is_delivered else None)
    file = verify_again(worker, task_id, known)
    if isinstance(unread, AuditLagging):
        if file.task.state in DELIVERED_STATES:
            _revoke_if_ending(replace(worker, is_blind=True), file, claim)
        unread = _read_stream(worker)
        file = verify_again(worker, task_id, file)
    if unread:
        revoke_without_stream(worker, file, claim)
        raise unread
    return file


def _read_stream(worker: WorkerContext, *, until: float | None = None) -> AuditUntrusted | None:
    """Record what the stream says; return why it could not be read, if so.

    AuditLagging says that the stream was not read to its end by `until` (monotonic clock).
    """
    try:
        observe(worker, until=until)
    except AuditUntrusted as error:
        return error
    return None


def _revoke_if_ending(worker: WorkerContext, file: TaskRecord, claim: int) -> TaskRecord:
    """Revoke a task that has to end whatever its lines say; return the task."""
    ending = why_end_blind(worker, file)
    return file if ending is None else revoke_tree(worker, file, claim, why=ending)
