"""What a check-up sees with the worker's identity: a canary through the audit stream, leases that live too long.

Reading the stream enters it into the ledger, as every command of the worker's does. Nothing else is written.
"""

from __future__ import annotations

from datetime import timedelta

from jitvault.domain.checkup.record import Outliving
from jitvault.domain.checkup.stream import Stream
from jitvault.domain.lifecycle import HOLDING, State
from jitvault.services.context import Worker
from jitvault.services.revoke import DEAD
from jitvault.services.trust import Trust, examine

MOST_LEASES = 100
_ANEW = "the audit device was made anew"
# a renewal reaches a little over the deadline at most
_TOLERANCE = timedelta(seconds=30)


def stream_of(worker: Worker) -> Stream:
    """What became of a canary that was sent now."""
    found = examine(worker)
    gaps = [gap for source in found.sources for gap in source.gaps]
    return Stream(
        why=None if found.trust is Trust.TRUSTED else found.why or "it is not trusted",
        mend=found.hint or "`jitvault audit status` says more.",
        lag=found.lag,
        gaps=len(gaps),
        anew=max((gap.at for gap in gaps if gap.what.startswith(_ANEW)), default=None),
    )


def outliving(worker: Worker) -> tuple[int, tuple[Outliving, ...]]:
    """How many live leases Vault was asked about, at most so many, and those that it keeps past their task's end."""
    looked_at, found = 0, []
    for task in worker.ledger.tasks():
        if task.state not in HOLDING | {State.ENDING} or task.ends_at is None:
            continue
        file = worker.ledger.file(task.task_id)
        for lease in file.leases if file else ():
            if lease.verdict in DEAD or looked_at == MOST_LEASES:
                continue
            looked_at += 1
            record = worker.leases.lookup(lease.lease_id)
            if record and record.expires_at and record.expires_at > task.ends_at + _TOLERANCE:
                found.append(Outliving(lease.lease_id, task.task_id, record.expires_at, task.ends_at))
    return looked_at, tuple(found)
