"""The ledger looked at as a whole: every task's chain, what keeps it append-only, and how much there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from jitvault.errors import CORRUPT_RECORD_ERRORS
from jitvault.ledger import schema
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import guards, triggers
from jitvault.model.event_chain import Event, chain_problems

_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """`broken` says what is wrong with the chain of each task that is not whole; `unguarded` are missing triggers."""

    counts: Mapping[str, int]
    broken: Mapping[str, list[str]]
    unguarded: tuple[str, ...]


def look(database: Database) -> Found:
    """Read all of it, as it is at one moment. Raises LedgerUnavailable."""
    with database.read() as connection:
        missing = guards(connection.dialect.name, schema.APPEND_ONLY) - triggers(connection)
        return Found(counts(connection), dict(broken(connection)), tuple(sorted(missing)))


def counts(connection: Connection) -> dict[str, int]:
    """How many rows each table has."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in schema.metadata.sorted_tables
    }


def broken(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """The tasks whose chain is not whole, each with what is wrong. Holds one task's events at a time."""
    task, event = schema.tasks.c, schema.events.c
    try:
        yield from list(_broken(connection))
    except CORRUPT_RECORD_ERRORS:
        # each by itself says which it is
        for task_id in list(connection.execute(select(task.task_id).order_by(task.task_id)).scalars()):
            try:
                yield from list(_broken(connection, event.task_id == task_id))
            except CORRUPT_RECORD_ERRORS as error:
                yield task_id, [f"its events cannot be read ({type(error).__name__})"]
    bare = select(task.task_id).where(~select(event.seq).where(event.task_id == task.task_id).exists())
    for task_id in connection.execute(bare).scalars():
        yield task_id, ["the task has no events"]


def _broken(connection: Connection, *which: ColumnElement[bool]) -> Iterator[tuple[str, list[str]]]:
    task, event = schema.tasks.c, schema.events.c
    columns = [event[column.name] for column in schema.events.c]
    joined = schema.events.join(schema.tasks, task.task_id == event.task_id)
    query = (
        select(*columns, task.head, task.seq.label("last"), task.state, task.ends_at)
        .select_from(joined)
        .where(*which)
        .order_by(event.task_id, event.seq)
    )
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(query)
    for task_id, of_task in groupby(rows, key=attrgetter("task_id")):
        told = list(of_task)
        problems = chain_problems([Event(*row[: len(columns)]) for row in told], head=told[0].head)
        if told[-1].seq != told[0].last:
            problems.append(f"the task says that it has {told[0].last} events")
        problems += _set_by_hand(told)
        if problems:
            yield task_id, problems


def _set_by_hand(told: Sequence[Any]) -> Iterator[str]:
    """What of a task's own row is not what its chain says; the rest of its rows is compared before anything is done."""
    ends = [row.body["ends_at"] for row in told if row.body.get("ends_at")]
    if told[-1].body.get("state") != told[0].state:
        yield f"its state was set to {told[0].state} by hand"
    if told[0].ends_at != (datetime.fromisoformat(ends[-1]) if ends else None):
        yield "its deadline was set by hand"


def lacking(database: Database, heads: Mapping[str, tuple[int, str]]) -> list[str]:
    """Of tasks with the number and hash of an event that each had, those that do not have it."""
    event, gone = schema.events.c, []
    with database.read() as connection:
        for task_id, (seq, head) in sorted(heads.items()):
            query = select(event.hash).where(event.task_id == task_id, event.seq == seq)
            if connection.execute(query).scalar() != head:
                gone.append(task_id)
    return gone
