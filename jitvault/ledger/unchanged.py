"""Spare a loop its looks at a ledger to which nothing was committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from datetime import datetime

LONGEST_S = 5.0
"""After that the ledger is looked at all the same, in seconds."""


class Unchanged:
    """Knows whether the ledger may have changed since a loop last looked at all that it needs.

        if unchanged.is_so():
            return
        …
        unchanged.looked()

    The mark is read before the look, so that what is committed meanwhile is looked at next time. A look that fails
    does not say that it looked, and is repeated. `mark` is `Ledger.mark`.
    """

    def __init__(self, mark: Callable[[], Hashable | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._mark = mark
        self._clock = clock
        self._now: tuple[Hashable | None, float] = (None, 0.0)
        self._seen: tuple[Hashable | None, float] = (None, 0.0)

    def is_so(self) -> bool:
        """Return whether nothing was committed since the last look."""
        self._now = self._mark(), self._clock()
        mark, at = self._now
        seen, looked_at = self._seen
        return mark is not None and mark == seen and at - looked_at < LONGEST_S

    def looked(self) -> None:
        """Record that everything was looked at, as it was at the last `is_so` or later."""
        self._seen = self._now


class NothingDue:
    """Knows that no open task is due.

    That holds until the first one is due, or until something is committed to the ledger. A task that is due at the
    look itself leaves it unknown: another worker's claim on it ends by time alone.
    """

    def __init__(self, mark: Callable[[], Hashable | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._unchanged = Unchanged(mark, clock)
        self._until: datetime | None = None

    def is_so(self, now: datetime) -> bool:
        """Return whether no open task can be due at `now`."""
        return self._unchanged.is_so() and (self._until is None or now < self._until)

    def looked(self, earliest_due: datetime | None) -> None:
        """Record when the first of all open tasks is due, later than now. None where none ever is."""
        self._until = earliest_due
        self._unchanged.looked()
