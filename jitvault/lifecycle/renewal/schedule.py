"""When a task with access is due next."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from jitvault.audit.observation import Kind, Observation
from jitvault.context import WorkerContext
from jitvault.ledger.model import GrantRow, LeaseRow, TaskRecord
from jitvault.model.revision import Revision
from jitvault.model.states import State, Verdict
from jitvault.model.ttl import early_end, next_look


def next_heartbeat_deadline(worker: WorkerContext, record: TaskRecord) -> datetime | None:
    """Return when the next heartbeat of the task is due, by Vault's clock.

    The result is None where the task has none to give.
    """
    every = Revision.of(record.revision.body).spec.spec.window.heartbeat
    if every is None:
        return None
    return heartbeat_deadline(record.grants[-1].accessor_hmac or "", worker.ledger.acts(record).observations, every)


def renewable_credentials(record: TaskRecord) -> list[GrantRow | LeaseRow]:
    """Return the credentials of the task that are renewed, its token first."""
    rows: tuple[GrantRow | LeaseRow, ...] = (record.grants[-1], *record.leases)
    return [row for row in rows if row.renew_at is not None and row.verdict is Verdict.LIVE]


def next_due_at(worker: WorkerContext, record: TaskRecord) -> datetime | None:
    """Return when the task is due next, at the latest at its deadline."""
    grant = record.grants[-1]
    unclaimed = grant.unwrap_deadline if record.task.state is State.ISSUED else None
    renewals = (row.renew_at for row in renewable_credentials(record))
    ends_at = record.task.ends_at
    expired_at = early_end(grant.expires_at, grant.renew_at, ends_at)
    return next_look(ends_at, expired_at, unclaimed, next_heartbeat_deadline(worker, record), *renewals)


def heartbeat_deadline(token: str, lines: Iterable[Observation], every: timedelta | None) -> datetime | None:
    """Return when a token's next heartbeat is due, by Vault's clock.

    The result is None if none is.

    `token` is the HMAC of its accessor. Each audited line of an act of the token is a heartbeat, and so is its
    unwrapping.
    """
    if every is None:
        return None
    beats = [o.at for o in lines if token and (o.actor == token or (o.kind is Kind.UNWRAPPED and o.subject == token))]
    return max(beats) + every if beats else None
