"""Refused requests for a grant, as a task's chain keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from jitvault.model.event_bodies import GrantRefused, Submitted, said
from jitvault.model.event_chain import Event

QUEUE_LIFE: Final = timedelta(days=1)
"""How long a request for a grant waits in the queue at most."""
MOST_REFUSED: Final = 20
"""How many refused requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)


def grant_refusals(events: Iterable[Event]) -> list[tuple[Event, GrantRefused]]:
    """Return the chain's events about refused requests for a grant, in order."""
    return list(said(events, GrantRefused))


def is_refused(events: Iterable[Event], request: str) -> bool:
    """Return whether the request with this nonce was refused.

    A ledger that was rebuilt knows of the last refusal before by what was published.
    """
    events = list(events)
    former = (body.recovered_from for _, body in said(events, Submitted))
    refused = {body.request for _, body in grant_refusals(events)} | {each.refused_request for each in former if each}
    return request in refused


def is_refused_too_often(events: Iterable[Event], now: datetime) -> bool:
    """Return whether no further request is looked at for now.

    Whoever may request a grant could otherwise make the chain grow without end.
    """
    refusals = grant_refusals(events)
    return len([event for event, _ in refusals if now - datetime.fromisoformat(event.at) < _HOUR]) >= MOST_REFUSED
