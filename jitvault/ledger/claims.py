"""Claims: who may write now. Fenced by an epoch, timed by the database's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import ColumnElement, Connection, Table, Update, or_, update

from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import now_s

LIFE_S = 30.0
# longer than a claim, so that what a crashed process held is waited for and not refused
PATIENCE_S = LIFE_S + 5.0
_POLL_S = 0.05


@contextmanager
def held(
    database: Database, table: Table, row: ColumnElement[bool], what: str, *, taken: int | None = None
) -> Iterator[int]:
    """Take the claim of one row and give its epoch; waits while another process holds it.

    `taken` is the epoch of a claim that was taken before: it is gone on with, where nobody took it over.

    Every write under it says `WHERE claim_epoch = mine`, so whoever was paused past its claim writes
    nothing. Raises WrongState when it cannot be had in time.
    """
    deadline = time.monotonic() + PATIENCE_S
    epoch = taken if taken is not None and extend(database, table, row, taken) else None
    while epoch is None and (epoch := database.write(lambda c: _take(c, table, row))) is None:
        if time.monotonic() > deadline:
            raise WrongState(f"another process is working on {what}", hint="Run the command again in a moment.")
        time.sleep(_POLL_S)
    try:
        yield epoch
    except BaseException:
        # what failed says more than that the claim, which ends by itself, cannot be given back either
        with suppress(LedgerUnavailable):
            give_back(database, table, row, epoch)
        raise
    give_back(database, table, row, epoch)


def give_back(database: Database, table: Table, row: ColumnElement[bool], epoch: int) -> None:
    """Let others have the claim at once, unless it was lost."""
    statement = update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=0)
    database.write(lambda c: c.execute(statement))


def extend(database: Database, table: Table, row: ColumnElement[bool], epoch: int) -> bool:
    """Hold the claim for another 30 s. False when it was lost."""
    statement = update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=now_s() + LIFE_S)
    return database.write(lambda c: c.execute(statement).rowcount == 1)


def _take(connection: Connection, table: Table, row: ColumnElement[bool]) -> int | None:
    taken = connection.execute(taking(table).where(row, is_free(table)).returning(table.c.claim_epoch)).scalar()
    return int(taken) if taken is not None else None


def is_free(table: Table) -> ColumnElement[bool]:
    """Whether nobody holds the claim of a row."""
    # one that lasts longer than any can was taken by a clock that is or was wrong: it would block for as long
    return or_(table.c.claim_until < now_s(), table.c.claim_until > now_s() + 2 * LIFE_S)


def taking(table: Table) -> Update:
    """The statement that takes claims, still without saying of which rows."""
    return update(table).values(claim_epoch=table.c.claim_epoch + 1, claim_until=now_s() + LIFE_S)
