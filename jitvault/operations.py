"""How an act is done: a row is committed first, then Vault is called, then the answer is committed.

A crash between any two of these leaves an operation that reads as unknown, and the next run finds out what
became of it. The operation id travels in the audited header, so the stream shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError, OutcomeUnknown, VaultRejected
from jitvault.ledger.model import Change, GrantAdmission, OperationRow, OpState, Row
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import State

DONE = "ok"
"""The answer of an act that Vault says it did."""

T = TypeVar("T")


def new_operation(
    worker: WorkerContext, kind: OperationKind, subject: str, *, task_id: str | None = None, op_id: str | None = None
) -> OperationRow:
    """An act that is going to be done; whoever does it commits this first."""
    return OperationRow(op_id or new_id(), task_id, kind, subject, OpState.INTENDED, None, worker.now(), None)


def record_answer(worker: WorkerContext, op: OperationRow, state: OpState, answer: object) -> OperationRow:
    """The operation with what came of it, not yet committed. `answer`: a word, or the error that came instead."""
    if isinstance(answer, VaultRejected):
        # the backend's own words: what an operator has to mend
        answer = "; ".join(answer.reasons) or answer
    return replace(op, state=state, answer=str(answer)[:255], answered_at=worker.now())


def perform(
    worker: WorkerContext,
    task_id: str,
    claim: int,
    kind: OperationKind,
    subject: str,
    call: Callable[[str], T],
    *,
    rows: Sequence[Row] = (),
    op_id: str | None = None,
    admission: GrantAdmission | None = None,
    **task: Any,
) -> tuple[T, OperationRow]:
    """Do one act: `call(op id)`. Gives its answer, and the operation, answered but not yet committed as such.

    The caller commits the operation together with what the answer means. `rows` and `task` (state and
    columns of the task) are committed with the intent, where `admission` lets them.
    """
    op = new_operation(worker, kind, subject, task_id=task_id, op_id=op_id)
    state: State | None = task.pop("state", None)
    body = {"op": op.op_id, "subject": subject}
    intent = Change(EventKind.of(kind, OpState.INTENDED), body, state=state, fields=task, rows=(*rows, op))
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now(), admission=admission)
    try:
        answer = call(op.op_id)
    except OutcomeUnknown as error:
        _leave(worker, task_id, claim, op, OpState.UNKNOWN, error)
        raise
    except JitvaultError as error:
        _leave(worker, task_id, claim, op, OpState.ABANDONED, error)
        raise
    return answer, record_answer(worker, op, OpState.ANSWERED, DONE)


def _leave(
    worker: WorkerContext, task_id: str, claim: int, op: OperationRow, state: OpState, error: JitvaultError
) -> None:
    """Commit that an act has no good answer. `abandoned` means that Vault surely did not do it."""
    answered = record_answer(worker, op, state, error)
    event = EventKind.of(OperationKind(op.kind), state)
    change = Change(event, {"op": op.op_id, "answer": answered.answer}, rows=(answered,))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
