"""The times of a token, by its revision, policy and the moment of issue.

They are no part of the revision, so that equal specs give equal digests whenever they are granted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from jitvault.errors import InvalidInput
from jitvault.model.revision import Revision
from jitvault.model.template import WORK_AFTER_UNWRAP, WRAP_TTLS
from jitvault.model.ttl import least
from jitvault.policy.decision import NO_OBLIGATIONS, Obligations


@dataclass(frozen=True, slots=True)
class Terms:
    """The granted window, TTL and wrapping TTL, in seconds from the issue.

    `requested_ttl_s` is the TTL that was requested, `ttl_s` the one that is possible. `ends_at` is the deadline,
    which is the end of the window.
    """

    window_s: int
    requested_ttl_s: int
    ttl_s: int
    wrap_ttl_s: int
    ends_at: datetime


def grant_terms(
    revision: Revision,
    start: datetime,
    obligations: Obligations = NO_OBLIGATIONS,
    *,
    until: datetime | None = None,
) -> Terms:
    """Return the times of a token that is issued at `start`.

    The TTL is the least of what is requested, every template's, the remaining window, and the caps of both that
    policy or a parent task set (`jitvault.model.delegation.within`). `until` is the deadline of a task that already
    has one. Raises InvalidInput if too little time is left for the agent to unwrap the token and work.
    """
    second = timedelta(seconds=1)
    requested_s = revision.requested_ttl_s
    capped = start + timedelta(seconds=obligations.max_window_s) if obligations.max_window_s is not None else None
    closes = min(filter(None, (until or revision.window.closes_at(start), capped)))
    left_s = (closes - start) // second
    ttl_s = least(requested_s, left_s, obligations.max_ttl_s, *(entry.ttl_s for entry in revision.access))
    shortest_s = WRAP_TTLS[0] // second
    work_s = WORK_AFTER_UNWRAP // second
    wrap_s = least(ttl_s - work_s, *(entry.wrap_ttl_s for entry in revision.access))
    if wrap_s < shortest_s:
        name = "window" if left_s == ttl_s else "window.ttl"
        raise InvalidInput(
            f"task {revision.spec.id}: {name}: expected at least {shortest_s + work_s}s, so that the agent can unwrap "
            f"and work; {max(ttl_s, 0)}s are left"
        )
    return Terms(left_s, requested_s, ttl_s, wrap_s, closes)
