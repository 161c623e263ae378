"""Recovery of a lost ledger: the mark that blocks grants.

The mark is set where a worker finds a new ledger beside open tasks in Vault, and where a recovery begins. It is a
freeze of its own kind, so that no worker grants anything. Sources are read again from their beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from jitvault.audit.source import Position
from jitvault.errors import Frozen
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import GapKind
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, upsert
from jitvault.model.ledger_rebuild import HINT, REASON, why_nothing_is_granted

_PREFIX = "recovery "


def is_recovery() -> ColumnElement[bool]:
    """Return the condition that a row of `freezes` is a recovery's mark."""
    return schema.freezes.c.line.startswith(_PREFIX)


# built once: each grant runs these queries
_NEWEST = select(func.max(schema.freezes.c.at)).where(is_recovery())
_OPEN_SINCE = select(func.min(schema.freezes.c.at)).where(is_recovery(), schema.freezes.c.lifted_at.is_(None))


class RecoveryQueries:
    """Begin and finish the recovery of a ledger; a part of `Ledger`."""

    _db: Database

    def begin_recovery(self, at: datetime) -> datetime:
        """Block all grants until `end_recovery`; return since when.

        An earlier run that was interrupted may have begun the recovery.
        """

        def unit(connection: Connection) -> datetime:
            begun = open_since(connection)
            if begun is None:
                values = {"reason": REASON, "line": f"{_PREFIX}{rfc3339(at)}", "at": at}
                connection.execute(insert(schema.freezes).values(values))
            return begun or at

        return self._db.write(unit, alone=True)

    def recovering(self) -> datetime | None:
        """Return since when a recovery blocks grants, None where none is open."""
        with self._db.read() as connection:
            return open_since(connection)

    def end_recovery(self, why: str, at: datetime) -> None:
        """Allow grants again."""
        table = schema.freezes
        lift = update(table).where(is_recovery(), table.c.lifted_at.is_(None))
        self._db.write(lambda c: c.execute(lift.values(lifted_at=at, lifted_why=why[:500])))

    def recovered_at(self) -> datetime | None:
        """Return when the newest recovery began, open or not.

        The ledger may lack the intents of what was done before.
        """
        with self._db.read() as connection:
            return newest(connection)

    def begin_in_the_past(self, source: str, position: Position, at: datetime) -> None:
        """Have a source read again from `position`, its beginning.

        The source begins a new segment there, which is a gap to all others. Its lines count once a canary was found in
        it. Known lines stay.
        """
        table, gap = schema.audit_sources, schema.audit_gaps

        def unit(connection: Connection) -> None:
            known = connection.execute(select(table.c.epoch).where(table.c.name == source)).scalar()
            epoch = position.epoch if known is None else known + 1
            values = {"identity": position.identity, "offset": position.offset, "epoch": epoch, "vouched": False}
            if known is None:
                connection.execute(insert(table).values(name=source, **values))
            else:
                # The claim is ended as well: a process that reads at this moment would write the old segment back.
                ended_claim = {"claim_epoch": table.c.claim_epoch + 1, "claim_until": 0}
                connection.execute(update(table).where(table.c.name == source).values(**values, **ended_claim))
            what = "read from its beginning when the ledger was rebuilt: nobody looked for canaries in it before"
            row = {"source": source, "epoch": epoch, "kind": GapKind.READ_FROM_START, "what": what, "at": at}
            connection.execute(upsert(connection, gap).values(row).on_conflict_do_nothing())

        self._db.write(unit, alone=True)

    def unknown_lines(self, lines: Collection[str]) -> Sequence[str]:
        """Return those of these lines that the ledger does not have."""
        line = schema.observations.c.line
        wanted = sorted(set(lines))
        known: set[str] = set()
        with self._db.read() as connection:
            for batch in batches(wanted):
                known |= set(connection.execute(select(line).where(line.in_(batch))).scalars())
        return [digest for digest in wanted if digest not in known]


def newest(connection: Connection) -> datetime | None:
    """Return when the newest recovery began, None where there was none."""
    return connection.execute(_NEWEST).scalar()


def check_not_recovering(connection: Connection, task_id: str) -> None:
    """Raise Frozen while a recovery is open.

    For the transaction that begins an issue.
    """
    since = open_since(connection)
    if since is not None:
        raise Frozen(f"task {task_id}: {why_nothing_is_granted(since)}", hint=HINT)


def open_since(connection: Connection) -> datetime | None:
    """Return since when a recovery is open, None where none is."""
    return connection.execute(_OPEN_SINCE).scalar()
