"""Refused requests for a grant, as a task's chain keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from jitvault.model.event_bodies import EventBody, GrantRefused, PublishedEnd, Submitted, said
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind

QUEUE_LIFE: Final = timedelta(days=1)
"""How long a request for a grant waits in the queue at most."""
MOST_REFUSED: Final = 20
"""How many refused requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)


def is_refused(events: Iterable[Event], request: str) -> bool:
    """Return whether the request with this nonce was refused.

    A ledger that was rebuilt knows of the last refusal before by what was published.
    """
    for _, body in said(events, EventBody):
        match body:
            case GrantRefused(request=refused) | Submitted(recovered_from=PublishedEnd(refused_request=refused)):
                if refused == request:
                    return True
    return False


def is_refused_too_often(events: Iterable[Event], now: datetime) -> bool:
    """Return whether no further request is looked at for now.

    Whoever may request a grant could otherwise make the chain grow without end.
    """
    refused = (event for event in events if event.kind == EventKind.GRANT_REFUSED)
    return sum(now - datetime.fromisoformat(event.at) < _HOUR for event in refused) >= MOST_REFUSED
