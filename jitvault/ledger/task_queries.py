"""Read tasks: one task's record, which tasks there are, whose a lease is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Select,
    Table,
    bindparam,
    case,
    func,
    literal,
    select,
    union,
)

from jitvault.errors import CorruptRecord, readable
from jitvault.ledger.model import (
    CheckRow,
    DecisionRow,
    GrantRow,
    LeaseRow,
    OperationRow,
    RevisionRow,
    TaskRecord,
    TaskRow,
)
from jitvault.ledger.rows import TABLES, R, event_of, get, of_task
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches
from jitvault.ledger.task_change import FINISHED, NOT_READ_BACK
from jitvault.model.event_bodies import AboutExtension, kinds_of, said
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.states import LIVE_STATES, OVER, State

_FINDINGS = "has_findings"


def _exists_column(kind: type) -> str:
    return f"has_{TABLES[kind].name}"


_OPTIONAL_TABLES: Mapping[str, Table] = {
    **{_exists_column(kind): TABLES[kind] for kind in (DecisionRow, GrantRow, LeaseRow, CheckRow, OperationRow)},
    _FINDINGS: schema.findings,
}


def _task_and_which_rows() -> Select[Any]:
    """Return the statement for a task and whether other tables mention it.

    Most tasks have no rows in most tables, so their queries can be skipped.
    """
    task_id = schema.tasks.c.task_id
    exists = (
        select(literal(1)).where(table.c.task_id == task_id).exists().label(name)
        for name, table in _OPTIONAL_TABLES.items()
    )
    return select(schema.tasks, *exists).where(task_id == bindparam("task_id"))


# Built once: building a statement costs more than running it, and revocations wait for these queries.
TASK_BY_ID = select(schema.tasks).where(schema.tasks.c.task_id == bindparam("task_id"))
_TASK_AND_WHICH_ROWS = _task_and_which_rows()
_EVENTS = (
    select(*(schema.events.c[field.name] for field in fields(Event)))
    .where(schema.events.c.task_id == bindparam("task_id"), schema.events.c.seq > bindparam("after"))
    .order_by(schema.events.c.seq)
)
_OP = schema.operations.c
# those of which `is_read_back` is true
_OPERATIONS = (
    select(schema.operations)
    .where(
        _OP.task_id == bindparam("task_id"),
        _OP.kind.not_in(NOT_READ_BACK) | _OP.state.not_in(FINISHED),
    )
    .order_by(_OP.sent_at)
)
_TASK_FINDINGS = (
    select(schema.findings).where(schema.findings.c.task_id == bindparam("task_id")).order_by(schema.findings.c.id)
)
# by the children's rows, and by the parent's own event chain
_CHILDREN = union(
    select(schema.tasks.c.task_id).where(schema.tasks.c.parent == bindparam("task_id")),
    select(schema.events.c.body["to"].as_string()).where(
        schema.events.c.task_id == bindparam("task_id"), schema.events.c.kind == EventKind.HANDED_ON
    ),
)
_LIVE = select(schema.tasks.c.task_id, schema.tasks.c.seq).where(
    schema.IS_OPEN, schema.tasks.c.state.in_([state.value for state in LIVE_STATES])
)


class TaskQueries:
    """Read one task, or find many; a part of `Ledger`."""

    _db: Database

    def task(self, task_id: str) -> TaskRow | None:
        """Return one task, None where the ledger does not know the task."""
        with self._db.read() as connection:
            return read_task(connection, task_id)

    def has_tasks(self) -> bool:
        """Return whether the ledger knows any task."""
        with self._db.read() as connection:
            return connection.execute(select(schema.tasks.c.task_id).limit(1)).first() is not None

    def record(self, task_id: str) -> TaskRecord | None:
        """Return everything known about a task, None for an unknown task.

        Raises CorruptRecord where somebody edited the task's rows so that they cannot be read.
        """
        with self._db.read() as connection, readable(task_id):
            return read_record(connection, task_id)

    def refreshed(self, record: TaskRecord) -> TaskRecord:
        """Return `record` as the ledger has it now.

        `record` was read a moment ago; only what changed is read again.

        Raises CorruptRecord as `record` does, and where the task is gone: jitvault deletes none that a worker has.
        """
        task_id = record.task.task_id
        with self._db.read() as connection, readable(task_id):
            task = read_task(connection, task_id)
            if task is None:
                raise CorruptRecord(f"task {task_id} disappeared from the ledger", task_id=task_id)
            after = record.task.seq
            news = _events(connection, task_id, after=after) if task != record.task else ()
            if after + len(news) != task.seq or not all(map(_is_lines_alone, news)):
                return read_record(connection, task_id, known=record.events) or record
            # findings, and operations that are settled, raise no version
            operations, findings = _operations(connection, task_id), read_findings(connection, task_id)
        events = record.events + news
        return replace(record, task=task, events=events, operations=operations, findings=findings)

    def with_findings(self, record: TaskRecord) -> TaskRecord:
        """Return `record` with the findings about the task as the ledger has them now."""
        with self._db.read() as connection:
            return replace(record, findings=read_findings(connection, record.task.task_id))

    def tasks(self, states: Collection[State] = frozenset(State)) -> list[TaskRow]:
        """Return the tasks in one of `states`, the oldest first."""
        task = schema.tasks.c
        query = select(schema.tasks).where(task.state.in_([state.value for state in states]))
        if OVER.isdisjoint(states):
            # lets the database use the index of open tasks: most tasks are over
            query = query.where(schema.IS_OPEN)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(task.created_at, task.task_id)).mappings()
            return [get(row, TaskRow) for row in rows]

    def task_ids(self, states: Collection[State]) -> list[str]:
        """Return the ids of the tasks in these states, the oldest first.

        Unlike `tasks`, it names a task whose row cannot be read.
        """
        task = schema.tasks.c
        which = task.state.in_([state.value for state in states])
        with self._db.read() as connection:
            query = select(task.task_id).where(which).order_by(task.created_at, task.task_id)
            return list(connection.execute(query).scalars())

    def known_tasks(self, task_ids: Collection[str]) -> list[TaskRow]:
        """Return those of `task_ids` that the ledger knows."""
        task_id = schema.tasks.c.task_id
        with self._db.read() as connection:
            return [
                get(row, TaskRow)
                for batch in batches(sorted(task_ids))
                for row in connection.execute(select(schema.tasks).where(task_id.in_(batch))).mappings()
            ]

    def requesters(self, task_ids: Collection[str]) -> dict[str, str]:
        """Return the requester of each known task."""
        task = schema.tasks.c
        found: dict[str, str] = {}
        with self._db.read() as connection:
            for batch in batches(sorted(task_ids)):
                query = select(task.task_id, task.requester).where(task.task_id.in_(batch))
                found |= {row.task_id: row.requester for row in connection.execute(query)}
        return found

    def unknown_tasks(self, task_ids: Collection[str]) -> list[str]:
        """Return those of `task_ids` that the ledger has no task of."""
        task_id = schema.tasks.c.task_id
        unknown = set(task_ids)
        with self._db.read() as connection:
            for batch in batches(sorted(task_ids)):
                unknown -= set(connection.execute(select(task_id).where(task_id.in_(batch))).scalars())
        return sorted(unknown)

    def current_bodies(self, task_ids: Collection[str]) -> dict[str, bytes]:
        """Return the body of each task's current revision, by task id."""
        return self._of_current(schema.revisions.c.body, task_ids)

    def current_decisions(self, task_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return policy's decision about each task's current revision, by task id."""
        return self._of_current(schema.revisions.c.decision, task_ids)

    def _of_current(self, column: Column[Any], task_ids: Collection[str]) -> dict[str, Any]:
        task = schema.tasks.c
        revision = schema.revisions.c
        is_current = (revision.task_id == task.task_id) & (revision.revision == task.revision)
        query = select(task.task_id, column.label("found")).join(schema.revisions, is_current)
        found: dict[str, Any] = {}
        with self._db.read() as connection:
            for batch in batches(sorted(task_ids)):
                for row in connection.execute(query.where(task.task_id.in_(batch))):
                    found[row.task_id] = row.found
        return found

    def last_extensions(self, task_ids: Collection[str]) -> dict[str, tuple[Event, AboutExtension]]:
        """Return each task's last event about more time, by task id.

        A task without one is left out. An event that cannot be read is left out.
        """
        event = schema.events.c
        query = select(*(event[field.name] for field in fields(Event)), event.task_id).where(
            event.kind.in_(kinds_of(AboutExtension))
        )
        found: dict[str, tuple[Event, AboutExtension]] = {}
        with self._db.read() as connection:
            for batch in batches(sorted(task_ids)):
                for row in connection.execute(query.where(event.task_id.in_(batch)).order_by(event.seq)):
                    *columns, task_id = row
                    with suppress(CorruptRecord):
                        (found[task_id],) = said([event_of(columns)], AboutExtension)
        return found

    def revision_bodies(self) -> Iterator[bytes]:
        """Yield the body of every revision that was ever submitted."""
        with self._db.read() as connection:
            # streamed: there may be millions of revisions
            yield from connection.execution_options(yield_per=500).execute(select(schema.revisions.c.body)).scalars()

    def children(self, task_id: str) -> list[str]:
        """Return the ids of the tasks that this task delegated to, sorted.

        The parent's own chain counts as well as the children's rows, so that editing a child's row does not hide the
        child.
        """
        with self._db.read() as connection:
            return sorted(connection.execute(_CHILDREN, {"task_id": task_id}).scalars())

    def live_tasks(self) -> dict[str, int]:
        """Return the tasks that hold access, each with its last event's number."""
        with self._db.read() as connection:
            return {row.task_id: row.seq for row in connection.execute(_LIVE)}

    def ungranted(self) -> list[str]:
        """Return the tasks that may still be granted.

        Tasks whose issue was begun and not finished are among them.
        """
        task = schema.tasks.c
        open_ = [State.PENDING_APPROVAL.value, State.APPROVED.value, State.ISSUING.value]
        with self._db.read() as connection:
            return list(connection.execute(select(task.task_id).where(schema.IS_OPEN, task.state.in_(open_))).scalars())

    def known_leases(self, lease_ids: Sequence[str]) -> set[str]:
        """Return those of these leases that belong to any task."""
        return self._among(schema.leases.c.lease_id, lease_ids)

    def task_of_target(self, name: str) -> str | None:
        """Return the task whose lease has this name at its target.

        None where no task has such a lease.
        """
        lease = schema.leases.c
        with self._db.read() as connection:
            return connection.execute(select(lease.task_id).where(lease.target_name == name).limit(1)).scalar()

    def known_targets(self, names: Sequence[str]) -> set[str]:
        """Return those of these target names that belong to a task's lease."""
        return self._among(schema.leases.c.target_name, names)

    def _among(self, column: Column[Any], values: Sequence[str]) -> set[str]:
        """Return those of `values` that a column has."""
        known: set[str] = set()
        with self._db.read() as connection:
            for batch in batches(values):
                known |= set(connection.execute(select(column).where(column.in_(batch))).scalars())
        return known

    def finding_counts(self) -> dict[str, int]:
        """Return how many findings each task has, for tasks that have any.

        Findings that were only counted are included.
        """
        finding = schema.findings.c
        # a row with `more` stands for as many findings
        count = func.sum(case((finding.more > 0, finding.more), else_=1))
        query = select(finding.task_id, count).where(finding.task_id.is_not(None)).group_by(finding.task_id)
        with self._db.read() as connection:
            return {task_id: found for task_id, found in connection.execute(query)}  # noqa: C416 - rows are no pairs

    def issue_times(self, role: str) -> set[datetime]:
        """Return Vault's issue times of all known tokens of a token role."""
        grant = schema.grants.c
        query = select(grant.issued_at).where(grant.role == role, grant.issued_at.is_not(None))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())


