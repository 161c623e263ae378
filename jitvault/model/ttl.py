"""How long a credential lives, when it is renewed, and when a task has to be looked at next.

The window says how long a task may hold access; its end is the task's deadline. The TTL says how long a credential
lives without a renewal. Where the window is longer than the step, a credential gets the step alone and is renewed at
half of it, so that the worker's death ends it. Nothing here reads a clock; durations are whole seconds, since Vault
takes `500ms` for nothing and an increment of nothing for the longest life that it may give.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from jitvault.policy.decision import Level

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# so many times in a life renewals meet
_MEETINGS = 60

DEFAULT_TTLS = MappingProxyType(
    {
        Level.LOW: timedelta(minutes=15),
        Level.MEDIUM: timedelta(minutes=10),
        Level.HIGH: timedelta(minutes=5),
        Level.CRITICAL: timedelta(minutes=2),
    }
)
"""By a task's criticality: the TTL of a task that asks for none."""


def requested_ttl(asked: timedelta | None, criticality: str) -> timedelta:
    """The TTL that a task asks for, or what its criticality gives it."""
    return asked or DEFAULT_TTLS[Level(criticality)]


def least(*seconds: int | None) -> int:
    """The least of the bounds that there are, at least one."""
    return min(bound for bound in seconds if bound is not None)


def increment(now: datetime, ends_at: datetime, step_s: int) -> int:
    """The seconds that a renewal at `now` gives: the step, and never past the deadline; 0 for no renewal."""
    return max(0, min(step_s, (ends_at - now) // _SECOND))


def rolls(start: datetime, ends_at: datetime, step_s: int) -> bool:
    """Whether a credential that is made at `start` for a step has to be renewed to live until the deadline."""
    return start + timedelta(seconds=step_s) <= ends_at - _SECOND


def renew_at(sent: datetime, given_s: int, ends_at: datetime) -> datetime | None:
    """When what was given `given_s` seconds at `sent` is renewed: at half of them; None once it reaches the deadline.

    Up to a sixtieth of them later, at a moment that others have as well: what is due together is looked at together,
    and one reading of the stream is enough for all of it. Never more than once a second, however little Vault gives.
    """
    if not rolls(sent, ends_at, given_s):
        return None
    given = max(timedelta(seconds=given_s), 2 * _SECOND)
    at = sent + given / 2
    return at + (_EPOCH - at) % (given / _MEETINGS)


def is_due(at: datetime | None, now: datetime, longest: timedelta | None) -> bool:
    """Return whether the time `at` has come, or cannot be right where nothing is put off for more than `longest`.

    A clock that was ahead and was set right leaves times that lie too far away. Looking too early costs a look; looking
    too late leaves an end undone for as long as that clock was off.
    """
    return at is not None and (at <= now or (longest is not None and at > now + longest))


def next_look(*times: datetime | None) -> datetime | None:
    """The first of the times at which something may have to be done."""
    return min((at for at in times if at is not None), default=None)
