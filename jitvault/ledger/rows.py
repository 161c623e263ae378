"""Map rows of the tables to the dataclasses of `jitvault.ledger.model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Select, Table, bindparam, select
from sqlalchemy.engine import RowMapping

from jitvault.audit.observation import Observation
from jitvault.errors import CorruptRecord
from jitvault.formats.conversion import converter
from jitvault.formats.server_product import Product
from jitvault.formats.shorten import shorten
from jitvault.ledger.model import (
    AccessRow,
    CheckRow,
    DecisionRow,
    GrantRow,
    LeaseRow,
    OperationRow,
    RevisionRow,
    Row,
    TaskRow,
    columns_of,
)
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import Upsert, upsert_on
from jitvault.model.event_chain import Event

TABLES: Mapping[type, Table] = {
    TaskRow: schema.tasks,
    RevisionRow: schema.revisions,
    AccessRow: schema.accesses,
    DecisionRow: schema.decisions,
    GrantRow: schema.grants,
    LeaseRow: schema.leases,
    CheckRow: schema.checks,
    OperationRow: schema.operations,
}


_ORDER: Mapping[type, int] = {kind: n for n, kind in enumerate(TABLES)}
_COLUMNS: Mapping[type, tuple[str, ...]] = {kind: columns_of(kind) for kind in TABLES}
_CONVERTERS: Mapping[type, Callable[[Any], Any]] = {kind: converter(kind) for kind in TABLES}
_OBSERVATION = converter(Observation)
_OF_LINE = tuple(field.name for field in fields(Observation) if field.name != "place")

R = TypeVar("R", TaskRow, RevisionRow, AccessRow, DecisionRow, GrantRow, LeaseRow, CheckRow, OperationRow)
T = TypeVar("T")


def put(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert each row, or replace the row with its key.

    Rows of one kind go in one statement; tables that others refer to go first.
    """
    for kind, rows_of_kind in groupby(sorted(rows, key=lambda row: _ORDER[type(row)]), key=type):
        connection.execute(_upsert(kind, connection.dialect.name), [values_of(row) for row in rows_of_kind])


@cache
def _upsert(kind: type, dialect: str) -> Upsert:
    """Return the statement for one kind of row, built once.

    Building it costs more than running it, and revocations wait for writes.
    """
    table = TABLES[kind]
    keys = [column.name for column in table.primary_key]
    statement = upsert_on(dialect, table)
    changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def values_of(row: Row) -> dict[str, Any]:
    """Return the columns of a row.

    Not `asdict`: that copies each value, and revocations wait for writes.
    """
    return {name: getattr(row, name) for name in _COLUMNS[type(row)]}


def get(row: RowMapping, kind: type[R]) -> R:
    """Return the value of type `kind` in a result row.

    Raises CorruptRecord for a column of another type, and for an enum's value that this version does not know.
    """
    convert: Callable[[Any], R] = _CONVERTERS[kind]
    return _converted({name: row[name] for name in _COLUMNS[kind]}, convert, kind)


def _converted(values: Mapping[str, Any], convert: Callable[[Any], T], kind: type[T]) -> T:
    try:
        return convert(values)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CorruptRecord(
            f"a row of {kind.__name__} is not one that jitvault wrote ({type(error).__name__})"
        ) from None


def event_of(values: Sequence[Any]) -> Event:
    """Return the event in these columns. Raises CorruptRecord where its body is no object."""
    event = Event(*values)
    if not isinstance(event.body, dict):
        raise CorruptRecord("the body of an event is no object")
    return event


def of_task(connection: Connection, kind: type[R], task_id: str, *order: str) -> tuple[R, ...]:
    """Return all rows of type `kind` of a task, ordered by these columns."""
    found = connection.execute(_of_task(TABLES[kind], order), {"task_id": task_id})
    return tuple(get(row, kind) for row in found.mappings())


@cache
def _of_task(table: Table, order: tuple[str, ...]) -> Select[Any]:
    return select(table).where(table.c.task_id == bindparam("task_id")).order_by(*(table.c[name] for name in order))


def last_product(connection: Connection) -> Product | None:
    """Return the server product that the ledger was last used with.

    None where none was recorded, or one that this version does not know.
    """
    product = connection.execute(select(schema.installation.c.product)).scalar()
    return Product(product) if product in set(Product) else None


def observation_values(o: Observation) -> dict[str, Any]:
    """Return the columns of an audit line, texts cut to their lengths."""
    return {
        "line": o.line,
        "source": o.place.source,
        "epoch": o.place.epoch,
        "offset": o.place.offset,
        "at": o.at,
        "closing": o.closing,
        "kind": o.kind,
        "request_id": shorten(o.request_id, 64),
        "path": shorten(o.path, 1024),
        "subject": shorten(o.subject, 512),
        "actor": o.actor,
        "op": o.op,
        "remote": shorten(o.remote, 64),
        "failed": o.failed,
        "error": shorten(" ".join(o.error.split()), 255),
        "token": shorten(o.token, 80),
        "alias": shorten(o.alias, 80),
        "detail": dict(o.detail),
    }


def get_observation(row: RowMapping) -> Observation:
    """Return the audit line in a result row.

    Raises CorruptRecord for a column of another type, and for an unknown kind.
    """
    values = {name: row[name] for name in _OF_LINE}
    values["place"] = {"source": row["source"], "epoch": row["epoch"], "offset": row["offset"]}
    return _converted(values, _OBSERVATION, Observation)
