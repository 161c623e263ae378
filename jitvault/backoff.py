"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TypeVar

Wait = TypeVar("Wait", float, timedelta)

# so many doublings make a second 34 years
_MOST_DOUBLINGS = 30


def doubled(first: Wait, failures: int, longest: Wait) -> Wait:
    """Return `first`, doubled `failures` times, but at most `longest`."""
    factor: int = 2 ** min(failures, _MOST_DOUBLINGS)
    return min(first * factor, longest)


def jittered(wait: Wait) -> Wait:
    """Return a wait that is by chance up to a quarter shorter or longer.

    What failed at one moment would otherwise be tried again at one moment.
    """
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
