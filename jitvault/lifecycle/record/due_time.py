"""Whether the time has come at which a task was to be looked at again."""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import TaskRecord
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, LIVE_STATES
from jitvault.model.ttl import LONGEST_PAUSE, is_due


def has_come(worker: WorkerContext, record: TaskRecord, at: datetime | None) -> bool:
    """Return whether a due time of the task has come.

    A time that is further away than any task is put off counts as come: a clock was wrong when it was written.
    """
    return is_due(at, worker.now(), _longest(worker, record))


def is_due_now(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether the task is due."""
    return has_come(worker, record, record.task.due_at)


def due_too_late(worker: WorkerContext) -> list[str]:
    """Return the tasks that are due later than any task is put off.

    Some clock was wrong when their due time was written.
    """
    far = worker.ledger.due_after(worker.now() + min(worker.rolling_step, LONGEST_PAUSE) + _slack(worker))
    files = (worker.legible(task_id) for task_id in far)
    return [record.task.task_id for record in files if record is not None and is_due_now(worker, record)]


def _longest(worker: WorkerContext, record: TaskRecord) -> timedelta | None:
    """Return for how long the task is put off at most; None before its grant.

    Before the grant its window may open in months.
    """
    state = record.task.state
    if state in BEFORE_GRANT:
        return None
    longest = [timedelta(0) if state in DELIVERED_STATES else LONGEST_PAUSE]
    if state in LIVE_STATES:
        # a renewed token gets one step at a time, any other its whole TTL; another worker may use longer steps
        seconds = (grant.step_s if grant.rolling else max(grant.step_s, grant.ttl_s) for grant in record.grants)
        longest += [worker.rolling_step, *(timedelta(seconds=s) for s in seconds)]
    return max(longest) + _slack(worker)


def _slack(worker: WorkerContext) -> timedelta:
    """Return the tolerance of due times.

    It is made of jitter, a settle window, and the clocks' skew on both sides.
    """
    return LONGEST_PAUSE / 4 + worker.settle_window + 2 * MAX_SKEW
