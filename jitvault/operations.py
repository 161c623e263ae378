"""Perform operations on Vault.

An operation is three steps: commit the intent, call Vault, commit the answer. A crash between any two of these steps
leaves an operation that reads as unknown, and the next run finds out what became of it. The operation id is sent in an
audited header, so the audit stream shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError, OutcomeUnknown, VaultRejected
from jitvault.ledger.model import Change, GrantAdmission, OperationRow, OpState, Row, TaskRecord
from jitvault.model.event_bodies import Unanswered
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import State

DONE = "ok"
"""The recorded answer of an operation that Vault says it did."""

T = TypeVar("T")


def new_operation(
    worker: WorkerContext, kind: OperationKind, subject: str, *, task_id: str | None = None, op_id: str | None = None
) -> OperationRow:
    """Return an intended operation; the caller commits it before the call."""
    return OperationRow(op_id or new_id(), task_id, kind, subject, OpState.INTENDED, None, worker.now(), None)


def announce(
    worker: WorkerContext, kind: OperationKind, subject: str, *, task_id: str | None = None, answer: str | None = None
) -> str:
    """Commit the intent of an act on whose answer nothing depends.

    Return its operation id. The operation is settled from the start, so nobody looks for what became of it; it is there
    so that the act's audit line is explained: a line of the worker's without an intent is a thief's. `answer` is what
    the act will leave, where somebody compares that later.
    """
    op = announced(worker, kind, subject, task_id=task_id, answer=answer)
    worker.ledger.keep(operations=[op], at=worker.now())
    return op.op_id


def announced(
    worker: WorkerContext, kind: OperationKind, subject: str, *, task_id: str | None = None, answer: str | None = None
) -> OperationRow:
    """Return the operation that `announce` commits, for a caller that commits it with something else."""
    op = new_operation(worker, kind, subject, task_id=task_id)
    return replace(op, state=OpState.SETTLED, answer=answer)


def record_answer(worker: WorkerContext, op: OperationRow, state: OpState, answer: object) -> OperationRow:
    """Return the operation with its answer, not yet committed.

    `answer` is a word, or the error that came instead of an answer.
    """
    if isinstance(answer, VaultRejected):
        # the backend's own message says what an operator has to repair
        answer = "; ".join(answer.reasons) or answer
    return replace(op, state=state, answer=str(answer)[:255], answered_at=worker.now())


def perform(
    worker: WorkerContext,
    record: TaskRecord,
    claim: int,
    kind: OperationKind,
    subject: str,
    call: Callable[[str], T],
    *,
    rows: Sequence[Row] = (),
    op_id: str | None = None,
    admission: GrantAdmission | None = None,
    **task: Any,
) -> tuple[T, OperationRow, TaskRecord]:
    """Perform one operation on a task.

    Return the answer of `call`, the answered operation, and the task as it was when its intent was committed.

    `call` gets the operation id. The caller commits the returned operation together with what the answer means. `rows`
    and `task` (state and columns of the task) are committed with the intent, where `admission` permits that. Where
    `call` raises, the operation is committed as unknown or abandoned, and the error is raised again.
    """
    task_id = record.task.task_id
    op = new_operation(worker, kind, subject, task_id=task_id, op_id=op_id)
    state: State | None = task.pop("state", None)
    intent = Change(EventKind.of(kind, OpState.INTENDED), state=state, fields=task, rows=(*rows, op))
    record = worker.ledger.change(record, intent, claim=claim, at=worker.now(), admission=admission)
    return (*carry_out(worker, task_id, claim, op, call), record)


def carry_out(
    worker: WorkerContext, task_id: str, claim: int, op: OperationRow, call: Callable[[str], T]
) -> tuple[T, OperationRow]:
    """Perform an operation whose intent is committed.

    Return the answer of `call` and the answered operation. Raises like `perform`.
    """
    try:
        answer = call(op.op_id)
    except OutcomeUnknown as error:
        _commit_failure(worker, task_id, claim, op, OpState.UNKNOWN, error)
        raise
    except JitvaultError as error:
        _commit_failure(worker, task_id, claim, op, OpState.ABANDONED, error)
        raise
    return answer, record_answer(worker, op, OpState.ANSWERED, DONE)


def _commit_failure(
    worker: WorkerContext, task_id: str, claim: int, op: OperationRow, state: OpState, error: JitvaultError
) -> None:
    """Commit that an operation failed.

    State `abandoned` means that Vault certainly did not do it.
    """
    answered = record_answer(worker, op, state, error)
    event = EventKind.of(OperationKind(op.kind), state)
    change = Change(event, Unanswered(op=op.op_id, answer=answered.answer), rows=(answered,))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
