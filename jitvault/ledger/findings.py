"""Record, list and close findings.

Each finding is recorded once, and only so many of one author.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, insert, or_, select, update

from jitvault.errors import NotFound, WrongState
from jitvault.ledger.model import Closing, StoredFinding
from jitvault.ledger.notices import tell_finding
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.model.finding import MOST, WINDOW, count_message

_FOUND = schema.findings.c
_TASK = schema.tasks.c
_LISTED = select(schema.findings, _TASK.agent).join(schema.tasks, _TASK.task_id == _FOUND.task_id, isouter=True)
# built once: a worker asks for these every second, and building a statement takes longer than running it
_AFTER = _LISTED.where(_FOUND.id > bindparam("number")).order_by(_FOUND.id)
_OPEN = select(func.count()).select_from(schema.findings).where(_FOUND.closed_at.is_(None))
_LIST = "`jitvault findings list --all` shows all findings with their numbers."


class FindingQueries:
    """List and close findings; a part of `Ledger`."""

    _db: Database

    def findings(self, *, closed: bool, task_id: str | None = None, agent: str | None = None) -> list[StoredFinding]:
        """Return the open findings, the oldest first.

        With `closed`, return the closed ones as well.

        `task_id` and `agent` (an entity id) leave only those of that task, or of that agent: about its tasks, and
        about documents that it wrote.
        """
        query = _LISTED
        if not closed:
            query = query.where(_FOUND.closed_at.is_(None))
        if task_id is not None:
            query = query.where(_FOUND.task_id == task_id)
        if agent is not None:
            query = query.where(or_(_TASK.agent == agent, _FOUND.author == agent))
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(_FOUND.at, _FOUND.id)).mappings()
            return [StoredFinding(**row) for row in rows]

    def findings_after(self, number: int) -> list[StoredFinding]:
        """Return the findings with a higher number, the oldest first."""
        with self._db.read() as connection:
            rows = connection.execute(_AFTER, {"number": number}).mappings()
            return [StoredFinding(**row) for row in rows]

    def newest_finding(self) -> int:
        """Return the number of the newest finding, 0 where there is none."""
        with self._db.read() as connection:
            return int(connection.execute(select(func.max(_FOUND.id))).scalar_one() or 0)

    def open_findings(self) -> int:
        """Return how many findings nobody has closed."""
        with self._db.read() as connection:
            return connection.execute(_OPEN).scalar_one()

    def close_findings_by_number(self, numbers: Collection[int], closing: Closing) -> int:
        """Close these findings, of a task or of none; return how many.

        All of them or none: raises NotFound for a number that no finding has, WrongState for one that is closed. The
        findings stay in the ledger, with the reason and who closed them.
        """

        def unit(connection: Connection) -> int:
            known = select(_FOUND.id, _FOUND.closed_at).where(_FOUND.id.in_(numbers))
            found = {row.id: row.closed_at for row in connection.execute(known)}
            for number in sorted(numbers):
                if number not in found:
                    raise NotFound(f"there is no finding {number}", hint=_LIST)
                if found[number] is not None:
                    raise WrongState(f"finding {number} is closed already", hint=_LIST)
            close = update(schema.findings).where(_FOUND.id.in_(numbers), _FOUND.closed_at.is_(None))
            return connection.execute(close.values(closing.columns())).rowcount

        return self._db.write(unit)

    def close_findings_by_rule(self, rules: Collection[str], closing: Closing) -> int:
        """Close all open findings of these rules; return how many."""
        close = update(schema.findings).where(_FOUND.rule.in_(sorted(rules)), _FOUND.closed_at.is_(None))
        return self._db.write(lambda c: c.execute(close.values(closing.columns())).rowcount)


def put_finding(
    connection: Connection,
    task_id: str | None,
    rule: str,
    message: str,
    at: datetime,
    *,
    line: str | None,
    request_id: str | None,
    author: str | None = None,
    more: int = 0,
) -> None:
    """Insert a finding unless an equal one is there.

    `author` is the entity that wrote what the finding is about. Once MOST findings of an author are recorded, or of a
    task where there is no author, further ones are only counted in one row. `more` counts that many at once. A finding
    with neither author nor task is about the worker itself and is always recorded.
    """
    message = cut(message)
    same = (_of(task_id), _FOUND.rule == rule)
    # The unique key does not see equal findings without a task: in SQL, NULL is not equal to NULL.
    if not more and connection.execute(select(_FOUND.id).where(*same, _FOUND.message == message).limit(1)).first():
        return
    values: dict[str, object] = {
        "task_id": task_id,
        "line": line,
        "request_id": request_id and request_id[:64],
        "author": author,
        "rule": rule,
        "message": message,
        "at": at,
    }
    if more or _is_full(connection, task_id, rule, author, at):
        whose = _FOUND.author.is_(None) if author is None else _FOUND.author == author
        # a finding after an operator closed the others begins a new, open row
        counted = (*same, whose, _FOUND.more > 0, _FOUND.closed_at.is_(None), _FOUND.at > at - WINDOW)
        if connection.execute(update(schema.findings).where(*counted).values(more=more or _FOUND.more + 1)).rowcount:
            return
        values |= {"message": cut(count_message(author, rule, at)), "more": more or 1}
    connection.execute(insert(schema.findings).values(values))
    tell_finding(connection, task_id, rule, str(values["message"]), at, author=author)


def _is_full(connection: Connection, task_id: str | None, rule: str, author: str | None, at: datetime) -> bool:
    """Return whether an author's or a task's findings reached MOST."""
    if author is None and task_id is None:
        return False
    whose = _of(task_id) if author is None else _FOUND.author == author
    kept = and_(whose, _FOUND.rule == rule, _FOUND.more == 0, _FOUND.at > at - WINDOW)
    return connection.execute(select(func.count()).select_from(schema.findings).where(kept)).scalar_one() >= MOST


def _of(task_id: str | None) -> ColumnElement[bool]:
    return _FOUND.task_id.is_(None) if task_id is None else _FOUND.task_id == task_id


def cut(message: str) -> str:
    """Return as much of a message as an index of PostgreSQL takes."""
    return message[:1000].encode()[:2000].decode(errors="ignore")
