"""Write a change of a task: the only place where a task changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import BindParameter, Connection, bindparam, insert, select, update

from jitvault.errors import WrongState
from jitvault.ledger.model import Change, OperationRow, OpState, Row, TaskRow
from jitvault.ledger.notices import tell_change
from jitvault.ledger.rows import put, rfc3339
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import batches
from jitvault.model.event_chain import GENESIS, link

# built once: building a statement costs more than running it
_UPDATE_TASK = update(schema.tasks).where(
    schema.tasks.c.task_id == bindparam("the_task"), schema.tasks.c.version == bindparam("its_version")
)
_INSERT_EVENT = insert(schema.events)
_OPS: BindParameter[str] = bindparam("ops", expanding=True)
_OPS_SEEN = select(schema.observations.c.op).where(schema.observations.c.op.in_(_OPS), schema.observations.c.closing)
_SETTLE_SEEN = (
    update(schema.operations)
    .where(schema.operations.c.op_id.in_(_OPS), schema.operations.c.op_id.in_(_OPS_SEEN))
    .values(state=OpState.SETTLED)
)


def write_change(
    connection: Connection, task: TaskRow, change: Change, at: datetime, *, is_new: bool = False
) -> TaskRow:
    """Write a task's change and return the task after it.

    In one transaction: the changed rows, one event, the chain's head that covers the event, the task's own columns, and
    the notices about the change. Raises WrongState where the task is not at the version of `task` any more.
    """
    state = change.state or task.state
    body = {**change.body, "state": state.value}
    event = link(task.task_id, task.seq + 1, task.head or GENESIS, str(change.event), rfc3339(at), body)
    put(connection, change.rows)
    settle_seen(connection, change.rows)
    connection.execute(_INSERT_EVENT, asdict(event))
    values = {
        **change.fields,
        "state": state,
        "seq": event.seq,
        "head": event.hash,
        "version": task.version + 1,
    }
    changed = connection.execute(_UPDATE_TASK, {**values, "the_task": task.task_id, "its_version": task.version})
    if changed.rowcount != 1:
        raise WrongState(f"task {task.task_id} changed in between", hint="Run the command again.")
    changed_task = replace(task, **values)
    tell_change(connection, event, changed_task, at, before=None if is_new else task.state)
    return changed_task


def settle_seen(connection: Connection, rows: Sequence[Row]) -> None:
    """Settle answered operations whose audit line was ingested already.

    Another process can ingest an operation's line before its answer is committed here.
    """
    ops = [row.op_id for row in rows if isinstance(row, OperationRow) and row.state is OpState.ANSWERED]
    for batch in batches(ops):
        connection.execute(_SETTLE_SEEN, {"ops": batch})
