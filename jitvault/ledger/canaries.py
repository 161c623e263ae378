"""Canaries on a database: the lines that show how far the stream was surely ours when it was read."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, bindparam, select

from jitvault.domain.evidence import Canary
from jitvault.domain.observation import Kind, Place
from jitvault.ledger import schema
from jitvault.ledger.dialect import Upsert, upsert_on

_LINE = schema.observations.c
# made once: access waits for it
_FIND = select(schema.observations).where(
    _LINE.subject == bindparam("expected"),
    _LINE.source == bindparam("source"),
    _LINE.kind == Kind.CANARY,
    _LINE.closing,
)


def find(connection: Connection, source: str, expected: str) -> Canary | None:
    """The canary whose HMAC is `expected`, once its own line was read."""
    row = connection.execute(_FIND, {"expected": expected, "source": source}).mappings().first()
    return Canary(Place(source, row["epoch"], row["offset"]), row["at"]) if row else None


def keep(connection: Connection, source: str, expected: str) -> Canary | None:
    """The same; it is kept as a mark of trust."""
    found = find(connection, source, expected)
    if found is not None:
        values = {"source": source, "epoch": found.place.epoch, "offset": found.place.offset, "at": found.at}
        connection.execute(_mark(connection.dialect.name), values)
    return found


@cache
def _mark(dialect: str) -> Upsert:
    return upsert_on(dialect, schema.canaries).on_conflict_do_nothing()
