"""What a task's chain says about more time: what was asked, answered and granted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from jitvault.model.event_bodies import (
    AboutExtension,
    Delivered,
    EventBody,
    ExtensionCancelled,
    ExtensionPending,
    said,
)
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind

MOST_ASKED: Final = 20
"""How many answers to one entity's requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)


def recent_extension_events(events: Iterable[Event], entity: str, now: datetime) -> list[AboutExtension]:
    """Return what the events of the last hour say about an entity's extension requests."""
    return [
        body
        for event, body in said(events, AboutExtension)
        if body.extension.by.entity == entity and now - datetime.fromisoformat(event.at) < _HOUR
    ]


def answered_requests(events: Iterable[Event]) -> set[tuple[str, str]]:
    """Return the requests that were granted, refused or cancelled.

    Each is named by its author's entity and its nonce, so that nobody can cancel the request of another. A request that
    was cancelled counts no more, even if somebody puts it back.
    """
    found = set()
    for _, body in said(events, AboutExtension):
        if not isinstance(body, ExtensionPending):
            found.add((body.extension.by.entity, body.request))
        if isinstance(body, ExtensionCancelled):
            found.add((body.extension.by.entity, body.cancels))
    return found


def is_too_often(events: Iterable[Event], entity: str, request: str, now: datetime) -> bool:
    """Return whether a request waits because its author got many answers.

    The bound is MOST_ASKED answers in an hour; a request that has an answer does not wait.
    """
    lately = recent_extension_events(events, entity, now)
    return len(lately) >= MOST_ASKED and all(body.request != request for body in lately)


def window_start(events: Iterable[Event]) -> datetime | None:
    """Return when the window of an issued task began, or None.

    It began at the intent to create the first token that was delivered.
    """
    events = list(events)
    first = next((body.grant for _, body in said(events, Delivered)), None)
    intents = (event for event in events if event.kind == EventKind.CREATE_TOKEN_INTENDED)
    began = (event.at for event, body in said(intents, EventBody) if first in body.ops.values())
    return next((datetime.fromisoformat(at) for at in began), None)
