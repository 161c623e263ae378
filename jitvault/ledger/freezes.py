"""Freezes: while one is in force, nothing is granted and every held task ends."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, select, update

from jitvault.ledger.recovery import is_recovery
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.stream import alarms
from jitvault.ledger.stream.model import Freeze


def _oldest_freeze() -> Select[str, str, datetime]:
    freeze = schema.freezes.c
    in_force = (freeze.lifted_at.is_(None), ~is_recovery())
    return select(freeze.reason, freeze.line, freeze.at).where(*in_force).order_by(freeze.id).limit(1)


# built once: building a statement takes longer than running it
_OLDEST_FREEZE = _oldest_freeze()


class FreezeQueries:
    """Read and lift freezes; a part of `Ledger`."""

    _db: Database

    def judge_failed_create(self, op_id: str, at: datetime) -> None:
        """Freeze everything where a token was made under a failed create.

        A create failed if Vault refused it or the worker gave it up; `op_id` is its operation id.
        """
        self._db.write(lambda c: alarms.raise_for_operation(c, op_id, at))

    def freeze(self) -> Freeze | None:
        """Return the oldest freeze that was not lifted, None where there is none."""
        with self._db.read() as connection:
            row = connection.execute(_OLDEST_FREEZE).first()
        return Freeze(*row) if row else None

    def lift_freezes(self, why: str, at: datetime) -> int:
        """Lift all freezes; return how many were in force."""
        table = schema.freezes
        lift = (
            update(table).where(table.c.lifted_at.is_(None), ~is_recovery()).values(lifted_at=at, lifted_why=why[:500])
        )
        return self._db.write(lambda c: c.execute(lift).rowcount)
