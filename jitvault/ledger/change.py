"""The one place where a task changes."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from jitvault.domain.chain import GENESIS, link
from jitvault.errors import WrongState
from jitvault.ledger import schema
from jitvault.ledger.rows import put, rfc3339
from jitvault.ports.ledger import Change, OperationRow, OpState, TaskRow


def write_change(connection: Connection, task: TaskRow, change: Change, at: datetime) -> TaskRow:
    """The one place where a task changes: its rows, one event, and the head that covers it."""
    state = change.state or task.state
    body = {**change.body, "state": state.value}
    event = link(task.task_id, task.seq + 1, task.head or GENESIS, change.event, rfc3339(at), body)
    for row in change.rows:
        put(connection, row)
        if isinstance(row, OperationRow) and row.state is OpState.ANSWERED:
            settle_if_seen(connection, row.op_id)
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
    return replace(task, **values)


def settle_if_seen(connection: Connection, op_id: str) -> None:
    """Whoever reads the stream can see an act's line before its answer is committed here."""
    line = schema.observations.c
    seen = select(line.op).where(line.op == op_id, line.closing).exists()
    connection.execute(
        update(schema.operations).where(schema.operations.c.op_id == op_id, seen).values(state=OpState.SETTLED)
    )
