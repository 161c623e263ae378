"""The index of documents on the database (see `document_index`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from jitvault.audit.observation import Kind, Observation
from jitvault.documents.paths import Kept, indexed_path
from jitvault.ledger.documents.index import DocumentStatus, Indexed, Listing
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, upsert
from jitvault.model.states import State

_DOC, _LISTED = schema.documents.c, schema.listings.c
_UNREAD = _DOC.news > _DOC.read
# built once: workers run these all the time, and building a statement takes longer than running it
_INDEXED = select(schema.documents).where(
    _DOC.kind == bindparam("kind"), _UNREAD | _DOC.standing.in_(bindparam("standings", expanding=True))
)
_INDEXED_ABOUT = _INDEXED.where(_DOC.about == bindparam("about"))
_UNREAD_OF_UNPROVEN = (
    select(schema.documents)
    .join_from(schema.tasks, schema.documents, _DOC.about == schema.tasks.c.task_id)
    .where(schema.IS_OPEN, schema.tasks.c.state != State.CONFIRMED, _UNREAD, _DOC.kind == bindparam("kind"))
    .order_by(_DOC.about, _DOC.author)
)
# A freeze in force stays in the index when its document is gone: it has to be lifted.
_MAY_BE_FORGOTTEN = (_DOC.kind != Kept.FREEZE) | _DOC.standing.is_distinct_from(DocumentStatus.COUNTS)
_GAPS = select(func.count().label("now")).select_from(schema.audit_gaps).subquery()
_LISTED_AT = select(_GAPS.c.now, _LISTED.at, _LISTED.gaps).join_from(
    _GAPS, schema.listings, _LISTED.kind == bindparam("kind"), isouter=True
)


def note(connection: Connection, new: Iterable[Observation]) -> None:
    """Index the documents that these lines show as written."""
    found = Counter(place for o in new if o.kind is Kind.WRITTEN and (place := indexed_path(o.subject)) is not None)
    _enter(connection, [(*place, times) for place, times in sorted(found.items())])


class DocumentQueries:
    """Keep an index of the documents that people wrote; a part of `Ledger`."""

    _db: Database

    def indexed(self, kind: Kept, about: str | None, standings: Collection[DocumentStatus]) -> list[Indexed]:
        """Return unread documents, and documents with one of these standings.

        `about` is a task or a scope, None for all of them.
        """
        asked = {"kind": kind, "standings": sorted(standings)}
        with self._db.read() as connection:
            if about is None:
                rows = connection.execute(_INDEXED, asked).all()
            else:
                rows = connection.execute(_INDEXED_ABOUT, {**asked, "about": about}).all()
        return [_indexed(row) for row in rows]

    def unread_of_unproven(self, kind: Kept) -> list[Indexed]:
        """Return the unread documents about tasks whose end is not proven.

        A task with a proven end has no access to lose. It reads what was written about it when its seal is due.
        """
        with self._db.read() as connection:
            rows = connection.execute(_UNREAD_OF_UNPROVEN, {"kind": kind}).all()
        return [_indexed(row) for row in rows]

    def keep_read(self, documents: Sequence[Indexed]) -> None:
        """Record the results of reading documents.

        A document that was read later by another worker, or is not in the index any more, stays as it is.
        """

        def unit(connection: Connection) -> None:
            for document in documents:
                change = update(schema.documents).where(*_is_document(document), _DOC.read <= document.read)
                values = {"read": document.read, "standing": document.standing, "body": dict(document.body)}
                connection.execute(change.values(values))

        if documents:
            self._db.write(unit)

    def forget(self, document: Indexed) -> None:
        """Remove a document from the index that is not in Vault any more.

        A document that was written again meanwhile stays.
        """
        gone = delete(schema.documents).where(*_is_document(document), _DOC.news == document.news)
        self._db.write(lambda connection: connection.execute(gone))

    def keep_listed(self, kind: Kept, author: str, names: Sequence[str], *, again: bool) -> list[str]:
        """Index all listed documents of an author and forget the others.

        Freezes that are in force are never forgotten. `again` marks known documents as written, because they may have
        been and have to be read. Returns the documents that were not known before.
        """
        of_author = (_DOC.kind == kind, _DOC.author == author)
        with self._db.read() as connection:
            known = set(connection.execute(select(_DOC.about).where(*of_author)).scalars())
        new = sorted(set(names) - known)
        gone = sorted(known - set(names))

        def unit(connection: Connection) -> None:
            for batch in batches(gone):
                # an unread document was written since the listing
                connection.execute(
                    delete(schema.documents).where(*of_author, _DOC.about.in_(batch), ~_UNREAD, _MAY_BE_FORGOTTEN)
                )
            _enter(connection, [(kind, author, name, 1) for name in (names if again else new)])

        if new or gone or (again and names):
            self._db.write(unit)
        return new

    def indexed_authors(self, kind: Kept) -> list[str]:
        """Return the authors of the documents in the index."""
        with self._db.read() as connection:
            return list(connection.execute(select(_DOC.author).where(_DOC.kind == kind).distinct()).scalars())

    def listing(self, kind: Kept) -> Listing:
        """Return when documents of a kind were listed last."""
        with self._db.read() as connection:
            row = connection.execute(_LISTED_AT, {"kind": kind}).one()
        return Listing(row.at, row.gaps or 0, row.now)

    def keep_listing(self, kind: Kept, gaps: int, at: datetime) -> None:
        """Record that all documents of a kind were listed.

        The listing began at `at`, when the stream had `gaps` gaps.
        """

        def unit(connection: Connection) -> None:
            values = {"gaps": gaps, "at": at}
            statement = upsert(connection, schema.listings).values(kind=kind, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["kind"], set_=values))

        self._db.write(unit)


def _indexed(row: Row[Any]) -> Indexed:
    return Indexed(
        Kept(row.kind),
        row.author,
        row.about,
        row.news,
        row.read,
        DocumentStatus(row.standing) if row.standing else None,
        row.body or {},
    )


def _is_document(document: Indexed) -> tuple[ColumnElement[bool], ...]:
    return _DOC.kind == document.kind, _DOC.author == document.author, _DOC.about == document.about


def _enter(connection: Connection, found: Sequence[tuple[Kept, str, str, int]]) -> None:
    """Index documents, each with how often it was seen to be written.

    A known document becomes unread.
    """
    table = schema.documents
    statement = upsert(connection, table)
    again = {"news": table.c.news + statement.excluded.news}
    statement = statement.on_conflict_do_update(index_elements=["kind", "author", "about"], set_=again)
    for batch in batches(found):
        rows = [
            {"kind": kind, "author": author, "about": about, "news": times, "read": 0}
            for kind, author, about, times in batch
        ]
        connection.execute(statement, rows)
