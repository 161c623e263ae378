"""What a ledger needs to be made anew, or to be brought from an older state to the present."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from jitvault.audit.source import Position

PAST = "read from its beginning when the ledger was rebuilt: nobody looked for canaries in it before"
REBUILT = "the ledger was rebuilt: what stands before was not read under trust"


class Recovery(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def begin_recovery(self, at: datetime) -> datetime:
        """Let nothing be granted until `end_recovery`; gives since when, which an earlier run may have begun."""
        ...

    def recovering(self) -> datetime | None:
        """Since when nothing is granted because a recovery has not finished; None where none is open."""
        ...

    def end_recovery(self, why: str, at: datetime) -> None:
        """Let tasks be granted again."""
        ...

    def recovered_at(self) -> datetime | None:
        """When the newest recovery began, open or not: of what was done before, the ledger may lack the intent."""
        ...

    def begin_in_the_past(self, source: str, position: Position, at: datetime) -> None:
        """Have a source read from `position`, its beginning, in a new stretch, which is a gap to all others.

        Its lines count when a canary was found in it. What is known of it stays.
        """
        ...

    def unknown_lines(self, lines: Collection[str]) -> Sequence[str]:
        """Which of these lines the ledger does not have."""
        ...
