"""Queries over all tasks: which there are, and whose a credential is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    bindparam,
    case,
    func,
    select,
    union,
)

from jitvault.ledger.model import (
    TaskRow,
)
from jitvault.ledger.rows import get
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches
from jitvault.model.kinds import EventKind
from jitvault.model.states import LIVE_STATES, OVER, State

# by the children's rows, and by the parent's own event chain
_CHILDREN = union(
    select(schema.tasks.c.task_id).where(schema.tasks.c.parent == bindparam("task_id")),
    select(schema.events.c.body["to"].as_string()).where(
        schema.events.c.task_id == bindparam("task_id"), schema.events.c.kind == EventKind.HANDED_ON
    ),
)


class TaskQueries:
    """Find tasks, and what belongs to any of them; a part of `Ledger`."""

    _db: Database

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
        task = schema.tasks.c
        query = select(task.task_id, task.seq).where(
            schema.IS_OPEN, task.state.in_([state.value for state in LIVE_STATES])
        )
        with self._db.read() as connection:
            return {row.task_id: row.seq for row in connection.execute(query)}

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
