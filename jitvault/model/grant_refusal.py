"""Refused requests for a grant, as a task's chain keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind

QUEUE_LIFE: Final = timedelta(days=1)
"""How long a request for a grant waits in the queue at most."""
MOST_REFUSED: Final = 20
"""How many refused requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)


def grant_refusals(events: Iterable[Event]) -> list[Event]:
    """Return the chain's events about refused requests for a grant, in order."""
    return [event for event in events if event.kind == EventKind.GRANT_REFUSED]


def is_refused(events: Iterable[Event], request: str) -> bool:
    """Return whether the request with this nonce was refused.

    A ledger that was rebuilt knows of the last refusal before by what was published.
    """
    return any(_refused_request(event) == request for event in events)


def is_refused_too_often(events: Iterable[Event], now: datetime) -> bool:
    """Return whether no further request is looked at for now.

    Whoever may request a grant could otherwise make the chain grow without end.
    """
    refusals = grant_refusals(events)
    return len([event for event in refusals if now - datetime.fromisoformat(event.at) < _HOUR]) >= MOST_REFUSED


def _refused_request(event: Event) -> object:
    """Return the nonce of the request that an event says was refused."""
    if event.kind == EventKind.GRANT_REFUSED:
        return event.body["request"]
    former: Mapping[str, Any] = event.body.get("recovered_from") or {}
    return former.get("refused_request") if event.kind == EventKind.SUBMITTED else None
