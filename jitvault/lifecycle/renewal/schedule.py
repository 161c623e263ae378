"""When a task with access is due next."""

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


def unwrap_deadline(grant: GrantRow) -> datetime | None:
    """Return when the wrapping token of a grant expires, by Vault's clock."""
    return grant.issued_at + timedelta(seconds=grant.wrap_ttl_s) if grant.issued_at else None


def next_heartbeat_deadline(worker: WorkerContext, file: TaskRecord) -> datetime | None:
    """Return when the next heartbeat of the task is due, by Vault's clock.

    The result is None where the task has none to give.
    """
    every = Revision.of(file.revision.body).spec.spec.window.heartbeat
    if every is None:
        return None
    return heartbeat_deadline(file.grants[-1].accessor_hmac or "", worker.ledger.acts(file).observations, every)


def has_come(worker: WorkerContext, file: TaskRecord, at: datetime | None) -> bool:
    """Return whether a due time of the task has come.

    A time that is further away than any task is put off counts as come: a clock was wrong when it was written.
    """
    return is_due(at, worker.now(), _longest(worker, file))


def is_due_now(worker: WorkerContext, file: TaskRecord) -> bool:
    """Return whether the task is due."""
    return has_come(worker, file, file.task.due_at)


def due_too_late(worker: WorkerContext) -> list[str]:
    """Return the tasks that are due later than any task is put off.

    Some clock was wrong when their due time was written.
    """
    far = worker.ledger.due_after(worker.now() + min(worker.rolling_step, LATEST) + _slack(worker))
    files = (worker.legible(task_id) for task_id in far)
    return [file.task.task_id for file in files if file is not None and is_due_now(worker, file)]


def _longest(worker: WorkerContext, file: TaskRecord) -> timedelta | None:
    """Return for how long the task is put off at most; None before its grant.

    Before the grant its window may open in months.
    """
    state = file.task.state
    if state in BEFORE_GRANT:
        return None
    longest = [timedelta(0) if state in DELIVERED_STATES else LATEST]
    if state in LIVE_STATES:
        # a renewed token gets one step at a time, any other its whole TTL; another worker may use longer steps
        seconds = (grant.step_s if grant.rolling else max(grant.step_s, grant.ttl_s) for grant in file.grants)
        longest += [worker.rolling_step, *(timedelta(seconds=s) for s in seconds)]
    return max(longest) + _slack(worker)


def _slack(worker: WorkerContext) -> timedelta:
    """Return the tolerance: jitter, a settle window, and the clocks' skew on both sides."""
    return LATEST / 4 + worker.settle_window + 2 * MAX_SKEW


def renewable_credentials(file: TaskRecord) -> list[GrantRow | LeaseRow]:
    """Return the credentials of the task that are renewed, its token first."""
    rows: tuple[GrantRow | LeaseRow, ...] = (file.grants[-1], *file.leases)
    return [row for row in rows if row.renew_at is not None and row.verdict is Verdict.LIVE]


def next_due_at(worker: WorkerContext, file: TaskRecord) -> datetime | None:
    """Return when the task is due next, at the latest at its deadline."""
    grant = file.grants[-1]
    unclaimed = unwrap_deadline(grant) if file.task.state is State.ISSUED else None
    renewals = (row.renew_at for row in renewable_credentials(file))
    return next_look(file.task.ends_at, grant.expires_at, unclaimed, next_heartbeat_deadline(worker, file), *renewals)


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
