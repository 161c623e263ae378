"""When a task that holds access has to be looked at next."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from jitvault.audit.observation import Kind, Observation
from jitvault.context import WorkerContext
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import GrantRow, LeaseRow, TaskRecord
from jitvault.lifecycle.revocation.results import LATEST
from jitvault.model.revision import Revision
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, LIVE_STATES, State, Verdict
from jitvault.model.ttl import is_due, next_look


def claim_by(grant: GrantRow) -> datetime | None:
    """When the wrapping of a token is over that nobody has opened, by Vault's clock."""
    return grant.issued_at + timedelta(seconds=grant.wrap_ttl_s) if grant.issued_at else None


def next_beat_by(worker: WorkerContext, file: TaskRecord) -> datetime | None:
    """When the next sign of life of the task's token is due, by Vault's clock; None where none is asked for."""
    every = Revision.of(file.revision.body).spec.spec.window.heartbeat
    if every is None:
        return None
    return heartbeat_deadline(file.grants[-1].accessor_hmac or "", worker.ledger.acts(file).observations, every)


def has_come(worker: WorkerContext, file: TaskRecord, at: datetime | None) -> bool:
    """Whether a time has come that the task was put off until, or lies too far away to be right."""
    return is_due(at, worker.now(), _longest(worker, file))


def is_due_now(worker: WorkerContext, file: TaskRecord) -> bool:
    """Whether something of the task goes by the time that it is now."""
    return has_come(worker, file, file.task.due_at)


def due_too_late(worker: WorkerContext) -> list[str]:
    """Return the tasks whose next look lies further away than anything is put off: some clock was wrong."""
    far = worker.ledger.due_after(worker.now() + min(worker.rolling_step, LATEST) + _slack(worker))
    files = (worker.legible(task_id) for task_id in far)
    return [file.task.task_id for file in files if file is not None and is_due_now(worker, file)]


def _longest(worker: WorkerContext, file: TaskRecord) -> timedelta | None:
    """Return for how long a look at the task is put off at most; None where its window may open in months."""
    state = file.task.state
    if state in BEFORE_GRANT:
        return None
    longest = [timedelta(0) if state in DELIVERED_STATES else LATEST]
    if state in LIVE_STATES:
        # what rolls has a step at a time, and all else its whole life; another worker may give longer ones
        seconds = (g.step_s if g.rolling else max(g.step_s, g.ttl_s) for g in file.grants)
        longest += [worker.rolling_step, *(timedelta(seconds=s) for s in seconds)]
    return max(longest) + _slack(worker)


def _slack(worker: WorkerContext) -> timedelta:
    """Return what may come on top: jitter, a settle window, and what clocks may differ by on both sides."""
    return LATEST / 4 + worker.settle_window + 2 * MAX_SKEW


def renewed(file: TaskRecord) -> list[GrantRow | LeaseRow]:
    """What of the task is renewed from time to time: its token first."""
    rows: tuple[GrantRow | LeaseRow, ...] = (file.grants[-1], *file.leases)
    return [row for row in rows if row.renew_at is not None and row.verdict is Verdict.LIVE]


def look_at(worker: WorkerContext, file: TaskRecord) -> datetime | None:
    """When the task has to be looked at next, at the latest at its deadline."""
    grant = file.grants[-1]
    unclaimed = claim_by(grant) if file.task.state is State.ISSUED else None
    renewals = (row.renew_at for row in renewed(file))
    return next_look(file.task.ends_at, grant.expires_at, unclaimed, next_beat_by(worker, file), *renewals)


def heartbeat_deadline(token: str, lines: Iterable[Observation], every: timedelta | None) -> datetime | None:
    """When the next sign of life of a token is due, by Vault's clock; None where none is due yet.

    `token` is the HMAC of its accessor. Any audited line of what it did is a beat, and so is that it was unwrapped.
    """
    if every is None:
        return None
    beats = [o.at for o in lines if token and (o.actor == token or (o.kind is Kind.UNWRAPPED and o.subject == token))]
    return max(beats) + every if beats else None
