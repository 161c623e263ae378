"""How long a credential lives, when it is renewed, and the next look.

The window is how long a task may hold access; its end is the task's deadline. The TTL is how long a credential
lives without a renewal. Where the window is longer than the TTL, a credential gets only the TTL and is renewed at
half of it, so that it also ends when the worker dies. Nothing here reads a clock. Durations are whole seconds,
since Vault reads `500ms` as nothing, and an increment of nothing as the longest life that it may give.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from jitvault.formats.clocks import TOLERANCE
from jitvault.policy.decision import Level

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Renewals fall on one of so many instants in a TTL, so that they meet.
_MEETINGS = 60

SHORTEST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
"""The shortest and the longest time from a failed attempt to the next one."""

DEFAULT_TTLS = MappingProxyType(
    {
        Level.LOW: timedelta(minutes=15),
        Level.MEDIUM: timedelta(minutes=10),
        Level.HIGH: timedelta(minutes=5),
        Level.CRITICAL: timedelta(minutes=2),
    }
)
"""The TTL of a task that requests none, by the task's criticality."""


def requested_ttl(asked: timedelta | None, criticality: str) -> timedelta:
    """Return the TTL that a task requests, or the default of its criticality."""
    return asked or DEFAULT_TTLS[Level(criticality)]


def least(*seconds: int | None) -> int:
    """Return the least of the bounds that are not None.

    At least one has to be given.
    """
    return min(bound for bound in seconds if bound is not None)


def increment(now: datetime, ends_at: datetime, step_s: int) -> int:
    """Return the seconds that a renewal at `now` asks for.

    That is `step_s`, but never past the deadline. 0 means that there is no renewal.
    """
    return max(0, min(step_s, (ends_at - now) // _SECOND))


def needs_renewal(start: datetime, ends_at: datetime, step_s: int) -> bool:
    """Return whether a credential needs renewals to reach the deadline.

    The credential is created at `start` for `step_s` seconds.
    """
    return start + timedelta(seconds=step_s) <= ends_at - _SECOND


def renew_at(sent: datetime, given_s: int, ends_at: datetime) -> datetime | None:
    """Return when to renew a lease: at half of its `given_s` seconds.

    The lease was requested at `sent`. The result is None once the lease reaches the deadline. It is rounded up by
    at most 1/60 of the TTL to a shared instant, so that renewals due together share one read of the stream. However
    short a TTL Vault gives, there is at most one renewal a second.
    """
    if not needs_renewal(sent, ends_at, given_s):
        return None
    given = max(timedelta(seconds=given_s), 2 * _SECOND)
    at = sent + given / 2
    return at + (_EPOCH - at) % (given / _MEETINGS)


def unrenewed_expiry(issued_at: datetime, renew_at: datetime, step_s: int) -> datetime:
    """Return when Vault ends a token that is due at `renew_at`, if nobody renews it.

    It was created or renewed last for one step, half of which is left then. The result is at most 1/60 of a step late,
    as `renew_at` is; a token that Vault gave less ends before it.
    """
    step = timedelta(seconds=step_s)
    return max(issued_at + step, renew_at + step / 2)


def early_end(expires_at: datetime | None, next_renewal: datetime | None, ends_at: datetime | None) -> datetime | None:
    """Return when a token expires too early, None if it reaches the deadline.

    The latter has no next renewal. Its last one gave it the whole seconds up to the deadline, and it expires by Vault's
    clock, which may be behind the one by which the deadline counts.
    """
    if expires_at is None or ends_at is None or next_renewal is not None:
        return expires_at
    return expires_at if expires_at <= ends_at - _SECOND - TOLERANCE else None


def is_due(at: datetime | None, now: datetime, longest: timedelta | None) -> bool:
    """Return whether the time `at` has come, or cannot be right.

    Nothing is scheduled further ahead than `longest`. A clock that was ahead and was set right leaves times that
    lie further away: looking too early costs one look, and looking too late leaves a revocation undone for as long
    as that clock was off.
    """
    return at is not None and (at <= now or (longest is not None and at > now + longest))


def next_look(*times: datetime | None) -> datetime | None:
    """Return the first of the times at which something may have to be done."""
    return min((at for at in times if at is not None), default=None)
