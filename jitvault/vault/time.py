"""Vault's clock, from the `Date` of its answers.

The header has whole seconds, and every answer has one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock

from jitvault.formats.clocks import Offset, agreed


class VaultTime:
    """What time it is in Vault; shared between threads.

    All times that are floats are of this process's monotonic clock.
    """

    def __init__(self) -> None:
        self._offset: Offset | None = None
        self._lock = Lock()

    def hear(self, date: str, sent: float, received: float) -> None:
        """Take in the `Date` of an answer, with the times around its request.

        An unreadable date is ignored.
        """
        try:
            second = parsedate_to_datetime(date)
        except ValueError:
            return
        if second.tzinfo is None:
            return
        newer = Offset.heard(second.astimezone(UTC), sent, received)
        with self._lock:
            self._offset = self._offset.narrowed(newer) if self._offset else newer

    def agreed(self, own: datetime, monotonic: float) -> datetime:
        """Return the time to act by, where this host's clock shows `own`."""
        return agreed(own, monotonic, self._offset)

    def behind(self, own: datetime, monotonic: float) -> timedelta:
        """Return by how much `own` is behind Vault's clock at least.

        0 as long as no answer came.
        """
        return self._offset.behind(own, monotonic) if self._offset else timedelta(0)
