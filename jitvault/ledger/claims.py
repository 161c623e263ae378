"""Claims: who may write now. Fenced by an epoch, timed by the database's clock.

A row is named by a column of its table and the value there. The statements are made once for each column: making one
costs more than running it, and access is there for as long as this takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, Update, bindparam, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import now_s

LIFE_S = 30.0
DONE, LEFT = 0.0, 1.0
"""The end of a claim that was given back: all that was wanted was done, or something was left."""
# longer than a claim, so that what a crashed process held is waited for and not refused
PATIENCE_S = LIFE_S + 5.0
# a source is held for a moment; a task for seconds
_FIRST_POLL_S, _POLL_S = 0.002, 0.05
# what was taken so lately is gone on with as it is: the rest of its life is enough for a turn of the story
_FRESH_S = 5.0
# no names of columns: an UPDATE takes those for what it sets
_NAMED, _EPOCH, _HOW = "named", "epoch_held", "how"


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim that was taken before it is used. `at` is of this process's monotonic clock, in seconds."""

    epoch: int
    at: float = field(default_factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.at < _FRESH_S


@contextmanager
def held(
    database: Database,
    column: Column[Any],
    value: object,
    what: str,
    *,
    taken: Taken | None = None,
    leaves_rest: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Take the claim of one row and give its epoch; waits while another process holds it.

    `taken` is a claim that was taken before: it is gone on with, where nobody took it over. What is done under it is
    everything that was wanted, unless that fails or `leaves_rest`, which is asked at its end.

    Every write under it says `WHERE claim_epoch = mine`, so whoever was paused past its claim writes
    nothing. Raises WrongState when it cannot be had in time.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, _FIRST_POLL_S
    epoch = taken.epoch if taken and is_ours(database, column, value, taken) else None
    while epoch is None and (epoch := take(database, column, value)) is None:
        if time.monotonic() > deadline:
            raise WrongState(f"another process is working on {what}", hint="Run the command again in a moment.")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)
    try:
        yield epoch
    except BaseException:
        # what failed says more than that the claim, which ends by itself, cannot be given back either
        with suppress(LedgerUnavailable):
            give_back(database, column, value, epoch, LEFT)
        raise
    give_back(database, column, value, epoch, LEFT if leaves_rest() else DONE)


def give_back(database: Database, column: Column[Any], value: object, epoch: int, how: float) -> None:
    """Let others have the claim at once, unless it was lost. `how` is DONE or LEFT."""
    database.write(lambda c: c.execute(_ending(column), {_NAMED: value, _EPOCH: epoch, _HOW: how}))


def is_ours(database: Database, column: Column[Any], value: object, taken: Taken) -> bool:
    """Whether nobody took over what was taken; it lasts long enough to be gone on with."""
    if not taken.is_fresh:
        return extend(database, column, value, taken.epoch)
    # a look costs no commit
    with database.read() as connection:
        return connection.execute(_looking(column), {_NAMED: value}).scalar() == taken.epoch


def take(database: Database, column: Column[Any], value: object) -> int | None:
    """Take the claim of one row, if nobody has it; gives its epoch."""
    taken = database.write(lambda c: c.execute(_taking_one(column), {_NAMED: value}).scalar())
    return int(taken) if taken is not None else None


def extend(database: Database, column: Column[Any], value: object, epoch: int) -> bool:
    """Hold the claim for another 30 s. False when it was lost."""
    return database.write(lambda c: c.execute(_extending(column), {_NAMED: value, _EPOCH: epoch}).rowcount == 1)


def is_free(table: Table) -> ColumnElement[bool]:
    """Whether nobody holds the claim of a row."""
    # one that lasts longer than any can was taken by a clock that is or was wrong: it would block for as long
    return or_(table.c.claim_until < now_s(), table.c.claim_until > now_s() + 2 * LIFE_S)


def taking(table: Table) -> Update:
    """The statement that takes claims, still without saying of which rows."""
    return update(table).values(claim_epoch=table.c.claim_epoch + 1, claim_until=now_s() + LIFE_S)


@cache
def _taking_one(column: Column[Any]) -> ReturningUpdate[Any]:
    table = column.table
    return taking(table).where(column == bindparam(_NAMED), is_free(table)).returning(table.c.claim_epoch)


@cache
def _held_by(column: Column[Any]) -> Update:
    return update(column.table).where(column == bindparam(_NAMED), column.table.c.claim_epoch == bindparam(_EPOCH))


@cache
def _extending(column: Column[Any]) -> Update:
    return _held_by(column).values(claim_until=now_s() + LIFE_S)


@cache
def _ending(column: Column[Any]) -> Update:
    return _held_by(column).values(claim_until=bindparam(_HOW))


@cache
def _looking(column: Column[Any]) -> Select[int]:
    return select(column.table.c.claim_epoch).where(column == bindparam(_NAMED))
