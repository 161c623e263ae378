"""Read one task's row, and its record from the rows of all tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, literal, select

from jitvault.errors import LedgerUnavailable
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
from jitvault.ledger.task_change import FINISHED, NOT_READ_BACK
from jitvault.model.event_chain import Event

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
        raise LedgerUnavailable(f"the ledger has no revision {task.revision} of task {task_id}")
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


def _operations(connection: Connection, task_id: str) -> tuple[OperationRow, ...]:
    return tuple(get(row, OperationRow) for row in connection.execute(_OPERATIONS, {"task_id": task_id}).mappings())


def read_findings(connection: Connection, task_id: str) -> tuple[Mapping[str, Any], ...]:
    """Return the findings about a task, the oldest first."""
    return tuple(dict(row) for row in connection.execute(_TASK_FINDINGS, {"task_id": task_id}).mappings())


def _events(connection: Connection, task_id: str, *, after: int) -> tuple[Event, ...]:
    return tuple(event_of(row) for row in connection.execute(_EVENTS, {"task_id": task_id, "after": after}))
