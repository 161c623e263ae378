"""The ledger on a database: how a task changes, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from jitvault.domain.chain import Event
from jitvault.domain.confirmation import Canary, Trail
from jitvault.domain.lifecycle import check_move
from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger import schema, stream
from jitvault.ledger.change import write_change
from jitvault.ledger.claims import extend, held
from jitvault.ledger.database import Database
from jitvault.ledger.rows import get, of_task
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
            return write_change(connection, task, change, at)

        return self._db.write(unit)

    def apply(self, task_id: str, change: Change, *, claim: int, at: datetime) -> TaskRow:
        def unit(connection: Connection) -> TaskRow:
            task = _fenced(connection, task_id, claim)
            check_move(task_id, task.state, change.state or task.state)
            return write_change(connection, task, change, at)

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
                # those about the present revision: what was said of an earlier one does not count any more
                decisions=tuple(
                    d for d in of_task(connection, DecisionRow, task_id, "entity_id") if d.digest == task.digest
                ),
                grants=of_task(connection, GrantRow, task_id, "attempt"),
                leases=of_task(connection, LeaseRow, task_id, "issued_at", "lease_id"),
                checks=of_task(connection, CheckRow, task_id, "subject", "n"),
                operations=of_task(connection, OperationRow, task_id, "sent_at"),
                events=_events(connection, task_id),
                findings=tuple(dict(row) for row in connection.execute(found).mappings()),
            )

    def trail(self, file: TaskFile) -> Trail:
        with self._db.read() as connection:
            return stream.trail(connection, file)

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

    def observe(
        self, source: str, batch: Batch, *, claim: int, at: datetime, expected: str | None = None
    ) -> Canary | None:
        table = schema.audit_sources

        def unit(connection: Connection) -> Canary | None:
            moved = connection.execute(
                update(table)
                .where(table.c.name == source, table.c.claim_epoch == claim)
                .values(**asdict(batch.position), **({"gap": batch.gaps[-1][:500]} if batch.gaps else {}))
            )
            if moved.rowcount != 1:
                raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")
            stream.enter(connection, batch.observations, at)
            return stream.keep_canary(connection, source, expected) if expected else None

        return self._db.write(unit)

    def keep_canary(self, source: str, expected: str) -> Canary | None:
        return self._db.write(lambda c: stream.keep_canary(c, source, expected))

    def unseen_operations(self, before: datetime) -> list[str]:
        op, line = schema.operations.c, schema.observations.c
        ours = select(schema.worker_sessions.c.accessor_hmac)
        seen = select(line.op).where(line.op == op.op_id, line.closing, line.actor.in_(ours))
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
        values = {"one": 1, "id": installation}
        # of two processes that start with a new ledger both come here
        self._db.write(lambda c: c.execute(upsert(schema.installation).values(values).on_conflict_do_nothing()))

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


def _events(connection: Connection, task_id: str) -> tuple[Event, ...]:
    table = schema.events
    query = select(table).where(table.c.task_id == task_id).order_by(table.c.seq)
    return tuple(Event(**row) for row in connection.execute(query).mappings())
