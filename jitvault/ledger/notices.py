"""Notices on a database: written with the change that they tell of, so none is lost and none is made up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, or_, select, update

from jitvault.ledger import schema
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import upsert
from jitvault.ledger.model import TaskRow
from jitvault.model.event_chain import Event
from jitvault.model.finding import OF_DOCUMENTS
from jitvault.model.kinds import EventKind
from jitvault.model.notice import LONGEST_PAUSE, TOLD_FOR, Kind, Notice, kind_of_change, notice_id
from jitvault.model.states import State

# what held access and holds none: of one task this is told before that its end is not proven
_TAKEN_AWAY = frozenset({State.ENDING, State.UNVERIFIED})
# the row that says since when notices are told at all
_BEGUN = "begun"


class NoticeQueue:
    """Keep notices until they are told; a part of `Ledger`."""

    _db: Database

    def begin_notices(self, at: datetime) -> None:
        """Notices are told from now on: of what was before `at` nobody hears, the first time that this is called."""
        table = schema.notices
        with self._db.read() as connection:
            if connection.execute(select(table.c.id).where(table.c.id == _BEGUN)).first():
                return
        mark: dict[str, object] = {"id": _BEGUN, "task_id": None, "kind": "begun", "at": at, "body": {}, "told_at": at}
        earlier = update(table).where(table.c.at < at, table.c.due_at.is_not(None)).values(due_at=None)

        def unit(connection: Connection) -> None:
            # whoever writes the mark is the first: nobody was told before
            if connection.execute(upsert(connection, table).values(mark).on_conflict_do_nothing()).rowcount:
                connection.execute(earlier)

        self._db.write(unit)

    def due_notices(self, now: datetime, limit: int) -> list[Notice]:
        """What has to be told now: what is severe first, then one of each author in turn, the oldest of theirs.

        Severe is that access is taken away, or that its end is not proven, and each finding but those about documents.
        What is older than a day is not told any more.
        """
        notice = schema.notices.c
        # of each author one by one, so that however many one of them makes come, those of others are soon told
        lane = func.coalesce(notice.author, notice.task_id, "")
        turn = func.row_number().over(partition_by=(notice.severe, lane), order_by=(notice.at, notice.id))
        due = (
            select(schema.notices, turn.label("turn"))
            # what lies further away than any pause was put off by a clock that was wrong
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
        """Count a try and leave the notice alone until `until`; False where another process has taken it."""
        table = schema.notices
        mine = (table.c.id == notice.id, table.c.tries == notice.tries, table.c.due_at.is_not(None))
        take = update(table).where(*mine).values(tries=notice.tries + 1, due_at=until)
        return self._db.write(lambda c: c.execute(take).rowcount) == 1

    def put_off(self, notice: Notice, until: datetime) -> None:
        """Nobody took it; it is told again at `until`."""
        table = schema.notices
        later = update(table).where(table.c.id == notice.id, table.c.due_at.is_not(None)).values(due_at=until)
        self._db.write(lambda c: c.execute(later))

    def told(self, notice: Notice, at: datetime) -> None:
        """It arrived, and is not told again."""
        table = schema.notices
        done = update(table).where(table.c.id == notice.id).values(due_at=None, told_at=at)
        self._db.write(lambda c: c.execute(done))

    def tell_unproven(self, task_id: str, at: datetime) -> None:
        """Have it told that the task's end is not proven yet; once for each end."""
        task = schema.tasks.c
        query = select(task.state, task.end_reason, task.revision, task.digest, task.requester)

        def unit(connection: Connection) -> None:
            row = connection.execute(query.where(task.task_id == task_id)).mappings().one()
            body = {name: row[name] for name in ("state", "end_reason", "revision", "digest")}
            notice = _unproven(connection, task_id, at, {**body, "message": "its end is not proven"})
            _put(connection, notice, author=row["requester"], severe=True)

        self._db.write(unit)


def _unproven(connection: Connection, task_id: str, at: datetime, body: Mapping[str, Any]) -> Notice:
    """Of one end that cannot be proven people hear once, however often it is tried; once more after it was proven."""
    event = schema.events.c
    proven = select(func.count()).where(event.task_id == task_id, event.kind == EventKind.CONFIRMED)
    times = connection.execute(proven).scalar_one()
    return Notice(notice_id(Kind.UNCONFIRMED, task_id, str(times)), task_id, Kind.UNCONFIRMED, at, body)


def tell_change(connection: Connection, event: Event, task: TaskRow, at: datetime, *, before: State | None) -> None:
    """Have a change told that made a task what it is now, if it is one that people hear of."""
    kind = kind_of_change(before, task.state, event.kind, event.body)
    if kind is None:
        return
    body = {
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "revision": task.revision,
        "digest": task.digest,
        "message": str(event.body.get("note") or event.body.get("why") or ""),
    }
    if kind is Kind.UNCONFIRMED:
        _put(connection, _unproven(connection, event.task_id, at, body), author=task.requester, severe=True)
    else:
        notice = Notice(notice_id(kind, event.task_id, event.hash), event.task_id, kind, at, body)
        _put(connection, notice, author=task.requester, severe=task.state in _TAKEN_AWAY)


def tell_finding(
    connection: Connection, task_id: str | None, rule: str, message: str, at: datetime, *, author: str | None
) -> None:
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
