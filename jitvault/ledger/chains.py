"""Check the whole ledger: every event chain, the triggers, and row counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from sqlalchemy import ColumnElement, Connection, func, select

from jitvault.errors import CorruptRecord
from jitvault.ledger.row_digests import edited_columns
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import guards, triggers
from jitvault.ledger.task_queries import read_task
from jitvault.model.event_chain import Event, chain_problems

_FETCHED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """The result of checking a whole ledger.

    `broken` lists the problems of each task whose chain is not whole. `unguarded` names the append-only triggers that
    are missing.
    """

    counts: Mapping[str, int]
    broken: Mapping[str, list[str]]
    unguarded: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every chain is whole, and its rows are guarded."""
        return not self.broken and not self.unguarded


def look(database: Database) -> ChainCheck:
    """Check the whole ledger as it is at one moment.

    Raises LedgerUnavailable.
    """
    with database.read() as connection:
        missing = guards(connection.dialect.name, schema.APPEND_ONLY) - triggers(connection)
        return ChainCheck(counts(connection), dict(broken(connection)), tuple(sorted(missing)))


def counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in schema.metadata.sorted_tables
    }


def broken(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Yield each task whose chain is not whole, with its problems.

    Holds one task's events in memory at a time.
    """
    task, event = schema.tasks.c, schema.events.c
    try:
        yield from list(_broken(connection))
    except CorruptRecord:
        # read one task at a time, to find the one that cannot be read
        for task_id in list(connection.execute(select(task.task_id).order_by(task.task_id)).scalars()):
            try:
                yield from list(_broken(connection, event.task_id == task_id))
            except CorruptRecord as error:
                yield task_id, [f"its events cannot be read: {error}"]
    without_events = select(task.task_id).where(~select(event.seq).where(event.task_id == task.task_id).exists())
    for task_id in connection.execute(without_events).scalars():
        yield task_id, ["the task has no events"]


def _broken(connection: Connection, *which: ColumnElement[bool]) -> Iterator[tuple[str, list[str]]]:
    event = schema.events.c
    query = select(schema.events).where(*which).order_by(event.task_id, event.seq)
    rows = connection.execution_options(yield_per=_FETCHED_AT_ONCE).execute(query)
    for task_id, group in groupby(rows, key=attrgetter("task_id")):
        events = [Event(*row) for row in group]
        task = read_task(connection, task_id)
        if task is None:
            continue
        problems = chain_problems(events, head=task.head)
        # the task's other rows are compared before a worker does anything
        problems += edited_columns(task, events)
        if events[-1].seq != task.seq:
            problems.append(f"the task says that it has {task.seq} events")
        if problems:
            yield task_id, problems


def lacking(database: Database, heads: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return the tasks that lack the event that they had.

    `heads` gives the number and hash of an event of each task.
    """
    event = schema.events.c
    lost = []
    with database.read() as connection:
        for task_id, (seq, head) in sorted(heads.items()):
            query = select(event.hash).where(event.task_id == task_id, event.seq == seq)
            if connection.execute(query).scalar() != head:
                lost.append(task_id)
    return lost
