"""What a scheduled renewal goes by: what was true when it was due.

A worker checks each of thousands of tasks as often as its token is renewed, and most of what it asks is the same for
all of them: which entities are enabled and in which groups, what is frozen, what an administrator provisioned, how many
leases are held, whether the stream is trusted. One canary that was sent after a task was due shows all of these for
every task that was due by then. Nothing is checked less often: every renewal asks all of its questions.

A turn that was triggered by news (a request to end the task, a freeze, a denial) goes by what is true after that news,
and so do grants, revocations and proofs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.stream.reading import canary


def due_turn(worker: WorkerContext, due_at: datetime | None) -> AbstractContextManager[None]:
    """Return a block in which a scheduled renewal goes by what was true at `due_at`.

    It has no effect on any other turn.
    """
    if not worker.mode.is_scheduled or due_at is None:
        return nullcontext()
    return worker.facts.due(_late_s(worker, due_at))


def read_up_to(worker: WorkerContext, due_at: datetime | None) -> None:
    """Make sure that the trusted stream was read up to `due_at`, and to what else this turn is for.

    Raises AuditUntrusted.
    """
    with due_turn(worker, due_at):
        if due_at is None or not worker.facts.is_ingested(_late_s(worker, due_at)):
            canary(worker)


def _late_s(worker: WorkerContext, due_at: datetime) -> float:
    return max(0.0, (worker.now() - due_at) / timedelta(seconds=1))
