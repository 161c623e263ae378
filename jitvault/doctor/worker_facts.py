"""Read facts with the worker's identity for `jitvault doctor`.

These are a canary, and leases that last too long. Reading the audit stream records it in the ledger, as every command
with the worker's identity does. Nothing else is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

from jitvault.context import WorkerContext
from jitvault.doctor.ledger import Outliving
from jitvault.doctor.stream import Stream
from jitvault.ledger.model import GapKind, LeaseRow, TaskRecord
from jitvault.model.states import DEAD
from jitvault.stream.status import Trust, examine

MOST_LEASES = 100
MOST_TASKS = 500
# a renewal reaches a little over the deadline at most
_TOLERANCE = timedelta(seconds=30)


def stream_of(worker: WorkerContext) -> Stream:
    """Send a canary through the audit stream and return the result."""
    found = examine(worker)
    gaps = [gap for source in found.sources for gap in source.gaps]
    return Stream(
        why=None if found.trust is Trust.TRUSTED else found.why or "it is not trusted",
        mend=found.hint or "`jitvault audit status` says more.",
        lag=found.lag,
        gaps=len(gaps),
        anew=max((gap.at for gap in gaps if gap.kind is GapKind.DEVICE_ANEW), default=None),
    )


def outliving(worker: WorkerContext) -> tuple[int, tuple[Outliving, ...]]:
    """Look up leases of tasks that hold access.

    Return how many, and those that expire after their task's deadline. At most MOST_LEASES of MOST_TASKS tasks are
    looked up, so that the command answers within seconds.
    """
    looked_at = 0
    found = []
    for record, lease in islice(_live(worker), MOST_LEASES):
        looked_at += 1
        in_vault = worker.leases.lookup(lease.lease_id)
        ends_at = record.task.ends_at
        if in_vault and in_vault.expires_at and ends_at and in_vault.expires_at > ends_at + _TOLERANCE:
            found.append(Outliving(lease.lease_id, record.task.task_id, in_vault.expires_at, ends_at))
    return looked_at, tuple(found)


def _live(worker: WorkerContext) -> Iterator[tuple[TaskRecord, LeaseRow]]:
    for task_id in islice(worker.ledger.live_tasks(), MOST_TASKS):
        record = worker.ledger.record(task_id)
        if record is not None:
            yield from ((record, lease) for lease in record.leases if lease.verdict not in DEAD)
