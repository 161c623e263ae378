"""Claims: who may write now. Fenced by an epoch, timed by the database's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Table, Update, or_, select, update

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
    table: Table,
    row: ColumnElement[bool],
    what: str,
    *,
    taken: Taken | None = None,
    partly: bool = False,
) -> Iterator[int]:
    """Take the claim of one row and give its epoch; waits while another process holds it.

    `taken` is a claim that was taken before: it is gone on with, where nobody took it over. What is done under it is
    everything that was wanted, unless that fails or was meant `partly`.

    Every write under it says `WHERE claim_epoch = mine`, so whoever was paused past its claim writes
    nothing. Raises WrongState when it cannot be had in time.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, _FIRST_POLL_S
    epoch = taken.epoch if taken and is_ours(database, table, row, taken) else None
    while epoch is None and (epoch := take(database, table, row)) is None:
        if time.monotonic() > deadline:
            raise WrongState(f"another process is working on {what}", hint="Run the command again in a moment.")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)
    try:
        yield epoch
    except BaseException:
        # what failed says more than that the claim, which ends by itself, cannot be given back either
        with suppress(LedgerUnavailable):
            give_back(database, table, row, epoch, LEFT)
        raise
    give_back(database, table, row, epoch, LEFT if partly else DONE)


def give_back(database: Database, table: Table, row: ColumnElement[bool], epoch: int, how: float) -> None:
    """Let others have the claim at once, unless it was lost. `how` is DONE or LEFT."""
    statement = update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=how)
    database.write(lambda c: c.execute(statement))


def is_ours(database: Database, table: Table, row: ColumnElement[bool], taken: Taken) -> bool:
    """Whether nobody took over what was taken; it lasts long enough to be gone on with."""
    if not taken.is_fresh:
        return extend(database, table, row, taken.epoch)
    # a look costs no commit
    with database.read() as connection:
        return connection.execute(select(table.c.claim_epoch).where(row)).scalar() == taken.epoch


def take(database: Database, table: Table, row: ColumnElement[bool]) -> int | None:
    """Take the claim of one row, if nobody has it; gives its epoch."""
    statement = taking(table).where(row, is_free(table)).returning(table.c.claim_epoch)
    taken = database.write(lambda c: c.execute(statement).scalar())
    return int(taken) if taken is not None else None


def extend(database: Database, table: Table, row: ColumnElement[bool], epoch: int) -> bool:
    """Hold the claim for another 30 s. False when it was lost."""
    statement = update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=now_s() + LIFE_S)
    return database.write(lambda c: c.execute(statement).rowcount == 1)


def is_free(table: Table) -> ColumnElement[bool]:
    """Whether nobody holds the claim of a row."""
    # one that lasts longer than any can was taken by a clock that is or was wrong: it would block for as long
    return or_(table.c.claim_until < now_s(), table.c.claim_until > now_s() + 2 * LIFE_S)


def taking(table: Table) -> Update:
    """The statement that takes claims, still without saying of which rows."""
    return update(table).values(claim_epoch=table.c.claim_epoch + 1, claim_until=now_s() + LIFE_S)
