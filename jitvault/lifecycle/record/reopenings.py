"""Count in a task's event chain how often it was confirmed and reopened.

A counter of its own could be edited or lost; the events say the number already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from jitvault.model.event_bodies import Confirmed, EventBody, Listed, said
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import TARGET_N
from jitvault.model.states import REOPENING_EVENTS

MOST_ROUNDS = 3
"""After this many rounds an operator is notified, and the task is confirmed only when it can be sealed."""
ACCOUNTED = "accounted"
"""The answer of a lease listing where every lease belongs to a task."""


def times_reopened(events: Iterable[Event]) -> int:
    """Count how often the task was reopened.

    A task that is reopened is looked up and revoked anew as a whole.
    """
    return sum(event.kind in REOPENING_EVENTS for event in events)


def why_reopened(events: Sequence[Event]) -> str:
    """Return why the task was last reopened; empty where it never was."""
    return next((body.note for e, body in said(reversed(events), EventBody) if e.kind in REOPENING_EVENTS), "")


def is_going_round(events: Iterable[Event]) -> bool:
    """Return whether the task was reopened too often.

    An operator has to know of such a task.
    """
    return times_reopened(events) >= MOST_ROUNDS


def unsettled_listings(events: Sequence[Event]) -> int:
    """Count the listings since the last one without an open lease.

    In a listing without an open lease, every lease was accounted for.
    """
    listings = (body for _, body in said(reversed(events), Listed))
    return sum(1 for _ in takewhile(lambda listed: listed.answer != ACCOUNTED, listings))


def why_listing_unsettled(events: Sequence[Event]) -> str:
    """Return which lease or drift the last listing left open.

    The result is empty where it left none open.
    """
    last = next((body for _, body in said(reversed(events), Listed)), None)
    if last is None or last.answer == ACCOUNTED:
        return ""
    if last.suspects:
        return f"Vault lists {last.suspects[0]}, which belongs to no task"
    return f"what was approved is not what is there now: {last.drift}" if last.drift else last.answer


def why_seal_postponed(events: Sequence[Event]) -> str | None:
    """Return what kept a confirmed task from its seal at the last try, if any."""
    for event, body in said(reversed(events), EventBody):
        if event.kind == EventKind.SEAL_PUT_OFF:
            return body.note
        if event.kind == EventKind.CONFIRMED:
            break
    return None


def refused_by_target(events: Sequence[Event]) -> frozenset[str]:
    """Return the leases that their target refused at the last confirmation.

    The `confirmed` event in the chain keeps the result of each check. It does not count any more once the task was
    reopened.
    """
    for event, body in said(reversed(events), EventBody):
        if event.kind in REOPENING_EVENTS:
            break
        if isinstance(body, Confirmed):
            return frozenset(subject for subject, n, ok in body.checks if n == TARGET_N and ok)
    return frozenset()
