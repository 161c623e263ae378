"""Pace the attempts to issue a token where Vault makes none.

A finding is recorded as well.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.errors import NotConfirmed
from jitvault.ledger.model import GrantRow, TaskRecord
from jitvault.ledger.upkeep import Upkeep
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS
from jitvault.model.event_bodies import Unanswered, said
from jitvault.model.kinds import EventKind
from jitvault.model.ttl import LONGEST_PAUSE, is_due

# these take some two minutes
_FINDING_AFTER = 10
_MOST_DOUBLINGS = 9


def check_attempt_due(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Raise NotConfirmed while the pause after failed attempts lasts.

    The first MAX_ATTEMPTS have no pause; then each pause is longer, and the task's `due_at` is set to its end.
    Each attempt leaves a grant and an operation in the ledger, and where Vault refuses for a lasting reason it refuses
    again. After `_FINDING_AFTER` attempts a finding is recorded. Whoever may end the task can still end it meanwhile.
    """
    vain = vain_attempts(record)
    if len(vain) < MAX_ATTEMPTS:
        return
    task_id = record.task.task_id
    answer = _last_answer(record)
    if len(vain) >= _FINDING_AFTER:
        message = f"Vault made no token for it in {_FINDING_AFTER} attempts in a row: {answer}"
        worker.ledger.finding(task_id, "issue_in_vain", message, worker.now())
    again = _sent_at(record, vain[-1]) + pause_after(len(vain))
    if is_due(again, worker.now(), LONGEST_PAUSE):
        return
    if record.task.due_at is None or record.task.due_at < again:
        worker.ledger.keep_up(record, Upkeep(task_id, claim, fields={"due_at": again}))
    raise NotConfirmed(
        f"task {task_id}: Vault made no token for it in {len(vain)} attempts in a row ({answer})",
        hint=f"Another attempt is due at {again:%H:%M:%S} UTC. `jitvault revoke {task_id}` ends the task.",
    )


def vain_attempts(record: TaskRecord) -> list[GrantRow]:
    """Return the attempts since the last one that made a token."""
    made = max((grant.attempt for grant in record.grants if grant.accessor_hmac is not None), default=0)
    return [grant for grant in record.grants if grant.attempt > made]


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts: it doubles, up to 5 min."""
    return min(timedelta(seconds=2 ** min(attempts - MAX_ATTEMPTS, _MOST_DOUBLINGS)), LONGEST_PAUSE)


def _sent_at(record: TaskRecord, grant: GrantRow) -> datetime:
    return next((op.sent_at for op in record.operations if op.op_id == grant.create_op), record.task.created_at)


def _last_answer(record: TaskRecord) -> str:
    """Return what Vault said to the last attempt."""
    failed = (EventKind.CREATE_TOKEN_ABANDONED, EventKind.CREATE_TOKEN_UNKNOWN)
    answers = (body.answer for event, body in said(reversed(record.events), Unanswered) if event.kind in failed)
    return str(next(answers, "it did not answer"))
