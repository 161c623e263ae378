"""The ledger on a database: how a task changes, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from jitvault.domain.chain import GENESIS, Event, link
from jitvault.domain.confirmation import Canary, Trail
from jitvault.domain.lifecycle import Verdict, check_move
from jitvault.domain.observation import Kind, Observation, Place
from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger import schema
from jitvault.ledger.claims import extend, held
from jitvault.ledger.database import Database
from jitvault.ledger.rows import (
    get,
    get_observation,
    observation_values,
    of_task,
    put,
    rfc3339,
)
from jitvault.ports.audit import Batch, Position
from jitvault.ports.ledger import (
    Change,
    CheckRow,
    DecisionRow,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    RevisionRow,
    TaskFile,
    TaskRow,
)


class SqlLedger:
    """`jitvault.ports.ledger.Ledger` with SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # -- changing a task ----------------------------------------------------------------------------

    @contextmanager
    def claim(self, task_id: str) -> Iterator[int]:
        with held(self._db, schema.tasks, schema.tasks.c.task_id == task_id, f"task {task_id}") as epoch:
            yield epoch

    def extend(self, task_id: str, claim: int) -> None:
        if not extend(self._db, schema.tasks, schema.tasks.c.task_id == task_id, claim):
            raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")

    def create(self, task: TaskRow, change: Change, *, at: datetime) -> TaskRow:
        def unit(connection: Connection) -> TaskRow:
            try:
                connection.execute(insert(schema.tasks).values(**asdict(task)))
            except IntegrityError as error:
                raise WrongState(f"task {task.task_id} exists already") from error
            check_move(task.task_id, None, task.state)
            return _write(connection, task, change, at)

        return self._db.write(unit)

    def apply(self, task_id: str, change: Change, *, claim: int, at: datetime) -> TaskRow:
        def unit(connection: Connection) -> TaskRow:
            task = _fenced(connection, task_id, claim)
            check_move(task_id, task.state, change.state or task.state)
            return _write(connection, task, change, at)

        return self._db.write(unit)

    # -- reading -------------------------------------------------------------------------------------

    def task(self, task_id: str) -> TaskRow | None:
        with self._db.read() as connection:
            return _task(connection, task_id)

    def tasks(self) -> list[TaskRow]:
        query = select(schema.tasks).order_by(schema.tasks.c.created_at, schema.tasks.c.task_id)
        with self._db.read() as connection:
            return [get(row, TaskRow) for row in connection.execute(query).mappings()]

    def file(self, task_id: str) -> TaskFile | None:
        with self._db.read() as connection:
            task = _task(connection, task_id)
            if task is None:
                return None
            revisions = of_task(connection, RevisionRow, task_id, "revision")
            current = next((r for r in revisions if r.revision == task.revision), None)
            if current is None:
                raise LedgerUnavailable(f"the ledger has no revision {task.revision} of task {task_id}")
            found = select(schema.findings).where(schema.findings.c.task_id == task_id).order_by("id")
            return TaskFile(
                task=task,
                revision=current,
                decisions=of_task(connection, DecisionRow, task_id, "entity_id"),
                grants=of_task(connection, GrantRow, task_id, "attempt"),
                leases=of_task(connection, LeaseRow, task_id, "issued_at", "lease_id"),
                checks=of_task(connection, CheckRow, task_id, "subject", "n"),
                operations=of_task(connection, OperationRow, task_id, "sent_at"),
                events=_events(connection, task_id),
                findings=tuple(dict(row) for row in connection.execute(found).mappings()),
            )

    def trail(self, file: TaskFile) -> Trail:
        with self._db.read() as connection:
            return _trail(connection, file)

    # -- the audit stream ----------------------------------------------------------------------------

    @contextmanager
    def claim_source(self, source: str) -> Iterator[int]:
        table = schema.audit_sources
        with held(self._db, table, table.c.name == source, f"audit source {source}") as epoch:
            yield epoch

    def start_source(self, source: str, position: Position) -> None:
        values = {"name": source, **asdict(position)}
        self._db.write(lambda c: c.execute(upsert(schema.audit_sources).values(values).on_conflict_do_nothing()))

    def position(self, source: str) -> Position | None:
        table = schema.audit_sources
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.name == source)).mappings().first()
        return Position(row["identity"], row["offset"], row["epoch"]) if row else None

    def observe(self, source: str, batch: Batch, *, claim: int, at: datetime) -> None:
        table = schema.audit_sources

        def unit(connection: Connection) -> None:
            moved = connection.execute(
                update(table)
                .where(table.c.name == source, table.c.claim_epoch == claim)
                .values(**asdict(batch.position), **({"gap": batch.gaps[-1][:500]} if batch.gaps else {}))
            )
            if moved.rowcount != 1:
                raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")
            new = _unknown(connection, batch.observations)
            if new:
                connection.execute(insert(schema.observations), [observation_values(o) for o in new])
                _tell_tasks(connection, new, at)

        self._db.write(unit)

    def canary(self, canary: Canary) -> None:
        values = {**asdict(canary.place), "at": canary.at}
        self._db.write(lambda c: c.execute(upsert(schema.canaries).values(values).on_conflict_do_nothing()))

    def find_canary(self, source: str, hashed: str) -> tuple[Place, datetime] | None:
        o = schema.observations.c
        query = select(schema.observations).where(
            o.source == source, o.kind == Kind.CANARY, o.subject == hashed, o.closing
        )
        with self._db.read() as connection:
            row = connection.execute(query).mappings().first()
        return (Place(source, row["epoch"], row["offset"]), row["at"]) if row else None

    def unseen_operations(self, before: datetime) -> list[str]:
        op, line = schema.operations.c, schema.observations.c
        seen = select(line.op).where(line.op == op.op_id, line.closing)
        query = select(op.op_id).where(op.state == OpState.ANSWERED, op.answered_at < before, ~seen.exists())
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def issue_times(self, role: str) -> set[datetime]:
        grant = schema.grants.c
        query = select(grant.issued_at).where(grant.role == role, grant.issued_at.is_not(None))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    # -- the rest ------------------------------------------------------------------------------------

    def session(self, accessor_hmac: str, at: datetime) -> None:
        values = {"accessor_hmac": accessor_hmac, "first_at": at, "last_at": at}
        statement = upsert(schema.worker_sessions).values(values)
        later = statement.on_conflict_do_update(index_elements=["accessor_hmac"], set_={"last_at": at})
        self._db.write(lambda c: c.execute(later))

    def installation(self) -> str | None:
        with self._db.read() as connection:
            return connection.execute(select(schema.installation.c.id)).scalar()

    def set_installation(self, installation: str) -> None:
        self._db.write(lambda c: c.execute(insert(schema.installation).values(one=1, id=installation)))

    def finding(self, task_id: str | None, rule: str, message: str, at: datetime) -> None:
        values = {"task_id": task_id, "rule": rule, "message": message[:1000], "at": at}
        self._db.write(lambda c: c.execute(upsert(schema.findings).values(values).on_conflict_do_nothing()))


