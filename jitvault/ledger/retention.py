"""Queries about what the worker published, and what may be removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import OperationRow, OpState
from jitvault.ledger.rows import get
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches
from jitvault.model.kinds import EventKind
from jitvault.model.states import State


class RetentionQueries:
    """Find what was published, and what may be removed; a part of `Ledger`."""

    _db: Database

    def sealed_before(self, names: Sequence[str], at: datetime) -> dict[str, str]:
        """Return those of these tasks that were sealed before `at`.

        Each with its requester's entity id.
        """
        task, event = schema.tasks.c, schema.events.c
        joined = schema.tasks.join(schema.events, event.task_id == task.task_id)
        query = select(task.task_id, task.requester).select_from(joined)
        query = query.where(task.state == State.SEALED.value, event.kind == EventKind.SEALED)
        # event times are texts of one width in UTC, so that their order is that of the times
        query = query.group_by(task.task_id, task.requester).having(func.max(event.at) < rfc3339(at))
        found: dict[str, str] = {}
        with self._db.read() as connection:
            for batch in batches(names):
                rows = connection.execute(query.where(task.task_id.in_(batch)))
                found |= {row.task_id: row.requester for row in rows}
        return found

    def last_answer(self, kind: str, subject: str) -> str | None:
        """Return the answer of the newest operation of no task on `subject`.

        It is that of the newest operation of this kind; None where there is none.
        """
        op = schema.operations.c
        query = select(op.answer).where(op.task_id.is_(None), op.kind == kind, op.subject == subject)
        with self._db.read() as connection:
            return connection.execute(query.order_by(op.sent_at.desc(), op.op_id.desc()).limit(1)).scalar()

    def open_acts(self, kind: str) -> list[OperationRow]:
        """Return operations of this kind of no task with unknown outcome.

        The oldest first.
        """
        op = schema.operations.c
        open_ = op.state.in_((OpState.INTENDED.value, OpState.UNKNOWN.value))
        query = select(schema.operations).where(open_, op.task_id.is_(None), op.kind == kind)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(op.sent_at, op.op_id)).mappings()
            return [get(row, OperationRow) for row in rows]
