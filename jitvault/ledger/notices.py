"""The queue of notices to people.

A notice is written in the transaction of the change that it reports, so that none is lost and none is invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, or_, select, update

from jitvault.ledger.model import TaskRow
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import upsert
from jitvault.model.event_bodies import EventBody
from jitvault.model.event_chain import Event
from jitvault.model.finding import OF_DOCUMENTS
from jitvault.model.kinds import EventKind
from jitvault.model.notice import LONGEST_PAUSE, TOLD_FOR, Kind, Notice, kind_of_change, notice_id
from jitvault.model.states import State

# Access was taken away. For one task this is reported before the notice that its end is not proven.
_TAKEN_AWAY = frozenset({State.ENDING, State.UNVERIFIED})
# the row that marks since when notices are sent at all
_BEGUN = "begun"


class NoticeQueue:
    """Keep notices until they are delivered; a part of `Ledger`."""

    _db: Database

    def begin_notices(self, at: datetime) -> None:
        """Send notices from now on.

        When this is called for the first time, notices from before `at` are never sent.
        """
        table = schema.notices
        with self._db.read() as connection:
            if connection.execute(select(table.c.id).where(table.c.id == _BEGUN)).first():
                return
        mark: dict[str, object] = {"id": _BEGUN, "task_id": None, "kind": "begun", "at": at, "body": {}, "told_at": at}
        earlier = update(table).where(table.c.at < at, table.c.due_at.is_not(None)).values(due_at=None)

        def unit(connection: Connection) -> None:
            # the process that writes the mark is the first: no notice was sent before
            if connection.execute(upsert(connection, table).values(mark).on_conflict_do_nothing()).rowcount:
                connection.execute(earlier)

        self._db.write(unit)

    def due_notices(self, now: datetime, limit: int) -> list[Notice]:
        """Return notices to send now, at most `limit`.

        Severe ones come first, then one of each author in turn, the oldest of theirs. Severe are notices that access
        was taken away or that its end is not proven, and all findings except those about documents. Notices older than
        a day are not sent any more.
        """
        notice = schema.notices.c
        # authors take turns, so that many notices of one author do not delay those of others
        lane = func.coalesce(notice.author, notice.task_id, "")
        turn = func.row_number().over(partition_by=(notice.severe, lane), order_by=(notice.at, notice.id))
        due = (
            select(schema.notices, turn.label("turn"))
            # a time further away than any pause was set by a wrong clock
            .where(or_(notice.due_at <= now, notice.due_at > now + 2 * LONGEST_PAUSE), notice.at > now - TOLD_FOR)
            .subquery()
        )
        query = select(due).order_by(due.c.severe.desc(), due.c.turn, due.c.at, due.c.id).limit(limit)
        with self._db.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Notice(row["id"], row["task_id"], Kind(row["kind"]), row["at"], row["body"], row["tries"]) for row in rows
        ]

    def take_notice(self, notice: Notice, until: datetime) -> bool:
        """Count a try and hide the notice from others until `until`.

        Returns False where another process has taken the notice.
        """
        table = schema.notices
        untaken = (table.c.id == notice.id, table.c.tries == notice.tries, table.c.due_at.is_not(None))
        take = update(table).where(*untaken).values(tries=notice.tries + 1, due_at=until)
        return self._db.write(lambda c: c.execute(take).rowcount) == 1

    def postpone_notice(self, notice: Notice, until: datetime) -> None:
        """Send the notice again at `until`, because no channel accepted it."""
        table = schema.notices
        later = update(table).where(table.c.id == notice.id, table.c.due_at.is_not(None)).values(due_at=until)
        self._db.write(lambda c: c.execute(later))

    def mark_delivered(self, notice: Notice, at: datetime) -> None:
        """Mark the notice as delivered at `at`."""
        table = schema.notices
        done = update(table).where(table.c.id == notice.id).values(due_at=None, told_at=at)
        self._db.write(lambda c: c.execute(done))

    def tell_unproven(self, task_id: str, at: datetime) -> None:
        """Queue a notice that the task's end is not proven yet.

        At most one for each end of the task.
        """
        task = schema.tasks.c
        query = select(task.state, task.end_reason, task.revision, task.digest, task.requester)

        def unit(connection: Connection) -> None:
            row = connection.execute(query.where(task.task_id == task_id)).mappings().one()
            body = {name: row[name] for name in ("state", "end_reason", "revision", "digest")}
            notice = _unproven(connection, task_id, at, {**body, "message": "its end is not proven"})
            _put(connection, notice, author=row["requester"], severe=True)

        self._db.write(unit)


def _unproven(connection: Connection, task_id: str, at: datetime, body: Mapping[str, Any]) -> Notice:
    """Return the notice that a task's end is not proven.

    Its id makes it one for each end, however often the proof is tried; another one follows only after a confirmation.
    """
    event = schema.events.c
    proven = select(func.count()).where(event.task_id == task_id, event.kind == EventKind.CONFIRMED)
    times = connection.execute(proven).scalar_one()
    return Notice(notice_id(Kind.UNCONFIRMED, task_id, str(times)), task_id, Kind.UNCONFIRMED, at, body)


def tell_change(
    connection: Connection, event: Event, said: EventBody, task: TaskRow, at: datetime, *, before: State | None
) -> None:
    """Queue a notice about a task's change, if people hear of such changes.

    `said` is what the event says, and `before` the task's state before the change, None for a new task.
    """
    kind = kind_of_change(before, task.state, event.kind, said)
    if kind is None:
        return
    body = {
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "revision": task.revision,
        "digest": task.digest,
        "message": said.note,
    }
    if kind is Kind.UNCONFIRMED:
        _put(connection, _unproven(connection, event.task_id, at, body), author=task.requester, severe=True)
    else:
        notice = Notice(notice_id(kind, event.task_id, event.hash), event.task_id, kind, at, body)
        _put(connection, notice, author=task.requester, severe=task.state in _TAKEN_AWAY)


def tell_finding(
    connection: Connection, task_id: str | None, rule: str, message: str, at: datetime, *, author: str | None
) -> None:
    """Queue a notice about a finding."""
    body = {"state": None, "end_reason": None, "rule": rule, "message": message}
    notice = Notice(notice_id(Kind.FINDING, task_id, f"{rule}\0{message}"), task_id, Kind.FINDING, at, body)
    _put(connection, notice, author=author, severe=rule not in OF_DOCUMENTS)


def _put(connection: Connection, notice: Notice, *, author: str | None, severe: bool) -> None:
    values = {
        "id": notice.id,
        "task_id": notice.task_id,
        "kind": notice.kind.value,
        "at": notice.at,
        "body": dict(notice.body),
        "due_at": notice.at,
        "author": author and author[:64],
        "severe": int(severe),
    }
    connection.execute(upsert(connection, schema.notices).values(values).on_conflict_do_nothing())
