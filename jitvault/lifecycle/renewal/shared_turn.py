"""What scheduled renewals share.

A worker checks each of thousands of tasks as often as its token is renewed, and most answers are shared by all of them:
which entities are enabled and in which groups, what is frozen, what an administrator provisioned, how many leases are
held, whether the stream is trusted. Within one second each is read once. Nothing is checked less often: every renewal
asks all of its questions.

Only scheduled renewals share. A turn that was triggered by news (a request to end the task, a freeze, a denial) goes by
what is read after that news, and so do grants, revocations and proofs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.stream.reading import canary


def shared_turn(worker: WorkerContext) -> AbstractContextManager[None]:
    """Return a block whose reads a scheduled renewal shares with others; without effect on any other turn."""
    return worker.facts.turn(shared=True) if worker.mode.is_scheduled else nullcontext()


def read_up_to(worker: WorkerContext, due_at: datetime | None) -> None:
    """Make sure that the trusted stream was read up to `due_at` at least.

    One canary that was sent after `due_at` shows this for every task that was due by then. Raises AuditUntrusted.
    """
    if not worker.mode.is_scheduled or due_at is None:
        canary(worker)
        return
    late_s = (worker.now() - due_at) / timedelta(seconds=1)
    with worker.facts.turn(shared=True):
        worker.facts.of("canary", lambda: canary(worker), at_most_s=late_s)
