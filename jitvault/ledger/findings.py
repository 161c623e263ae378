"""Findings on a database: each is kept once, and of one author no more than a number."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, update

from jitvault.ledger import schema
from jitvault.ledger.notices import tell_finding
from jitvault.model.finding import MOST, WINDOW, count_message

_FOUND = schema.findings.c


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
    """Insert a finding; the same one twice is one.

    `author` wrote what it is about. Once there are MOST of an author, or of a task where there is no author, it is
    counted instead; `more` says that so many are to be counted, however many there are. What is about neither is the
    worker's own, and kept.
    """
    message = cut(message)
    same = (_of(task_id), _FOUND.rule == rule)
    # the database's own rule does not see it: to SQL no task is not the same as no task
    if not more and connection.execute(select(_FOUND.id).where(*same, _FOUND.message == message).limit(1)).first():
        return
    named = {"task_id": task_id, "line": line, "request_id": request_id and request_id[:64], "author": author}
    values: dict[str, object] = {**named, "rule": rule, "message": message, "at": at}
    if more or _is_full(connection, task_id, rule, author, at):
        whose = _FOUND.author.is_(None) if author is None else _FOUND.author == author
        # what comes after somebody has looked into the others is open again
        counted = (*same, whose, _FOUND.more > 0, _FOUND.closed_at.is_(None), _FOUND.at > at - WINDOW)
        if connection.execute(update(schema.findings).where(*counted).values(more=more or _FOUND.more + 1)).rowcount:
            return
        values |= {"message": cut(count_message(author, rule, at)), "more": more or 1}
    connection.execute(insert(schema.findings).values(values))
    tell_finding(connection, task_id, rule, str(values["message"]), at, author=author)


def _is_full(connection: Connection, task_id: str | None, rule: str, author: str | None, at: datetime) -> bool:
    if author is None and task_id is None:
        return False
    whose = _of(task_id) if author is None else _FOUND.author == author
    kept = and_(whose, _FOUND.rule == rule, _FOUND.more == 0, _FOUND.at > at - WINDOW)
    return connection.execute(select(func.count()).select_from(schema.findings).where(kept)).scalar_one() >= MOST


def _of(task_id: str | None) -> ColumnElement[bool]:
    return _FOUND.task_id.is_(None) if task_id is None else _FOUND.task_id == task_id


def cut(message: str) -> str:
    """As much of a message as an index of PostgreSQL takes."""
    return message[:1000].encode()[:2000].decode(errors="ignore")
