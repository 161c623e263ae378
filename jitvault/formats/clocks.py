"""The time to use when two clocks disagree, and how long something took.

Vault ends tokens and leases by its own clock, so if this host's clock differs from Vault's by more than
`TOLERANCE`, Vault's counts. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

TOLERANCE = timedelta(seconds=5)
"""Up to this difference, a host uses its own clock."""
MAX_SKEW = timedelta(seconds=30)
"""Beyond this difference, nothing is granted or confirmed."""
_IN_ORDER = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Offset:
    """Vault's clock minus this process's monotonic clock, as a range.

    The bounds are in seconds.
    """

    least: float
    most: float

    @classmethod
    def heard(cls, second: datetime, sent: float, received: float) -> Offset:
        """Return the offset that an answer shows.

        The answer is dated with the whole `second` in which it was made. `sent` and `received` are times of the
        monotonic clock, before the request and after its answer.
        """
        began = (second - _EPOCH).total_seconds()
        return cls(began - received, began + 1 - sent)

    def narrowed(self, newer: Offset) -> Offset:
        """Return the range that satisfies both.

        It is `newer` alone if they contradict each other, since a clock was set.
        """
        both = Offset(max(self.least, newer.least), min(self.most, newer.most))
        return both if both.least <= both.most else newer

    def behind(self, own: datetime, monotonic: float) -> timedelta:
        """Return by how much `own` is behind Vault's clock at least.

        The result is negative if `own` is ahead, and 0 within the range.
        """
        now = (own - _EPOCH).total_seconds()
        least = monotonic + self.least
        most = monotonic + self.most
        if now < least:
            return timedelta(seconds=least - now)
        if now > most:
            return timedelta(seconds=most - now)
        return timedelta(0)

    def at(self, monotonic: float) -> datetime:
        """Return the middle of what Vault's clock can show at a monotonic time."""
        return _EPOCH + timedelta(seconds=monotonic + (self.least + self.most) / 2)


def agreed(own: datetime, monotonic: float, vault: Offset | None) -> datetime:
    """Return the time to use: `own`, or Vault's if the clocks disagree.

    `own` is used as well if Vault's clock is unknown.
    """
    if vault is None or abs(vault.behind(own, monotonic)) <= TOLERANCE:
        return own
    return vault.at(monotonic)


def lasted(since: datetime | None, until: datetime, noted: Iterable[datetime]) -> timedelta | None:
    """Return how long it took from `since` to `until`, or None.

    None means that it is unknown. `noted` are the times of everything that was recorded between the two, in the
    order of recording. If they go back, a clock was wrong, or was set, and no difference between them says how long
    anything took.
    """
    if since is None:
        return None
    back = any(later < earlier - _IN_ORDER for earlier, later in pairwise((since, *noted, until)))
    return None if back else max(timedelta(0), until - since)
