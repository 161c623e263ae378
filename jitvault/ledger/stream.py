"""The audit stream in the ledger: what a batch of lines means for tasks, and what is read back as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jitvault.domain.confirmation import Canary, Trail
from jitvault.domain.lifecycle import Verdict
from jitvault.domain.observation import Kind, Observation, Place
from jitvault.ledger import schema
from jitvault.ledger.change import write_change
from jitvault.ledger.rows import get, get_observation, observation_values
from jitvault.ports.ledger import Change, GrantRow, LeaseRow, OpState, TaskFile, TaskRow

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def enter(connection: Connection, seen: Sequence[Observation], at: datetime) -> None:
    """Write the lines of a batch that are not known yet, and everything that they mean."""
    new = _unknown(connection, seen)
    if new:
        connection.execute(insert(schema.observations), [observation_values(o) for o in new])
        _settle_operations(connection, new)
        _tell_tasks(connection, new, at)


def keep_canary(connection: Connection, source: str, expected: str) -> Canary | None:
    """The canary whose HMAC is `expected`, once its own line was read; it is kept as a mark of trust."""
    line = schema.observations.c
    query = select(schema.observations).where(
        line.subject == expected, line.source == source, line.kind == Kind.CANARY, line.closing
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    place = Place(source, row["epoch"], row["offset"])
    values = {"source": source, "epoch": place.epoch, "offset": place.offset, "at": row["at"]}
    connection.execute(upsert(schema.canaries).values(values).on_conflict_do_nothing())
    return Canary(place, row["at"])


def _settle_operations(connection: Connection, new: Iterable[Observation]) -> None:
    """Mark the acts whose own line was read, so that those that are missing are few and quickly found.

    An operation id counts in a line of one of our own sessions alone: anybody can send the header.
    """
    sessions = set(connection.execute(select(schema.worker_sessions.c.accessor_hmac)).scalars())
    ops = {o.op for o in new if o.op and o.closing and o.actor in sessions}
    if ops:
        connection.execute(
            update(schema.operations)
            .where(schema.operations.c.op_id.in_(ops), schema.operations.c.state == OpState.ANSWERED)
            .values(state=OpState.SETTLED)
        )


def _unknown(connection: Connection, seen: Sequence[Observation]) -> list[Observation]:
    """The lines of a batch that the ledger does not have: the same bytes twice change nothing."""
    by_line = {o.line: o for o in seen}
    query = select(schema.observations.c.line).where(schema.observations.c.line.in_(by_line))
    known = set(connection.execute(query).scalars())
    return [o for line, o in by_line.items() if line not in known]


def _tell_tasks(connection: Connection, seen: list[Observation], at: datetime) -> None:
    """Enter the leases that a batch shows, and give each task that it concerns one event.

    Lines are linked by the HMAC of the accessor alone: it is the token's identity.
    """
    accessors = {o.actor for o in seen} | {o.subject for o in seen}
    query = select(schema.grants).where(schema.grants.c.accessor_hmac.in_(sorted(a for a in accessors if a)))
    grants = {row["accessor_hmac"]: get(row, GrantRow) for row in connection.execute(query).mappings()}
    by_task: dict[str, list[Observation]] = {}
    for o in seen:
        grant = grants.get(o.actor) or grants.get(o.subject)
        if grant:
            by_task.setdefault(grant.task_id, []).append(o)
    for task_id, lines in sorted(by_task.items()):
        query = select(schema.tasks).where(schema.tasks.c.task_id == task_id)
        task = get(connection.execute(query).mappings().one(), TaskRow)
        rows = _new_leases(connection, lines, grants)
        body = {"lines": sorted(o.line for o in lines), "leases": [row.lease_id for row in rows]}
        write_change(connection, task, Change("observed", body, rows=rows), at)


def _new_leases(connection: Connection, lines: list[Observation], grants: dict[str, GrantRow]) -> tuple[LeaseRow, ...]:
    rows = []
    for o in lines:
        grant = grants.get(o.actor)
        if o.kind is not Kind.LEASE_ISSUED or not o.closing or grant is None:
            continue
        known = select(schema.leases.c.lease_id).where(schema.leases.c.lease_id == o.subject)
        if connection.execute(known).scalar() is None:
            rows.append(
                LeaseRow(
                    lease_id=o.subject,
                    task_id=grant.task_id,
                    grant_id=grant.grant_id,
                    path=o.path,
                    username=o.detail.get("username"),
                    issued_at=o.at,
                    verdict=Verdict.LIVE,
                    dead_at=None,
                )
            )
    return tuple(rows)


def trail(connection: Connection, file: TaskFile) -> Trail:
    line = schema.observations.c
    tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
    subjects = tokens + [lease.lease_id for lease in file.leases]
    ops = [op.op_id for op in file.operations]
    wanted = or_(line.actor.in_(tokens), line.subject.in_(subjects), line.op.in_(ops))
    first = func.min(line.at)
    began = connection.execute(select(first).where(wanted)).scalar() or file.task.created_at
    # a revocation that names its lease in the body shows an HMAC that the ledger does not know
    unnamed = (line.kind == Kind.LEASE_REVOKED) & line.subject.startswith("hmac-")
    query = select(schema.observations).where(or_(wanted, or_(line.kind == Kind.HAZARD, unnamed) & (line.at >= began)))
    rows = connection.execute(query.order_by(line.source, line.epoch, line.offset)).mappings()
    lines = tuple(get_observation(row) for row in rows)
    sessions = connection.execute(select(schema.worker_sessions.c.accessor_hmac)).scalars()
    return Trail(
        observations=lines,
        canaries=_canaries_around(connection, lines, file),
        worker_accessors=frozenset(sessions),
    )


def _canaries_around(connection: Connection, lines: Sequence[Observation], file: TaskFile) -> tuple[Canary, ...]:
    """The canaries from the last one before the first line to the first one after the last line and expiry."""
    if not lines:
        return ()
    canary = schema.canaries.c
    expiries = [grant.expires_at for grant in file.grants if grant.expires_at]
    last = max([o.at for o in lines] + expiries)
    lower = select(func.max(canary.at)).where(canary.at < min(o.at for o in lines)).scalar_subquery()
    upper = select(func.min(canary.at)).where(canary.at >= last).scalar_subquery()
    query = (
        select(schema.canaries)
        .where(canary.at >= func.coalesce(lower, _EVER), canary.at <= func.coalesce(upper, _NEVER))
        .order_by(canary.source, canary.epoch, canary.offset)
    )
    return tuple(Canary(Place(row.source, row.epoch, row.offset), row.at) for row in connection.execute(query))
