"""Check the whole ledger: every event chain, the triggers, and row counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from jitvault.errors import CorruptRecord
from jitvault.ledger.rows import event_body
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import guards, triggers
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
    task, event = schema.tasks.c, schema.events.c
    columns = [event[column.name] for column in schema.events.c]
    joined = schema.events.join(schema.tasks, task.task_id == event.task_id)
    query = (
        select(*columns, task.head, task.seq.label("last"), task.state, task.ends_at)
        .select_from(joined)
        .where(*which)
        .order_by(event.task_id, event.seq)
    )
    rows = connection.execution_options(yield_per=_FETCHED_AT_ONCE).execute(query)
    for task_id, group in groupby(rows, key=attrgetter("task_id")):
        rows_of_task = list(group)
        problems = chain_problems([Event(*row[: len(columns)]) for row in rows_of_task], head=rows_of_task[0].head)
        if rows_of_task[-1].seq != rows_of_task[0].last:
            problems.append(f"the task says that it has {rows_of_task[0].last} events")
        problems += _set_by_hand(rows_of_task)
        if problems:
            yield task_id, problems


def _set_by_hand(rows_of_task: Sequence[Any]) -> Iterator[str]:
    """Yield which columns of a task's row contradict its event chain.

    The rest of the task's rows is compared before a worker does anything.
    """
    bodies = [event_body(row.body) for row in rows_of_task]
    ends = [body["ends_at"] for body in bodies if body.get("ends_at")]
    if bodies[-1].get("state") != rows_of_task[0].state:
        yield f"its state was set to {rows_of_task[0].state} by hand"
    if rows_of_task[0].ends_at != (datetime.fromisoformat(ends[-1]) if ends else None):
        yield "its deadline was set by hand"


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
