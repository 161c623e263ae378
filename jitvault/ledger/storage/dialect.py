"""The databases that can keep a ledger.

This is their interface, and what SQLite and PostgreSQL express differently. All other statements of the ledger are
common to both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Float, String, Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from jitvault.errors import CorruptRecord

Upsert = sqlite.Insert | postgresql.Insert

_BATCH_SIZE = 500

T = TypeVar("T")


class now_s(FunctionElement[float]):  # noqa: N801 - it is written like a function of SQL
    """Seconds since 1970 by the database's own clock.

    At the moment of evaluation, not when the transaction began.
    """

    type = Float()
    inherit_cache = True


@compiles(now_s, "sqlite")
def _now_on_sqlite(_element: now_s, _compiler: Any, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_s, "postgresql")
def _now_on_postgresql(_element: now_s, _compiler: Any, **_kw: Any) -> str:
    return "extract(epoch FROM clock_timestamp())::float8"


@compiles(String, "postgresql")
def _text_on_postgresql(_type: String, _compiler: Any, **_kw: Any) -> str:
    # SQLite enforces no length. Long texts are cut before they are written, so that both databases behave alike.
    return "TEXT"


def upsert(connection: Connection, table: Table) -> Upsert:
    """Return an INSERT that can say what happens to an existing row."""
    return upsert_on(connection.dialect.name, table)


def upsert_on(dialect: str, table: Table) -> Upsert:
    """Return an INSERT for a dialect, as `upsert` does for a connection."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split values into batches that one query can take.

    A database limits the parameters of a query.
    """
    return (values[n : n + _BATCH_SIZE] for n in range(0, len(values), _BATCH_SIZE))


def take_time(connection: Connection) -> None:
    """Lift the statement time-out for this transaction.

    Building an index of a large table takes long.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


# -- append-only tables ------------------------------------------------------------------------------------


def guards(dialect: str, tables: Iterable[str]) -> set[str]:
    """Return the names of the triggers that keep `tables` append-only."""
    acts = ("update", "delete", "truncate") if dialect == "postgresql" else ("update", "delete")
    return {f"{table}_no_{act}" for table in tables for act in acts}


def triggers(connection: Connection) -> set[str]:
    """Return the names of all triggers that exist and are enabled."""
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.dialect.name == "postgresql":
        query = (
            "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND relnamespace = current_schema()::regnamespace"
        )
    return set(connection.execute(text(query)).scalars())


def set_numbers(connection: Connection, table: str) -> None:
    """Continue the table's id sequence after the ids that were copied into it."""
    if connection.dialect.name == "postgresql":
        newest = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table} HAVING max(id) > 0"  # noqa: S608 - a table of ours
        connection.execute(text(newest))


class Store(Protocol):
    """One database.

    All methods raise LedgerUnavailable, and LedgerFull where nothing more can be written.
    """

    engine: Engine

    def write(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        """Run `unit` in one transaction; return its result once it is durable.

        A unit may be run more than once, each time whole, from its reads. With `alone`, no other transaction runs whose
        changes it could miss, or that could miss its own.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Return a consistent view; nothing that is done in it is written."""
        ...

    def mark(self) -> Hashable | None:
        """Return what every commit changes, whoever commits, and costs no look at a row.

        None where that is not known: something may have been committed at any moment. Raises nothing.
        """
        ...

    def close(self) -> None:
        """Close idle connections. A later use opens new ones."""
        ...


def from_json(text: str | bytes) -> Any:
    """Decode JSON.

    Raises CorruptRecord, also for what is no JSON and the standard library takes: Infinity, or half of a character.
    """
    try:
        return msgspec.json.decode(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptRecord(f"a column is no JSON ({type(error).__name__})") from None


def to_json(value: object) -> str:
    """Encode as JSON."""
    # Most writes contain JSON, and msgspec is ten times as fast as the standard library.
    return msgspec.json.encode(value).decode()