def read_task(connection: Connection, task_id: str) -> TaskRow | None:
    """Return a task's own row, None for an unknown task."""
    row = connection.execute(TASK_BY_ID, {"task_id": task_id}).mappings().first()
    return get(row, TaskRow) if row else None


def read_record(connection: Connection, task_id: str, *, known: tuple[Event, ...] = ()) -> TaskRecord | None:
    """Return everything known about a task, None for an unknown task.

    Events are append-only, so only those after the `known` ones are read: a task that was held for hours has thousands.
    """
    row = connection.execute(_TASK_AND_WHICH_ROWS, {"task_id": task_id}).mappings().first()
    if row is None:
        return None
    task = get(row, TaskRow)
    present = {name for name in _OPTIONAL_TABLES if row[name]}

    def of(kind: type[R], *order: str) -> tuple[R, ...]:
        return of_task(connection, kind, task_id, *order) if _exists_column(kind) in present else ()

    revisions = of_task(connection, RevisionRow, task_id, "revision")
    current = next((r for r in revisions if r.revision == task.revision), None)
    if current is None:
        # no more than one task is to stand still
        raise CorruptRecord(f"there is no revision {task.revision}")
    return TaskRecord(
        task=task,
        revision=current,
        # only decisions on the current revision count
        decisions=tuple(d for d in of(DecisionRow, "entity_id") if d.digest == task.digest and d.decision != "lapsed"),
        grants=of(GrantRow, "attempt"),
        leases=of(LeaseRow, "issued_at", "lease_id"),
        checks=of(CheckRow, "subject", "n"),
        operations=_operations(connection, task_id) if _exists_column(OperationRow) in present else (),
        events=known + _events(connection, task_id, after=known[-1].seq if known else 0),
        findings=read_findings(connection, task_id) if _FINDINGS in present else (),
    )


def _is_lines_alone(event: Event) -> bool:
    """Return whether an event says of a task no more than that it has further audit lines."""
    return event.kind == EventKind.OBSERVED and not event.body.get("leases")


def _operations(connection: Connection, task_id: str) -> tuple[OperationRow, ...]:
    return tuple(get(row, OperationRow) for row in connection.execute(_OPERATIONS, {"task_id": task_id}).mappings())


def read_findings(connection: Connection, task_id: str) -> tuple[Mapping[str, Any], ...]:
    """Return the findings about a task, the oldest first."""
    return tuple(dict(row) for row in connection.execute(_TASK_FINDINGS, {"task_id": task_id}).mappings())


def _events(connection: Connection, task_id: str, *, after: int) -> tuple[Event, ...]:
    return tuple(event_of(row) for row in connection.execute(_EVENTS, {"task_id": task_id, "after": after}))
