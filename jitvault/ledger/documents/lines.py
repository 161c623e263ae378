"""Bound the stored lines about writes of people's documents.

Of each document the first lines are stored; of the others only the newest and their number. A person can write a
document as often as Vault takes it, and all that matters is that it was written, when first, when last and how often.
Of an author who writes ever new documents, MOST_OF_AUTHOR lines of an hour are stored; further ones are noted for all
of the author's documents together, which are then listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, literal, or_, select, update

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.documents.paths import REQUESTS
from jitvault.formats.shorten import shorten
from jitvault.ledger.documents.index import WrittenDocument
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import upsert

MOST_OF_ONE = 20
"""How many lines of one document are stored."""
MOST_OF_AUTHOR = 20_000
"""How many lines of one author are stored in an hour."""
CLAIM = "claim"
"""Key in a line's detail: the epoch of the newest claim of the document's task when the line was ingested."""

_HOUR = timedelta(hours=1)
_LINE, _COUNTED, _WRITER = schema.observations.c, schema.rewritten.c, schema.writers.c
_KEPT = (
    select(_LINE.subject, func.count().label("lines"))
    .where(_LINE.subject.in_(bindparam("paths", expanding=True)), _LINE.kind == Kind.WRITTEN)
    .group_by(_LINE.subject)
)
_WRITERS = select(schema.writers).where(_WRITER.author.in_(bindparam("authors", expanding=True)))
_SINCE = select(schema.rewritten).where(_COUNTED.at >= bindparam("since"))
_ELSEWHERE = _SINCE.where(_COUNTED.source.not_in(bindparam("sources", expanding=True)))
_AFTER = _SINCE.where(
    _COUNTED.source == bindparam("source"),
    or_(
        _COUNTED.epoch > bindparam("epoch"),
        and_(_COUNTED.epoch == bindparam("epoch"), _COUNTED.offset > bindparam("offset")),
    ),
)
_NEWEST = select(_COUNTED.at).where(_COUNTED.path == bindparam("path"))
WRITTEN_AGAIN = (
    select(_COUNTED.path)
    .where(
        or_(
            _COUNTED.path == schema.judged.c.path,
            _COUNTED.path == literal(REQUESTS).concat(schema.judged.c.author).concat("/"),
        ),
        or_(schema.judged.c.line_at.is_(None), _COUNTED.at > schema.judged.c.line_at),
    )
    .exists()
)
"""Condition: a counted line shows the request, or any of its author's, as written since it was judged."""


def stored_and_counted(
    connection: Connection, new: Sequence[Observation]
) -> tuple[list[Observation], list[tuple[str, Observation]]]:
    """Return the lines to store and the lines to count.

    A line to count comes with the path under which it is noted: the document's, or the folder of its author.
    """
    written = [o for o in new if o.kind is Kind.WRITTEN]
    if not written:
        return list(new), []
    paths = sorted({_path(o) for o in written})
    of_one: Counter[str] = Counter({row.subject: row.lines for row in connection.execute(_KEPT, {"paths": paths})})
    of_author = _of_authors(connection, written)
    kept: list[Observation] = []
    to_count: list[tuple[str, Observation]] = []
    added: Counter[str] = Counter()
    for o in new:
        if o.kind is not Kind.WRITTEN:
            kept.append(o)
            continue
        path = _path(o)
        folder = _folder(o)
        if of_one[path] >= MOST_OF_ONE:
            to_count.append((path, o))
        elif of_author[folder] >= MOST_OF_AUTHOR:
            to_count.append((folder, o))
        else:
            of_one[path] += 1
            of_author[folder] += 1
            added[folder] += 1
            kept.append(o)
    _count(connection, added, max(o.at for o in written))
    return kept, to_count


def note_counted(connection: Connection, counted: Sequence[tuple[str, Observation]]) -> None:
    """Record the newest counted line of each path, and their number."""
    table = schema.rewritten
    newest: dict[str, Observation] = {}
    lines: Counter[str] = Counter()
    for path, o in counted:
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
        insert = upsert(connection, table).values(values)
        more = {"lines": table.c.lines + lines[path]}
        connection.execute(insert.on_conflict_do_update(index_elements=["path"], set_=more))
        # lines that are read again are older than the recorded one
        connection.execute(update(table).where(table.c.path == path, table.c.at < o.at).values(place))


def newest_at(connection: Connection, path: str) -> datetime | None:
    """Return Vault's time of the newest counted line of a document."""
    found: datetime | None = connection.execute(_NEWEST, {"path": path}).scalar()
    return found


def written_since(connection: Connection, at: datetime, after: Mapping[str, Place]) -> list[WrittenDocument]:
    """Return the newest counted write of each document, from `at` on.

    `after` gives a place by source; only lines behind this place are returned for it.
    """
    rows = list(connection.execute(_ELSEWHERE, {"since": at, "sources": list(after)}))
    for source, place in after.items():
        rows += connection.execute(
            _AFTER, {"since": at, "source": source, "epoch": place.epoch, "offset": place.offset}
        )
    return [WrittenDocument(row.path, row.at, Place(row.source, row.epoch, row.offset), row.claim) for row in rows]


def _of_authors(connection: Connection, written: Sequence[Observation]) -> Counter[str]:
    """Return how many lines of each author were stored in the running hour."""
    now = max(o.at for o in written)
    rows = connection.execute(_WRITERS, {"authors": sorted({_folder(o) for o in written})})
    return Counter({row.author: row.lines for row in rows if now - row.since < _HOUR})


def _count(connection: Connection, added: Mapping[str, int], now: datetime) -> None:
    """Add to the numbers of stored lines by author."""
    table = schema.writers
    for author, lines in sorted(added.items()):
        values: dict[str, Any] = {"author": author, "since": now, "lines": lines}
        new_hour = update(table).where(table.c.author == author, table.c.since <= now - _HOUR).values(values)
        if connection.execute(new_hour).rowcount == 0:
            more = {"lines": table.c.lines + lines}
            statement = upsert(connection, table).values(values)
            connection.execute(statement.on_conflict_do_update(index_elements=["author"], set_=more))


def _path(o: Observation) -> str:
    return shorten(o.subject, 512)


def _folder(o: Observation) -> str:
    """Return the folder of all of an author's documents of a kind."""
    return shorten("/".join(o.subject.split("/")[:2]), 255) + "/"
