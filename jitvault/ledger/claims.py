"""Claims: which process may write a row now.

A claim is a lease on a row with a fencing epoch, timed by the database's clock. The row is named by a column of its
table and the value there. Each statement is built once for each column: building one costs more than running it, and
revocations wait for claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, Update, bindparam, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger.claim_clock import LIFE_S, now
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import now_s

DONE = 0.0
LEFT = 1.0
"""The `claim_until` of a claim that was given back: all that was wanted was done, or something was left to do."""
# longer than a claim, so that waiting outlasts the claim of a crashed process
PATIENCE_S = LIFE_S + 5.0
# the claim of a source is held for a moment, that of a task for seconds
_FIRST_POLL_S = 0.002
_POLL_S = 0.05
# A claim younger than this is not extended: its remaining 25 s cover one turn.
_FRESH_S = 5.0
# Not names of columns: in an UPDATE, a parameter of a column's name means the value to set.
_VALUE = "named"
_EPOCH = "epoch_held"


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim that was taken before its use.

    `at` is when, by `now`.
    """

    epoch: int
    at: float = field(default_factory=now)

    @property
    def is_fresh(self) -> bool:
        return now() - self.at < _FRESH_S


@contextmanager
def held(
    database: Database,
    column: Column[Any],
    value: object,
    what: str,
    *,
    taken: Taken | None = None,
    end: Callable[[], Mapping[str, Any] | None] = lambda: {"claim_until": DONE},
) -> Iterator[int]:
    """Hold the claim of one row; yield its epoch.

    Waits while another process holds the claim, and raises WrongState when it cannot be had in time. `taken` is a claim
    that was taken before: it is continued, unless another process took it over. At the end the claim is given back as
    LEFT where the block raises, and else with the columns that `end` returns, of which `claim_until` is DONE or LEFT;
    None where that was committed already.

    Every write under the claim says `WHERE claim_epoch = mine`, so that a process that was paused past the end of its
    claim writes nothing.
    """
    deadline = time.monotonic() + PATIENCE_S
    pause_s = _FIRST_POLL_S
    epoch = taken.epoch if taken and is_ours(database, column, value, taken) else None
    while epoch is None:
        epoch = take(database, column, value)
        if epoch is not None:
            break
        if time.monotonic() > deadline:
            raise WrongState(f"another process is working on {what}", hint="Run the command again in a moment.")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)
    try:
        yield epoch
    except BaseException:
        # The first error matters more than that the claim, which ends by itself, could not be given back.
        with suppress(LedgerUnavailable):
            give_back(database, column, value, epoch, {"claim_until": LEFT})
        raise
    how = end()
    if how is not None:
        give_back(database, column, value, epoch, how)


def give_back(database: Database, column: Column[Any], value: object, epoch: int, how: Mapping[str, Any]) -> None:
    """Let other processes have the claim at once, unless it was lost.

    `how` are the columns to write: `claim_until` is DONE or LEFT.
    """
    database.write(lambda c: c.execute(_held_statement(column), {_VALUE: value, _EPOCH: epoch, **how}))


def is_ours(database: Database, column: Column[Any], value: object, taken: Taken) -> bool:
    """Return whether no process took over a claim that was taken.

    The claim is extended where too little of it is left.
    """
    if not taken.is_fresh:
        return extend(database, column, value, taken.epoch)
    # a read costs no commit
    with database.read() as connection:
        return connection.execute(_epoch_query(column), {_VALUE: value}).scalar() == taken.epoch


def take(database: Database, column: Column[Any], value: object) -> int | None:
    """Take the claim of one row; return its epoch, None where it is held."""
    taken = database.write(lambda c: c.execute(_take_statement(column), {_VALUE: value}).scalar())
    return int(taken) if taken is not None else None


def extend(database: Database, column: Column[Any], value: object, epoch: int) -> bool:
    """Hold the claim for another 30 s; return False when it was lost."""
    return database.write(lambda c: c.execute(_extend_statement(column), {_VALUE: value, _EPOCH: epoch}).rowcount == 1)


def is_free(table: Table) -> ColumnElement[bool]:
    """Return the condition that no process holds the claim of a row."""
    # A claim that lasts longer than any can was taken by a wrong clock, and would block for as long.
    return or_(table.c.claim_until < now_s(), table.c.claim_until > now_s() + 2 * LIFE_S)


def taking(table: Table) -> Update:
    """Return the statement that takes claims, without its choice of rows."""
    return update(table).values(claim_epoch=table.c.claim_epoch + 1, claim_until=now_s() + LIFE_S)


@cache
def _take_statement(column: Column[Any]) -> ReturningUpdate[Any]:
    table = column.table
    return taking(table).where(column == bindparam(_VALUE), is_free(table)).returning(table.c.claim_epoch)


@cache
def _held_statement(column: Column[Any]) -> Update:
    return update(column.table).where(column == bindparam(_VALUE), column.table.c.claim_epoch == bindparam(_EPOCH))


@cache
def _extend_statement(column: Column[Any]) -> Update:
    return _held_statement(column).values(claim_until=now_s() + LIFE_S)


@cache
def _epoch_query(column: Column[Any]) -> Select[int]:
    return select(column.table.c.claim_epoch).where(column == bindparam(_VALUE))
