"""More time for a task that holds access: one document, which approvers sign by its digest.

It names the revision that was granted and the deadline that it moves. A deadline only ever moves on, so an extension
counts once, whoever puts its request back. Nothing else of the task changes: whoever wants more than time asks for
another task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from jitvault.formats.canonical_json import canonical_bytes, digest_of
from jitvault.formats.time_window import format_duration
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Party

_KINDS = frozenset({EventKind.EXTENSION_PENDING, EventKind.EXTENSION_REFUSED, EventKind.EXTENDED})
MOST_ASKED: Final = 20
"""So many answers to one entity's requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Extension:
    """`seconds` more from the deadline `since` on; `window_s` is what the whole window comes to, from the issue."""

    installation: str
    task: str
    revision: int
    revision_digest: str
    by: Party
    reason: str
    since: datetime
    seconds: int
    window_s: int

    @property
    def until(self) -> datetime:
        """The new deadline."""
        return self.since + timedelta(seconds=self.seconds)

    @property
    def content(self) -> dict[str, Any]:
        """What is signed, as plain JSON data."""
        return {
            "apiVersion": "jitvault.dev/v1",
            "kind": "Extension",
            "installation": self.installation,
            "task": self.task,
            "revision": self.revision,
            "revision_digest": self.revision_digest,
            "by": self.by.as_json(),
            "reason": self.reason,
            "since": self.since.isoformat(),
            "seconds": self.seconds,
            "until": self.until.isoformat(),
            "window_s": self.window_s,
        }

    @property
    def body(self) -> bytes:
        return canonical_bytes(self.content)

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Extension:
        """The extension whose `content` it is. Raises KeyError, ValueError."""
        return cls(
            installation=content["installation"],
            task=content["task"],
            revision=content["revision"],
            revision_digest=content["revision_digest"],
            by=Party(content["by"]["entity"], content["by"]["name"]),
            reason=content["reason"],
            since=datetime.fromisoformat(content["since"]),
            seconds=content["seconds"],
            window_s=content["window_s"],
        )


def decision_path(digest: str) -> str:
    """Where a decision about the extension lies, below its author's decisions about the task: each has its own."""
    return f"/extend/{digest.removeprefix('sha256:')[:32]}"


def whole_window_s(began: datetime, until: datetime) -> int:
    """The seconds from the issue to a deadline, a begun one counted whole."""
    return -((began - until) // _SECOND)


def in_words(extension: Extension, *, replaces: bool) -> list[str]:
    """What is asked for, one sentence a line, for whoever approves it."""
    more = format_duration(timedelta(seconds=extension.seconds))
    whole = format_duration(timedelta(seconds=extension.window_s))
    lines = [
        f"{extension.by.name} asks for {more} more for task {extension.task}: until {_told(extension.until)} "
        f"instead of {_told(extension.since)}, {whole} in all.",
        f"Reason for more time: {extension.reason}",
    ]
    if replaces:
        lines.append("Its token cannot live so long: it is ended and proven dead, and a new one is delivered.")
    return lines


def said_of(events: Iterable[Event]) -> list[Event]:
    """What the chain says of extensions, in its order."""
    return [event for event in events if event.kind in _KINDS]


def said_lately(events: Iterable[Event], entity: str, now: datetime) -> list[Event]:
    """What the chain says of an entity's requests for more time in the last hour."""
    return [
        event
        for event in said_of(events)
        if event.body["extension"]["by"]["entity"] == entity and now - datetime.fromisoformat(event.at) < _HOUR
    ]


def is_too_often(events: Iterable[Event], entity: str, request: str, now: datetime) -> bool:
    """Return whether an entity got so many answers in an hour that a request without one has to wait."""
    lately = said_lately(events, entity, now)
    return len(lately) >= MOST_ASKED and all(event.body["request"] != request for event in lately)


def extended(events: Iterable[Event]) -> list[Event]:
    """The extensions that came about."""
    return [event for event in events if event.kind == EventKind.EXTENDED]


def began_at(events: Iterable[Event]) -> datetime | None:
    """When the window of a task that was issued began: when the token was meant that was the first to be delivered."""
    events = list(events)
    first = next((event.body["grant"] for event in events if event.kind == EventKind.DELIVERED), None)
    meant = (
        e for e in events if e.kind == EventKind.CREATE_TOKEN_INTENDED and first and e.body.get("subject") == first
    )
    return next((datetime.fromisoformat(event.at) for event in meant), None)


def _told(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
