"""Writes of people's documents: of each document the first lines are kept, and of the others the newest and how many.

Whoever may write a document can write it as often as Vault takes it. That it was written, when first, when last and how
often is all that anybody asks. An author who writes ever new documents has as many lines of an hour kept as the quota
says; of the others it is noted for all of the author's documents together, which are then listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, literal, or_, select, update

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.formats.shorten import shorten
from jitvault.ledger import schema
from jitvault.ledger.dialect import upsert
from jitvault.ledger.stream_model import WrittenDocument

MOST_OF_ONE = 20
"""So many lines of one document are kept."""
MOST_OF_AUTHOR = 20_000
"""So many lines of one author are kept in an hour."""
CLAIM = "claim"
"""Of a document about a task, in the line's detail: the newest claim of that task when the line was entered."""

_HOUR = timedelta(hours=1)
_LINE, _AGAIN, _WRITER = schema.observations.c, schema.rewritten.c, schema.writers.c
_KEPT = (
    select(_LINE.subject, func.count().label("lines"))
    .where(_LINE.subject.in_(bindparam("paths", expanding=True)), _LINE.kind == Kind.WRITTEN)
    .group_by(_LINE.subject)
)
_WRITERS = select(schema.writers).where(_WRITER.author.in_(bindparam("authors", expanding=True)))
_SINCE = select(schema.rewritten).where(_AGAIN.at >= bindparam("since"))
_ELSEWHERE = _SINCE.where(_AGAIN.source.not_in(bindparam("sources", expanding=True)))
_AFTER = _SINCE.where(
    _AGAIN.source == bindparam("source"),
    or_(
        _AGAIN.epoch > bindparam("epoch"), and_(_AGAIN.epoch == bindparam("epoch"), _AGAIN.offset > bindparam("offset"))
    ),
)
_NEWEST = select(_AGAIN.at).where(_AGAIN.path == bindparam("path"))
WRITTEN_AGAIN = (
    select(_AGAIN.path)
    .where(
        or_(
            _AGAIN.path == schema.judged.c.path,
            _AGAIN.path == literal("requests/").concat(schema.judged.c.author).concat("/"),
        ),
        or_(schema.judged.c.line_at.is_(None), _AGAIN.at > schema.judged.c.line_at),
    )
    .exists()
)
"""That a line which was not kept shows a request, or some of its author's, as written since it was judged."""


def split(
    connection: Connection, new: Sequence[Observation]
) -> tuple[list[Observation], list[tuple[str, Observation]]]:
    """The lines to keep, and those to count, each with the path under which it is noted."""
    written = [o for o in new if o.kind is Kind.WRITTEN]
    if not written:
        return list(new), []
    paths = sorted({_path(o) for o in written})
    of_one: Counter[str] = Counter({row.subject: row.lines for row in connection.execute(_KEPT, {"paths": paths})})
    of_author = _of_authors(connection, written)
    kept, again = list[Observation](), list[tuple[str, Observation]]()
    added: Counter[str] = Counter()
    for o in new:
        if o.kind is not Kind.WRITTEN:
            kept.append(o)
            continue
        path, folder = _path(o), _folder(o)
        if of_one[path] >= MOST_OF_ONE:
            again.append((path, o))
        elif of_author[folder] >= MOST_OF_AUTHOR:
            again.append((folder, o))
        else:
            of_one[path] += 1
            of_author[folder] += 1
            added[folder] += 1
            kept.append(o)
    _count(connection, added, max(o.at for o in written))
    return kept, again


def note(connection: Connection, again: Sequence[tuple[str, Observation]]) -> None:
    """Keep the newest line of each path that was not kept itself, and how many there were."""
    table = schema.rewritten
    newest: dict[str, Observation] = {}
    lines: Counter[str] = Counter()
    for path, o in again:
        lines[path] += 1
        if path not in newest or newest[path].at <= o.at:
            newest[path] = o
    for path, o in sorted(newest.items()):
        place = {
            "at": o.at,
            "source": o.place.source,
            "epoch": o.place.epoch,
            "offset": o.place.offset,
            "claim": o.detail.get(CLAIM),
        }
        values = {"path": path, "lines": lines[path], **place}
        added = upsert(connection, table).values(values)
        more = {"lines": table.c.lines + lines[path]}
        connection.execute(added.on_conflict_do_update(index_elements=["path"], set_=more))
        # lines that are read again are older than what is known
        connection.execute(update(table).where(table.c.path == path, table.c.at < o.at).values(place))


def newest(connection: Connection, path: str) -> datetime | None:
    """Vault's time of the newest line of a document that was not kept."""
    found: datetime | None = connection.execute(_NEWEST, {"path": path}).scalar()
    return found


def since(connection: Connection, at: datetime, after: Mapping[str, Place]) -> list[WrittenDocument]:
    """The newest write of each document whose lines are not kept any more, where it stands behind `after`."""
    rows = list(connection.execute(_ELSEWHERE, {"since": at, "sources": list(after)}))
    for source, place in after.items():
        rows += connection.execute(
            _AFTER, {"since": at, "source": source, "epoch": place.epoch, "offset": place.offset}
        )
    return [WrittenDocument(row.path, row.at, Place(row.source, row.epoch, row.offset), row.claim) for row in rows]


def _of_authors(connection: Connection, written: Sequence[Observation]) -> Counter[str]:
    """How many lines of each author were kept in the hour that goes on."""
    now = max(o.at for o in written)
    found = connection.execute(_WRITERS, {"authors": sorted({_folder(o) for o in written})})
    return Counter({row.author: row.lines for row in found if now - row.since < _HOUR})


def _count(connection: Connection, added: Mapping[str, int], now: datetime) -> None:
    table = schema.writers
    for author, lines in sorted(added.items()):
        values: dict[str, Any] = {"author": author, "since": now, "lines": lines}
        over = update(table).where(table.c.author == author, table.c.since <= now - _HOUR).values(values)
        if connection.execute(over).rowcount == 0:
            more = {"lines": table.c.lines + lines}
            statement = upsert(connection, table).values(values)
            connection.execute(statement.on_conflict_do_update(index_elements=["author"], set_=more))


def _path(o: Observation) -> str:
    return shorten(o.subject, 512)


def _folder(o: Observation) -> str:
    """The folder of all that an author writes of a kind."""
    return shorten("/".join(o.subject.split("/")[:2]), 255) + "/"
