"""Pace the attempts to issue a token where Vault makes none, and tell people."""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.errors import NotConfirmed
from jitvault.ledger.model import Change, GrantRow, TaskRecord
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS
from jitvault.lifecycle.revocation.results import LATEST
from jitvault.model.kinds import EventKind
from jitvault.model.ttl import is_due

# some two minutes
_TOLD_AFTER = 10
_MOST_DOUBLINGS = 9


def check_not_in_vain(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Raise NotConfirmed until another attempt is due after some in vain.

    Each attempt leaves a grant and an operation, and what Vault refuses for a lasting reason it refuses again. After
    `_TOLD_AFTER` attempts that is a finding; whoever may end the task can end it meanwhile.
    """
    vain = in_vain(file)
    if len(vain) < MAX_ATTEMPTS:
        return
    task_id, answer = file.task.task_id, _last_answer(file)
    if len(vain) >= _TOLD_AFTER:
        message = f"Vault made no token for it in {_TOLD_AFTER} attempts in a row: {answer}"
        worker.ledger.finding(task_id, "issue_in_vain", message, worker.now())
    again = _sent_at(file, vain[-1]) + pause_after(len(vain))
    if is_due(again, worker.now(), LATEST):
        return
    if file.task.due_at is None or file.task.due_at < again:
        worker.ledger.apply(task_id, Change(EventKind.KEPT, fields={"due_at": again}), claim=claim, at=worker.now())
    raise NotConfirmed(
        f"task {task_id}: Vault made no token for it in {len(vain)} attempts in a row ({answer})",
        hint=f"Another attempt is due at {again:%H:%M:%S} UTC. `jitvault revoke {task_id}` ends the task.",
    )


def in_vain(file: TaskRecord) -> list[GrantRow]:
    """Return the attempts since the last token was made."""
    made = max((grant.attempt for grant in file.grants if grant.accessor_hmac is not None), default=0)
    return [grant for grant in file.grants if grant.attempt > made]


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait: twice as long after each attempt, at most 5 min."""
    return min(timedelta(seconds=2 ** min(attempts - MAX_ATTEMPTS, _MOST_DOUBLINGS)), LATEST)


def _sent_at(file: TaskRecord, grant: GrantRow) -> datetime:
    return next((op.sent_at for op in file.operations if op.op_id == grant.create_op), file.task.created_at)


def _last_answer(file: TaskRecord) -> str:
    """Return what Vault said to the last attempt."""
    told = (e.body for e in reversed(file.events) if e.kind.startswith("create_token_"))
    return next((str(body["answer"]) for body in told if "answer" in body), "it did not answer")