def _task(connection: Connection, task_id: str) -> TaskRow | None:
    row = connection.execute(select(schema.tasks).where(schema.tasks.c.task_id == task_id)).mappings().first()
    return get(row, TaskRow) if row else None


def _fenced(connection: Connection, task_id: str, claim: int) -> TaskRow:
    """The task, if `claim` is still the newest claim of it."""
    query = select(schema.tasks).where(schema.tasks.c.task_id == task_id, schema.tasks.c.claim_epoch == claim)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")
    return get(row, TaskRow)


def _write(connection: Connection, task: TaskRow, change: Change, at: datetime) -> TaskRow:
    """The one place where a task changes: its rows, one event, and the head that covers it."""
    state = change.state or task.state
    body = {**change.body, "state": state.value}
    event = link(task.task_id, task.seq + 1, task.head or GENESIS, change.event, rfc3339(at), body)
    for row in change.rows:
        put(connection, row)
    connection.execute(insert(schema.events).values(**asdict(event)))
    values = {
        **change.fields,
        "state": state,
        "seq": event.seq,
        "head": event.hash,
        "version": task.version + 1,
    }
    changed = connection.execute(
        update(schema.tasks)
        .where(schema.tasks.c.task_id == task.task_id, schema.tasks.c.version == task.version)
        .values(values)
    )
    if changed.rowcount != 1:
        raise WrongState(f"task {task.task_id} changed in between", hint="Run the command again.")
    written = _task(connection, task.task_id)
    assert written is not None  # noqa: S101 - it was just updated
    return written


def _events(connection: Connection, task_id: str) -> tuple[Event, ...]:
    table = schema.events
    query = select(table).where(table.c.task_id == task_id).order_by(table.c.seq)
    return tuple(Event(**row) for row in connection.execute(query).mappings())


def _unknown(connection: Connection, seen: tuple[Observation, ...]) -> list[Observation]:
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
        task = _task(connection, task_id)
        if task is None:
            continue
        rows = _new_leases(connection, lines, grants)
        body = {"lines": sorted(o.line for o in lines), "leases": [row.lease_id for row in rows]}
        _write(connection, task, Change("observed", body, rows=rows), at)


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


def _trail(connection: Connection, file: TaskFile) -> Trail:
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
    canary = schema.canaries
    sessions = connection.execute(select(schema.worker_sessions.c.accessor_hmac)).scalars()
    return Trail(
        observations=tuple(get_observation(row) for row in rows),
        canaries=tuple(
            Canary(Place(row.source, row.epoch, row.offset), row.at)
            for row in connection.execute(select(canary).order_by(canary.c.source, canary.c.epoch, canary.c.offset))
        ),
        worker_accessors=frozenset(sessions),
    )
