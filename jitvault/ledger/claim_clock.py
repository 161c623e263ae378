"""How long a claim lives, and the clock by which a process knows that without asking the database."""

from __future__ import annotations

import time

LIFE_S = 30.0


def now() -> float:
    """Return the seconds of a clock that nobody sets.

    It goes on while the host sleeps, where there is such a clock.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
