"""End the wrappings of what a task's token read, so that nobody opens them after the task.

A wrapping outlives the token that asked for it, for as long as its asker said. Its own lease is listed below the path
that was read, with the time of its making, and the read's lines say between which times it made one. That proves
nothing: who opened it before has what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.audit.issued_lease import is_token_lease
from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError
from jitvault.ledger.model import Change, OperationRow, OpState
from jitvault.lifecycle.confirmation.evidence import Evidence
from jitvault.lifecycle.confirmation.wrapped_reads import made_by
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.operations import DONE, new_operation, record_answer

_AT_ONCE = 100
_PATIENCE_S = 10.0
"""So long they are ended in one turn; the next turn goes on."""


def end_wrappings(worker: WorkerContext, found: Evidence, claim: int) -> bool:
    """Revoke the wrappings of the task's reads that Vault still has; whether there were any.

    What an administrator had wrapped at the same path while such a read was under way counts as the task's: they read
    again.
    """
    reads = [read for read in found.doubts(worker).wrapped if not read.in_gap]
    task_id, until = found.file.task.task_id, worker.clock.monotonic() + _PATIENCE_S
    ended = False
    for path in sorted({read.path for read in reads}):
        is_own = made_by(read for read in reads if read.path == path)
        listed = [lease_id for lease_id in worker.leases.list(path) if is_token_lease(lease_id)]
        for n in range(0, len(listed), _AT_ONCE):
            if worker.is_late() or worker.clock.monotonic() > until:
                _tell_rest(worker, task_id)
                return ended
            looked = [(lease_id, worker.leases.lookup(lease_id)) for lease_id in listed[n : n + _AT_ONCE]]
            if own := [i for i, record in looked if record and record.issued_at and is_own(record.issued_at)]:
                _end(worker, task_id, claim, own)
                ended = True
    return ended


def _end(worker: WorkerContext, task_id: str, claim: int, doomed: Sequence[str]) -> None:
    """Commit all intents, act, commit what came of it."""
    worker.ledger.extend(task_id, claim)
    ops = [new_operation(worker, OperationKind.REVOKE_WRAPPING, lease_id, task_id=task_id) for lease_id in doomed]
    said = Change(EventKind.WRAPPINGS_INTENDED, {"ops": [op.op_id for op in ops]}, rows=ops)
    worker.ledger.apply(task_id, said, claim=claim, at=worker.now())
    answers = [_revoke(worker, op) for op in ops]
    ended = sum(op.answer == DONE for op in answers)
    change = Change(EventKind.WRAPPINGS_ENDED, {"ended": ended, "of": len(answers)}, rows=answers)
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _revoke(worker: WorkerContext, op: OperationRow) -> OperationRow:
    """What could not be ended is tried again at the next turn: it keeps nothing from being judged."""
    try:
        worker.leases.revoke(op.subject, op=op.op_id)
    except JitvaultError as error:
        return record_answer(worker, op, OpState.ABANDONED, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def _tell_rest(worker: WorkerContext, task_id: str) -> None:
    message = (
        f"more wrappings of what its token read are in Vault than are ended in {_PATIENCE_S:g} s: the rest can be "
        "opened until the next looks at the task have ended them"
    )
    worker.ledger.finding(task_id, "wrappings_left", message, worker.now())
