"""What time it is where two clocks disagree, and how long something took by them.

Vault ends tokens and leases by its own clock, so where this host's clock differs from Vault's by more than `TOLERANCE`,
Vault's counts. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

TOLERANCE = timedelta(seconds=5)
"""By up to this much a host goes by its own clock."""
MAX_SKEW = timedelta(seconds=30)
"""By more than this nothing is granted or confirmed."""
_IN_ORDER = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Offset:
    """Vault's clock less this process's monotonic clock, in seconds: `least` at least, and `most` at most."""

    least: float
    most: float

    @classmethod
    def heard(cls, second: datetime, sent: float, received: float) -> Offset:
        """Return what an answer says that is dated with the whole `second` in which it was made.

        `sent` and `received` are of the monotonic clock, before the request and after its answer.
        """
        began = (second - _EPOCH).total_seconds()
        return cls(began - received, began + 1 - sent)

    def narrowed(self, newer: Offset) -> Offset:
        """Return what both say; the `newer` one alone where they contradict, since one of the clocks was set."""
        both = Offset(max(self.least, newer.least), min(self.most, newer.most))
        return both if both.least <= both.most else newer

    def behind(self, own: datetime, monotonic: float) -> timedelta:
        """Return by how much `own` is behind Vault's clock at least; negative where it is ahead, and 0 within."""
        now = (own - _EPOCH).total_seconds()
        least, most = monotonic + self.least, monotonic + self.most
        return timedelta(seconds=least - now if now < least else most - now if now > most else 0.0)

    def at(self, monotonic: float) -> datetime:
        """Return the middle of what Vault's clock can show then."""
        return _EPOCH + timedelta(seconds=monotonic + (self.least + self.most) / 2)


def agreed(own: datetime, monotonic: float, vault: Offset | None) -> datetime:
    """Return the time to go by: `own` where Vault's clock agrees with it or said nothing, else Vault's."""
    if vault is None or abs(vault.behind(own, monotonic)) <= TOLERANCE:
        return own
    return vault.at(monotonic)


def lasted(since: datetime | None, until: datetime, noted: Iterable[datetime]) -> timedelta | None:
    """Return how long it took from `since` to `until`; None where that is not known.

    `noted` are the times of everything that was written down between the two, in the order in which it was. Where they
    go back, somebody's clock was wrong, or set, and no difference between them says how long anything took.
    """
    if since is None:
        return None
    back = any(later < earlier - _IN_ORDER for earlier, later in pairwise((since, *noted, until)))
    return None if back else max(timedelta(0), until - since)
