"""Bound the stored lines about writes of people's documents.

Of each document the first lines are stored; of the others only the newest and their number. A person can write a
document as often as Vault takes it, and all that matters is that it was written, when first, when last and how often.
Of an author who writes ever new documents, MOST_OF_AUTHOR lines of an hour are stored. Of further ones the newest
MOST_NOTED are noted, each by its path: every worker sees them as it sees stored lines. A note that makes room for newer
ones is added to the note of the author's folder. Whoever had not seen it by then sees that note instead, and lists the
documents of this author. The end of a task that holds access is always stored where its author has a part in the task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, delete, func, literal, or_, select, update

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.documents.paths import REQUESTS, DocumentEffect, effect_of, work_item_for
from jitvault.formats.shorten import shorten
from jitvault.ledger.documents.index import WrittenDocument
from jitvault.ledger.documents.parties import parties_of
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import batches, upsert

MOST_OF_ONE = 20
"""How many lines of one document are stored."""
MOST_OF_AUTHOR = 20_000
"""How many lines of one author are stored in an hour."""
MOST_NOTED = 1_000
"""How many documents of one author are noted by path; a worker looks at the notes twice a second, or more often."""
CLAIM = "claim"
"""Key in a line's detail: the epoch of the newest claim of the document's task when the line was ingested."""

_HOUR = timedelta(hours=1)
_PLACE = ("at", "source", "epoch", "offset", "claim")
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
_NEWEST = select(func.max(_COUNTED.at)).where(_COUNTED.path.in_(bindparam("paths", expanding=True)))
_NOTES = select(schema.rewritten).where(_COUNTED.folder == bindparam("folder"), _COUNTED.path != _COUNTED.folder)
_BEYOND = _NOTES.order_by(_COUNTED.at.desc(), _COUNTED.offset.desc(), _COUNTED.path)
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


@dataclass(frozen=True, slots=True)
class WrittenLines:
    """What becomes of a batch of lines.

    `stored` are all lines that are stored, `counted` those about documents of which only a note is kept. `invented` are
    the digests of counted lines that ask for the end of a task which is not known.
    """

    stored: list[Observation]
    counted: list[Observation]
    invented: frozenset[str] = frozenset()


def stored_and_counted(connection: Connection, new: Sequence[Observation]) -> WrittenLines:
    """Divide a batch into the lines to store and those to count."""
    written = [o for o in new if o.kind is Kind.WRITTEN]
    if not written:
        return WrittenLines(list(new), [])
    paths = sorted({_path(o) for o in written})
    of_one: Counter[str] = Counter({row.subject: row.lines for row in connection.execute(_KEPT, {"paths": paths})})
    of_author = _of_authors(connection, written)
    in_batch = of_author + Counter(map(_folder, written))
    too_many = [o for o in written if in_batch[_folder(o)] > MOST_OF_AUTHOR]
    ends, invented = _sorted_ends(connection, too_many)
    stored: list[Observation] = []
    counted: list[Observation] = []
    added: Counter[str] = Counter()
    for o in new:
        if o.kind is not Kind.WRITTEN:
            stored.append(o)
            continue
        path, folder = _path(o), _folder(o)
        is_full = of_author[folder] >= MOST_OF_AUTHOR and o.line not in ends
        if is_full or of_one[path] >= MOST_OF_ONE:
            counted.append(o)
        else:
            of_one[path] += 1
            of_author[folder] += 1
            added[folder] += 1
            stored.append(o)
    _count(connection, added, max(o.at for o in written))
    return WrittenLines(stored, counted, invented & {o.line for o in counted})


def _sorted_ends(connection: Connection, lines: Sequence[Observation]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the lines of parties that end access, and those of unknown tasks.

    Only lines about ends are looked at, and each is given by its digest.
    """
    found = {o.line: item for o in lines if (item := work_item_for(o.subject)) is not None and item.ends}
    known = parties_of(connection, {item.task_id for item in found.values()}) if found else {}
    ends = {
        line
        for line, item in found.items()
        if effect_of(item, known.get(item.task_id), is_operator=False) is DocumentEffect.END
    }
    return frozenset(ends), frozenset(line for line, item in found.items() if item.task_id not in known)


def note_counted(connection: Connection, counted: Iterable[Observation]) -> None:
    """Note the newest counted line of each document, and their number.

    Of each author the newest MOST_NOTED notes are kept. What goes is added to the note of the author's folder.
    """
    notes: dict[str, dict[str, Any]] = {}
    for o in counted:
        path, place = _path(o), o.place
        before = notes.get(path, {"lines": 0, "at": o.at})
        note = {"path": path, "folder": _folder(o), "at": o.at, "claim": o.detail.get(CLAIM)}
        note |= {"source": place.source, "epoch": place.epoch, "offset": place.offset}
        notes[path] = {**(note if before["at"] <= o.at else before), "lines": before["lines"] + 1}
    by_folder = itemgetter("folder")
    for folder, found in groupby(sorted(notes.values(), key=by_folder), key=by_folder):
        newest_first = sorted(found, key=itemgetter("at", "offset"), reverse=True)
        _write_notes(connection, newest_first[:MOST_NOTED])
        rows = connection.execute(_BEYOND.offset(MOST_NOTED), {"folder": folder}).mappings()
        beyond = [*map(dict, rows), *newest_first[MOST_NOTED:]]
        for gone in batches([note["path"] for note in beyond]):
            connection.execute(delete(schema.rewritten).where(_COUNTED.path.in_(gone)))
        if beyond:
            newest = max(beyond, key=itemgetter("at", "offset"))
            lines = sum(note["lines"] for note in beyond)
            _write_notes(connection, [{**newest, "path": folder, "lines": lines, "claim": None}])


def _write_notes(connection: Connection, notes: Sequence[Mapping[str, Any]]) -> None:
    """Write notes; one of a known path keeps what is newer."""
    if not notes:
        return
    statement = upsert(connection, schema.rewritten)
    new = statement.excluded
    newest = {name: case((new.at >= _COUNTED.at, new[name]), else_=_COUNTED[name]) for name in _PLACE}
    changed = {"lines": _COUNTED.lines + new.lines, **newest}
    connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=changed), list(notes))


def newest_at(connection: Connection, path: str) -> datetime | None:
    """Return Vault's time of the newest counted line that may be a document's."""
    found: datetime | None = connection.execute(_NEWEST, {"paths": [path, _folder_of(path)]}).scalar()
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
    return _folder_of(o.subject)


def _folder_of(path: str) -> str:
    """Return the folder of all of an author's documents of a kind."""
    return shorten("/".join(path.split("/")[:2]), 255) + "/"
