"""When a task that holds access has to be looked at next."""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.domain.lifecycle import State, Verdict
from jitvault.domain.lifetime import beat_by, next_look
from jitvault.domain.revision import Revision
from jitvault.ports.ledger import GrantRow, LeaseRow, TaskFile
from jitvault.services.context import Worker


def claim_by(grant: GrantRow) -> datetime | None:
    """When the wrapping of a token is over that nobody has opened, by Vault's clock."""
    return grant.issued_at + timedelta(seconds=grant.wrap_ttl_s) if grant.issued_at else None


def next_beat_by(worker: Worker, file: TaskFile) -> datetime | None:
    """When the next sign of life of the task's token is due, by Vault's clock; None where none is asked for."""
    every = Revision.of(file.revision.body).spec.spec.window.heartbeat
    if every is None:
        return None
    return beat_by(file.grants[-1].accessor_hmac or "", worker.ledger.acts(file).observations, every)


def is_due(worker: Worker, file: TaskFile) -> bool:
    """Whether something of the task goes by the time that it is now."""
    return file.task.due_at is not None and file.task.due_at <= worker.now()


def renewed(file: TaskFile) -> list[GrantRow | LeaseRow]:
    """What of the task is renewed from time to time: its token first."""
    rows: tuple[GrantRow | LeaseRow, ...] = (file.grants[-1], *file.leases)
    return [row for row in rows if row.renew_at is not None and row.verdict is Verdict.LIVE]


def look_at(worker: Worker, file: TaskFile) -> datetime | None:
    """When the task has to be looked at next, at the latest at its deadline."""
    grant = file.grants[-1]
    unclaimed = claim_by(grant) if file.task.state is State.ISSUED else None
    renewals = (row.renew_at for row in renewed(file))
    return next_look(file.task.ends_at, grant.expires_at, unclaimed, next_beat_by(worker, file), *renewals)
