"""End a task with the worker's identity, where no worker does: break glass."""

from __future__ import annotations

from jitvault.cli.quiet import waits
from jitvault.cli.session import known
from jitvault.documents.published_task import PublishedTask
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.wiring import Wiring

_NOTIFY_S = 1.0


def end_without_worker(wiring: Wiring, task_id: str, wait: float) -> PublishedTask:
    """End the task as a worker does, and return what is published of it then.

    Nothing new is begun after `wait` seconds.
    """
    waits(f"No worker ends task {task_id}: this command does, with the worker's identity.")
    notifier = wiring.teller
    deadline = wiring.clock.monotonic() + wait
    try:
        advance_or_end_lost(wiring.worker, task_id, hint=wiring.person.entity, deadline=deadline)
    finally:
        notifier.tell_for(_NOTIFY_S)
    return known(wiring, task_id)
