"""Claims: who may write now. Fenced by an epoch, timed by the database's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Table, text, update

from jitvault.errors import WrongState
from jitvault.ledger.database import Database

LIFE_S = 30.0
# longer than a claim, so that what a crashed process held is waited for and not refused
PATIENCE_S = LIFE_S + 5.0
# a source is held for as long as it takes to read some lines; a task for seconds
_FIRST_POLL_S, _POLL_S = 0.002, 0.05
# seconds since 1970 by the database's own clock
_NOW = text("(julianday('now') - 2440587.5) * 86400.0")


@contextmanager
def held(database: Database, table: Table, row: ColumnElement[bool], what: str) -> Iterator[int]:
    """Take the claim of one row and give its epoch; waits while another process holds it.

    Every write under it says `WHERE claim_epoch = mine`, so whoever was paused past its claim writes
    nothing. Raises WrongState when it cannot be had in time.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, _FIRST_POLL_S
    while (epoch := database.write(lambda c: _take(c, table, row))) is None:
        if time.monotonic() > deadline:
            raise WrongState(f"another process is working on {what}", hint="Run the command again in a moment.")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)
    try:
        yield epoch
    finally:
        database.write(
            lambda c: c.execute(update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=0))
        )


def extend(database: Database, table: Table, row: ColumnElement[bool], epoch: int) -> bool:
    """Hold the claim for another 30 s. False when it was lost."""
    statement = update(table).where(row, table.c.claim_epoch == epoch).values(claim_until=text(f"{_NOW} + {LIFE_S}"))
    return database.write(lambda c: c.execute(statement).rowcount == 1)


def _take(connection: Connection, table: Table, row: ColumnElement[bool]) -> int | None:
    # one that lasts longer than any can was taken by a clock that is or was wrong: it would block for as long
    free = text(f"(claim_until < {_NOW} OR claim_until > {_NOW} + {2 * LIFE_S})")
    taken = connection.execute(
        update(table)
        .where(row, free)
        .values(claim_epoch=table.c.claim_epoch + 1, claim_until=text(f"{_NOW} + {LIFE_S}"))
        .returning(table.c.claim_epoch)
    ).scalar()
    return int(taken) if taken is not None else None
