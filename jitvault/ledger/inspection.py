"""What `jitvault check` reads of the ledger.

Whether its chains are whole, how much room it has, and what is left undone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from jitvault.errors import CorruptRecord, LedgerUnavailable
from jitvault.ledger.recovery import open_since
from jitvault.ledger.rows import last_product
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import HEAD, opened
from jitvault.ledger.storage.location import file_of
from jitvault.ledger.storage.rights import login_of
from jitvault.model.event_bodies import Decided, decode, kinds_of
from jitvault.model.event_chain import Event, chain_problems
from jitvault.model.ledger_facts import Finding, LastDecision, LedgerFacts, Room
from jitvault.model.states import LIVE_STATES, OVER, State, Verdict

# how many chains are checked at most, the newest first: of tasks that are open, and of tasks that are over
LIVING, FINISHED = 1_000, 200
_DECISION_AMONG_NEWEST = 20
_QUOTA_ROW_LIFE = timedelta(minutes=10)
_OVER = [state.value for state in OVER]


def condition(url: str, now: datetime, *, writes: bool) -> tuple[LedgerFacts, LastDecision | None]:
    """Return the ledger's facts, and the newest decision of its newest tasks.

    `writes` says that the ledger's login has to be a worker's. Writes nothing. Raises LedgerUnavailable.
    """
    with opened(url, create=False).read() as connection:
        newest = _newest(connection, over=False, most=LIVING) + _newest(connection, over=True, most=FINISHED)
        record = LedgerFacts(
            schema=HEAD,
            installation=connection.execute(select(schema.installation.c.id)).scalar(),
            tasks=connection.execute(select(func.count()).select_from(schema.tasks)).scalar_one(),
            looked_at=len(newest),
            broken=tuple(_broken(connection, newest)),
            room=room_for(url),
            findings=_findings(connection),
            overdue=_overdue(connection, now),
            ending=_ending(connection),
            stuck=_stuck(connection),
            recovering=open_since(connection),
            rules=connection.execute(select(schema.installation.c.generation)).scalar() or 0,
            product=last_product(connection),
            over_quota=_over_quota(connection, now),
            login=login_of(connection, writes=writes) if connection.dialect.name == "postgresql" else None,
        )
        return record, _last_decision(connection)


def _newest(connection: Connection, *, over: bool, most: int) -> list[tuple[str, str]]:
    """Return the newest tasks, each with the head of its chain."""
    task = schema.tasks.c
    which = task.state.in_(_OVER) if over else task.state.not_in(_OVER)
    query = select(task.task_id, task.head).where(which).order_by(task.created_at.desc()).limit(most)
    return [(row.task_id, row.head) for row in connection.execute(query)]


def _broken(connection: Connection, tasks: list[tuple[str, str]]) -> Iterator[str]:
    """Yield those of these tasks whose chain is not whole."""
    event = schema.events
    for task_id, head in tasks:
        try:
            query = select(event).where(event.c.task_id == task_id).order_by(event.c.seq)
            whole = not chain_problems([Event(**row) for row in connection.execute(query).mappings()], head=head)
        except CorruptRecord:
            whole = False
        if not whole:
            yield task_id


def _over_quota(connection: Connection, now: datetime) -> tuple[tuple[str, int, datetime], ...]:
    """Return the authors over quota that a worker reported lately.

    A worker that was killed does not remove its report.
    """
    over = schema.over_quota.c
    query = select(over.author, over.waiting, over.since).where(over.at > now - _QUOTA_ROW_LIFE).order_by(over.since)
    return tuple((row.author, row.waiting, row.since) for row in connection.execute(query))


def _findings(connection: Connection) -> tuple[Finding, ...]:
    found = schema.findings.c
    query = select(found.task_id, found.rule, found.at).where(found.closed_at.is_(None)).order_by(found.at.desc())
    return tuple(Finding(*row) for row in connection.execute(query))


def _overdue(connection: Connection, now: datetime) -> tuple[tuple[str, datetime], ...]:
    """Return held tasks whose due time has passed."""
    task = schema.tasks.c
    holding = task.state.in_([state.value for state in LIVE_STATES])
    query = select(task.task_id, task.due_at).where(holding, task.due_at <= now).order_by(task.due_at)
    return tuple((row.task_id, row.due_at) for row in connection.execute(query))


def _ending(connection: Connection) -> tuple[tuple[str, datetime], ...]:
    """Return the tasks that are ending, each with since when."""
    task = schema.tasks.c
    ending = (task.state == State.ENDING.value, task.ending_at.is_not(None))
    query = select(task.task_id, task.ending_at).where(*ending).order_by(task.ending_at)
    return tuple((row.task_id, row.ending_at) for row in connection.execute(query))


def _stuck(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Return the leases of open tasks that could not be revoked."""
    task, lease = schema.tasks.c, schema.leases.c
    not_revoked = lease.verdict.in_([Verdict.IRREVOCABLE.value, Verdict.REVOKE_FAILED.value])
    query = select(lease.lease_id, lease.task_id).join(schema.tasks, task.task_id == lease.task_id)
    found = connection.execute(query.where(task.state.not_in(_OVER), not_revoked).order_by(lease.lease_id))
    return tuple((row.lease_id, row.task_id) for row in found)


def _last_decision(connection: Connection) -> LastDecision | None:
    task, event = schema.tasks.c, schema.events.c
    latest = select(task.task_id).order_by(task.created_at.desc()).limit(_DECISION_AMONG_NEWEST)
    decided = event.kind.in_(kinds_of(Decided))
    query = select(event.task_id, event.at, event.kind, event.body).where(event.task_id.in_(latest), decided)
    for row in connection.execute(query.order_by(event.at.desc())):
        with suppress(CorruptRecord):
            body = decode(row.kind, row.body)
            assert isinstance(body, Decided)  # noqa: S101 - for the type checker: its kind says so
            return LastDecision(body.decision.policy.policy_digest, row.task_id, datetime.fromisoformat(row.at))
    return None


def room_for(url: str) -> Room | None:
    """Return the disk space of a SQLite ledger, also of one not made yet.

    None for a ledger on a server. Raises LedgerUnavailable.
    """
    path = file_of(url)
    if path is None:
        return None
    file = path.absolute()
    log = file.with_name(f"{file.name}-wal")
    try:
        existing = next(path for path in (file, *file.parents) if path.exists())
        disk = os.statvfs(existing)
        return Room(disk.f_bavail * disk.f_frsize, log.stat().st_size if log.exists() else 0)
    except OSError as error:
        raise LedgerUnavailable(f"the ledger {file} cannot be looked at: {error.strerror}") from None
