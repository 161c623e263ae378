"""Write a change of a task: the only place where a task changes, but for its upkeep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import BindParameter, Connection, bindparam, insert, select, update

from jitvault.errors import WrongState
from jitvault.formats.conversion import as_json
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.claims import DONE
from jitvault.ledger.model import (
    Change,
    CheckRow,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    Row,
    TaskRecord,
    TaskRow,
)
from jitvault.ledger.notices import tell_change
from jitvault.ledger.row_digests import digests_of
from jitvault.ledger.rows import put
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import batches
from jitvault.model.event_chain import GENESIS, Event, link
from jitvault.model.kinds import OperationKind

# built once: building a statement costs more than running it
_UPDATE_TASK = update(schema.tasks).where(
    schema.tasks.c.task_id == bindparam("the_task"), schema.tasks.c.version == bindparam("its_version")
)
_UPDATE_CLAIMED = _UPDATE_TASK.where(schema.tasks.c.claim_epoch == bindparam("its_claim"))
NOT_READ_BACK = (OperationKind.RENEW_TOKEN, OperationKind.RENEW_LEASE, OperationKind.PUBLISH, OperationKind.SIGN)
FINISHED = (OpState.SETTLED, OpState.ABANDONED)
# the rows of a change that `record_after` follows
_FOLLOWED = (GrantRow, LeaseRow, CheckRow, OperationRow)
_INSERT_EVENT = insert(schema.events)
_OPS: BindParameter[str] = bindparam("ops", expanding=True)
_OPS_SEEN = select(schema.observations.c.op).where(schema.observations.c.op.in_(_OPS), schema.observations.c.closing)
_SETTLE_SEEN = (
    update(schema.operations)
    .where(schema.operations.c.op_id.in_(_OPS), schema.operations.c.op_id.in_(_OPS_SEEN))
    .values(state=OpState.SETTLED)
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WrittenChange:
    """What a change made of a task.

    `task` is the task after it, `event` the event that was appended, and `has_settled` says whether an operation whose
    answer came with the change is settled already, because its audit line was ingested before.
    """

    task: TaskRow
    event: Event
    has_settled: bool


def write_change(
    connection: Connection,
    task: TaskRow,
    change: Change,
    at: datetime,
    *,
    is_new: bool = False,
    claim: int | None = None,
) -> WrittenChange:
    """Write a task's change and return what it made of the task.

    In one transaction: the changed rows, one event, the chain's head that covers the event, the task's own columns, and
    the notices about the change. Raises WrongState, and has written nothing, where the task is not at the version of
    `task` any more, or where `claim` is given and is not the task's.
    """
    state = change.state or task.state
    written = asdict(task) if is_new else change.fields
    # not a state that is only read: whoever edited it would be vouched for
    written = {**written, "state": state.value} if is_new or change.state else written
    ops = (row for row in change.rows if isinstance(row, OperationRow))
    said = msgspec.structs.replace(
        change.body,
        ops={op.op_id: op.subject for op in ops if op.state is OpState.INTENDED},
        state=state.value,
        rows=digests_of(change.rows, written),
    )
    event = link(task.task_id, task.seq + 1, task.head or GENESIS, str(change.event), rfc3339(at), as_json(said))
    values = {
        **change.fields,
        "state": state,
        "seq": event.seq,
        "head": event.hash,
        "version": task.version + 1,
    }
    which = {"the_task": task.task_id, "its_version": task.version}
    if change.gives_back:
        which |= {"claim_until": DONE, "keeper": None}
    if claim is None:
        changed = connection.execute(_UPDATE_TASK, {**values, **which})
    else:
        changed = connection.execute(_UPDATE_CLAIMED, {**values, **which, "its_claim": claim})
    if changed.rowcount != 1:
        raise WrongState(f"task {task.task_id} changed in between", hint="Run the command again.")
    put(connection, change.rows)
    has_settled = settle_seen(connection, change.rows)
    connection.execute(_INSERT_EVENT, asdict(event))
    changed_task = replace(task, **values)
    tell_change(connection, event, change.body, changed_task, at, before=None if is_new else task.state)
    return WrittenChange(changed_task, event, has_settled)


def record_after(record: TaskRecord, rows: Sequence[Row], written: WrittenChange) -> TaskRecord | None:
    """Return a record as a change leaves it, without reading it again.

    This is the record that the ledger would return. `record` is the task as it was before the change, which wrote
    `rows`. Returns None where the record has to be read: a new revision decides which decisions count, and settled
    operations are not known here.
    """
    if written.has_settled or not all(isinstance(row, _FOLLOWED) for row in rows):
        return None
    operations = _merged(record.operations, {row.op_id: row for row in rows if isinstance(row, OperationRow)}, "op_id")
    checks = {(row.subject, row.n): row for row in record.checks}
    checks |= {(row.subject, row.n): row for row in rows if isinstance(row, CheckRow)}
    return replace(
        record,
        task=written.task,
        grants=_merged(record.grants, {row.grant_id: row for row in rows if isinstance(row, GrantRow)}, "grant_id"),
        leases=_merged(record.leases, {row.lease_id: row for row in rows if isinstance(row, LeaseRow)}, "lease_id"),
        checks=tuple(checks[key] for key in sorted(checks)),
        operations=tuple(sorted((op for op in operations if is_read_back(op)), key=lambda op: op.sent_at)),
        events=(*record.events, written.event),
    )


def _merged(before: Sequence[T], changed: dict[str, T], key: str) -> tuple[T, ...]:
    """Return the rows with the changed ones in their places.

    New rows are at the end.
    """
    return tuple(({getattr(row, key): row for row in before} | changed).values())


def is_read_back(op: OperationRow) -> bool:
    """Return whether a task's record has this operation.

    Finished renewals, publications and signatures are left out: a task that is held for hours has hundreds of them.
    """
    return op.kind not in NOT_READ_BACK or op.state not in FINISHED


def settle_seen(connection: Connection, rows: Sequence[Row]) -> bool:
    """Settle answered operations whose audit line was ingested already.

    Returns whether there are any. Another process can ingest an operation's line before its answer is committed here.
    """
    ops = [row.op_id for row in rows if isinstance(row, OperationRow) and row.state is OpState.ANSWERED]
    found = False
    for batch in batches(ops):
        found |= connection.execute(_SETTLE_SEEN, {"ops": batch}).rowcount > 0
    return found
