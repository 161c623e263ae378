"""Who takes part in a task, by the ledger's rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import BindParameter, Connection, bindparam, select

from jitvault.documents.paths import TaskParties
from jitvault.ledger.claims import DONE
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import batches
from jitvault.model.states import State

_TASK = schema.tasks.c
_IDS: BindParameter[str] = bindparam("task_ids", expanding=True)
_TASK_STATE = select(
    *(_TASK.task_id, _TASK.state, _TASK.requester, _TASK.agent, _TASK.claim_epoch, _TASK.claim_until)
).where(_TASK.task_id.in_(_IDS))
_OWNERS = (
    select(_TASK.task_id, schema.accesses.c.owner)
    .join(
        schema.accesses, (schema.accesses.c.task_id == _TASK.task_id) & (schema.accesses.c.revision == _TASK.revision)
    )
    .where(_TASK.task_id.in_(_IDS))
)
_APPROVED_BY = select(schema.decisions.c.task_id, schema.decisions.c.entity_id).where(
    schema.decisions.c.task_id.in_(_IDS), schema.decisions.c.decision == "approve"
)
_STATES = frozenset(state.value for state in State)


def parties_of(connection: Connection, task_ids: Collection[str]) -> Mapping[str, TaskParties]:
    """Return who takes part in each of these tasks, for known tasks."""
    found: dict[str, TaskParties] = {}
    for batch in batches(sorted(task_ids)):
        found |= _parts(connection, batch)
    return found


def _state(value: str) -> State:
    """Return the state in a row, ACTIVE where it is unknown.

    A task whose row was edited by hand may hold access.
    """
    return State(value) if value in _STATES else State.ACTIVE


def _parts(connection: Connection, task_ids: Sequence[str]) -> dict[str, TaskParties]:
    named = {"task_ids": list(task_ids)}
    rows = list(connection.execute(_TASK_STATE, named))
    may_end = {row.task_id: {row.requester, row.agent} for row in rows}
    approved_by: dict[str, set[str]] = {row.task_id: set() for row in rows}
    if rows:
        for task_id, owner in connection.execute(_OWNERS, named):
            may_end[task_id].add(owner)
        for task_id, entity in connection.execute(_APPROVED_BY, named):
            approved_by[task_id].add(entity)
    return {
        row.task_id: TaskParties(
            _state(row.state),
            frozenset(may_end[row.task_id]),
            frozenset(approved_by[row.task_id]),
            row.claim_epoch if row.claim_until == DONE else None,
        )
        for row in rows
    }
