"""Revoke the wrapping tokens of a task's reads, so that no one can unwrap them after the task.

A wrapping token outlives the token whose read made it, for as long as that request asked for. Vault lists its lease
below the path that was read, with its issue time, and the read's audit lines say between which times it was made. That
it is revoked proves nothing: whoever unwrapped it before has the secret.
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
"""How long one turn revokes wrapping tokens; the next turn goes on."""


def revoke_wrappings(worker: WorkerContext, found: Evidence, claim: int) -> bool:
    """Revoke the wrapping tokens of the task's reads.

    Return whether there were any.

    What an administrator had wrapped at the path of a read while that read was under way counts as the task's, and the
    administrator has to read it again.
    """
    reads = [read for read in found.open_questions(worker).wrapped if not read.in_gap]
    task_id = found.file.task.task_id
    until = worker.clock.monotonic() + _PATIENCE_S
    ended = False
    for path in sorted({read.path for read in reads}):
        is_own = made_by(read for read in reads if read.path == path)
        listed = [lease_id for lease_id in worker.leases.list(path) if is_token_lease(lease_id)]
        for n in range(0, len(listed), _AT_ONCE):
            if worker.is_late() or worker.clock.monotonic() > until:
                _record_rest(worker, task_id)
                return ended
            own: list[str] = []
            for lease_id in listed[n : n + _AT_ONCE]:
                record = worker.leases.lookup(lease_id)
                if record and record.issued_at and is_own(record.issued_at):
                    own.append(lease_id)
            if own:
                _revoke_all(worker, task_id, claim, own)
                ended = True
    return ended


def _revoke_all(worker: WorkerContext, task_id: str, claim: int, doomed: Sequence[str]) -> None:
    """Commit all intents, revoke, and commit the answers."""
    worker.ledger.extend(task_id, claim)
    ops = [new_operation(worker, OperationKind.REVOKE_WRAPPING, lease_id, task_id=task_id) for lease_id in doomed]
    intent = Change(EventKind.WRAPPINGS_INTENDED, {"ops": [op.op_id for op in ops]}, rows=ops)
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    answers = [_revoke(worker, op) for op in ops]
    ended = sum(op.answer == DONE for op in answers)
    change = Change(EventKind.WRAPPINGS_ENDED, {"ended": ended, "of": len(answers)}, rows=answers)
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _revoke(worker: WorkerContext, op: OperationRow) -> OperationRow:
    """Revoke one wrapping token; return the operation with its answer.

    A failure does not hold up the judgement: the next turn tries again.
    """
    try:
        worker.leases.revoke(op.subject, op=op.op_id)
    except JitvaultError as error:
        return record_answer(worker, op, OpState.ABANDONED, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def _record_rest(worker: WorkerContext, task_id: str) -> None:
    """Record a finding: wrapping tokens are left for the next turns."""
    message = (
        f"more wrappings of what its token read are in Vault than are ended in {_PATIENCE_S:g} s: the rest can be "
        "opened until the next looks at the task have ended them"
    )
    worker.ledger.finding(task_id, "wrappings_left", message, worker.now())
