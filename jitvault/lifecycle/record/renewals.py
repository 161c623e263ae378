"""What the event chain says of renewals, which make no events of their own.

The latest time at which a token can expire is committed ahead, for several renewals at once: a proof that the token
expired rests on the chain alone. The audit lines of the renewals are named afterwards, many at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import TaskRecord
from jitvault.model.event_bodies import RenewIntended, said

_ROOM = 5
"""For how many steps the latest expiry of a token is committed ahead; each step is renewed at its half.

A proof that a token expired by itself waits for that time, so the room is small.
"""


def latest_expiry(worker: WorkerContext, seconds: int) -> datetime:
    """Return the latest expiry of a token that is renewed by so many seconds now.

    It is the latest by any clock, for the case that the answer is lost.
    """
    return worker.now() + timedelta(seconds=seconds) + worker.settle_window + MAX_SKEW


def expiry_to_commit(worker: WorkerContext, ends_at: datetime, step_s: int) -> datetime:
    """Return the latest expiry of a token that is renewed for several steps from now on.

    `step_s` is in seconds. No renewal is asked to reach past the task's deadline.
    """
    left_s = (ends_at - worker.now()) // timedelta(seconds=1)
    return latest_expiry(worker, max(0, min(_ROOM * step_s, left_s + 1)))


def renewals_to_name(worker: WorkerContext, record: TaskRecord) -> tuple[str, ...]:
    """Return the audit lines of the task's renewals that no event has named yet, by their SHA-256."""
    named: set[str] = set()
    since = [record.task.created_at]
    for event, body in said(record.events, RenewIntended):
        named.update(body.renewals)
        since.append(datetime.fromisoformat(event.at))
    # the line of a renewal before the last event may have come after it
    lines = worker.ledger.renewal_lines(record.task.task_id, since[-2] if len(since) > 1 else since[0])
    return tuple(line for line in lines if line not in named)
