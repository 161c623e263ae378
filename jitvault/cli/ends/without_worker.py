"""End tasks with the worker's identity, where no worker does: break glass.

So are tasks that the ledger lost, where it has to be rebuilt. They are known by what is published of them. No scope of
the ledger has them, and they must not be left out of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from jitvault.cli.quiet import waits
from jitvault.cli.session import known
from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.wiring import Wiring

_NOTIFY_S = 1.0
_PATIENCE_S = 10.0
"""How long one task's end is tried, after it was imported."""


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


def end_lost(
    wiring: Wiring, worker: WorkerContext, published: Callable[[], Collection[str]], note: str, wait: float
) -> list[str]:
    """End those of the tasks that the ledger lost; return which they are.

    `published` returns the tasks that are published as open. It reads each one, so it is called only where the ledger
    has to be rebuilt: no other ledger lost any. The end of each is signed. Each is imported first, which reads the
    audit files; none is begun after `wait` seconds.
    """
    if worker.ledger.recovering() is None:
        return []
    lost = worker.ledger.unknown_tasks(published())
    deadline = worker.clock.monotonic() + wait
    for task in lost:
        now = worker.clock.monotonic()
        with suppress(JitvaultError):
            sign_end(wiring.person, task, reason=EndReason.OPERATOR, note=note)
            if now < deadline:
                advance_or_end_lost(worker, task, hint=wiring.person.entity, deadline=now + _PATIENCE_S)
    return lost
