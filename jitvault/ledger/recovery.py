"""A recovery on a database: the mark that keeps everything from being granted, and sources that are read again.

The mark is a freeze of its own kind, so that also a worker of an older version grants nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from jitvault.audit.source import Position
from jitvault.errors import Frozen
from jitvault.ledger import schema
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import batches, upsert
from jitvault.ledger.model import READ_FROM_START

_PREFIX = "recovery "
_REASON = "the ledger is being rebuilt"
HINT = "`jitvault ledger recover` goes on with it, also after it was interrupted."


def is_recovery() -> ColumnElement[bool]:
    """Whether a row of the freezes is a recovery's mark."""
    return schema.freezes.c.line.startswith(_PREFIX)


# made once: each grant asks, and access waits for the answer
_NEWEST = select(func.max(schema.freezes.c.at)).where(is_recovery())
_OPEN_SINCE = select(func.min(schema.freezes.c.at)).where(is_recovery(), schema.freezes.c.lifted_at.is_(None))


class RecoveryQueries:
    """Begin and finish the recovery of a ledger; a part of `Ledger`."""

    _db: Database

    def begin_recovery(self, at: datetime) -> datetime:
        """Let nothing be granted until `end_recovery`; gives since when, which an earlier run may have begun."""

        def unit(connection: Connection) -> datetime:
            begun = open_since(connection)
            if begun is None:
                values = {"reason": _REASON, "line": f"{_PREFIX}{at.isoformat()}", "at": at}
                connection.execute(insert(schema.freezes).values(values))
            return begun or at

        return self._db.write(unit, alone=True)

    def recovering(self) -> datetime | None:
        """Since when nothing is granted because a recovery has not finished; None where none is open."""
        with self._db.read() as connection:
            return open_since(connection)

    def end_recovery(self, why: str, at: datetime) -> None:
        """Let tasks be granted again."""
        table = schema.freezes
        lift = update(table).where(is_recovery(), table.c.lifted_at.is_(None))
        self._db.write(lambda c: c.execute(lift.values(lifted_at=at, lifted_why=why[:500])))

    def recovered_at(self) -> datetime | None:
        """When the newest recovery began, open or not: of what was done before, the ledger may lack the intent."""
        with self._db.read() as connection:
            return newest(connection)

    def begin_in_the_past(self, source: str, position: Position, at: datetime) -> None:
        """Have a source read from `position`, its beginning, in a new stretch, which is a gap to all others.

        Its lines count when a canary was found in it. What is known of it stays.
        """
        table, gap = schema.audit_sources, schema.audit_gaps

        def unit(connection: Connection) -> None:
            known = connection.execute(select(table.c.epoch).where(table.c.name == source)).scalar()
            epoch = position.epoch if known is None else known + 1
            values = {"identity": position.identity, "offset": position.offset, "epoch": epoch, "vouched": False}
            if known is None:
                connection.execute(insert(table).values(name=source, **values))
            else:
                # the claim goes as well: whoever reads just now would write the old stretch back
                free = {"claim_epoch": table.c.claim_epoch + 1, "claim_until": 0}
                connection.execute(update(table).where(table.c.name == source).values(**values, **free))
            row = {"source": source, "epoch": epoch, "what": READ_FROM_START, "at": at}
            connection.execute(upsert(connection, gap).values(row).on_conflict_do_nothing())

        self._db.write(unit, alone=True)

    def unknown_lines(self, lines: Collection[str]) -> Sequence[str]:
        """Which of these lines the ledger does not have."""
        line, wanted, known = schema.observations.c.line, sorted(set(lines)), set[str]()
        with self._db.read() as connection:
            for some in batches(wanted):
                known |= set(connection.execute(select(line).where(line.in_(some))).scalars())
        return [one for one in wanted if one not in known]


def newest(connection: Connection) -> datetime | None:
    """When the newest recovery began."""
    return connection.execute(_NEWEST).scalar()


def check_not_recovering(connection: Connection, task_id: str) -> None:
    """Raise Frozen while a recovery is open: for the transaction that begins an issue."""
    since = open_since(connection)
    if since is not None:
        raise Frozen(f"task {task_id}: nothing is granted, {told(since)}", hint=HINT)


def told(since: datetime) -> str:
    """An open recovery in words."""
    return f"{_REASON} since {since:%Y-%m-%d %H:%M:%S} UTC"


def open_since(connection: Connection) -> datetime | None:
    """Since when a recovery is open; None where none is."""
    return connection.execute(_OPEN_SINCE).scalar()
