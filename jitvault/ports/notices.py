"""What waits to be told outside."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from jitvault.model.notice import Notice


class Notices(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def begin_notices(self, at: datetime) -> None:
        """Notices are told from now on: of what was before `at` nobody hears, the first time that this is called."""
        ...

    def due_notices(self, now: datetime, limit: int) -> list[Notice]:
        """What has to be told now: what is severe first, then one of each author in turn, the oldest of theirs.

        Severe is that access is taken away, or that its end is not proven, and each finding but those about documents.
        What is older than a day is not told any more.
        """
        ...

    def take_notice(self, notice: Notice, until: datetime) -> bool:
        """Count a try and leave the notice alone until `until`; False where another process has taken it."""
        ...

    def put_off(self, notice: Notice, until: datetime) -> None:
        """Nobody took it; it is told again at `until`."""
        ...

    def told(self, notice: Notice, at: datetime) -> None:
        """It arrived, and is not told again."""
        ...

    def tell_unproven(self, task_id: str, at: datetime) -> None:
        """Have it told that the task's end is not proven yet; once for each end."""
        ...
