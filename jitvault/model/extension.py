"""More time for a task that holds access: a document signed by digest.

An extension names the revision that was granted and the deadline that it moves. A deadline only ever moves forward,
so an extension counts once, whoever submits its request again. Nothing else of the task changes: an entity that
wants more than time requests another task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from jitvault.errors import CorruptRecord
from jitvault.formats.canonical_json import canonical_bytes, digest_of
from jitvault.formats.conversion import converter
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.time_window import format_duration
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.revision_content import Party
from jitvault.policy.decision import Seconds

EXTENSION_KINDS = frozenset(
    {EventKind.EXTENSION_PENDING, EventKind.EXTENSION_REFUSED, EventKind.EXTENSION_CANCELLED, EventKind.EXTENDED}
)
MOST_ASKED: Final = 20
"""How many answers to one entity's requests are added to a task's chain in an hour."""
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)


class ExtensionContent(Struct, frozen=True, forbid_unknown_fields=True):
    """The signed content of an extension, as it is stored (`Extension` has the meaning)."""

    api_version: Literal["jitvault.dev/v1"] = field(name="apiVersion")
    kind: Literal["Extension"]
    installation: str
    task: str
    revision: int
    revision_digest: str
    by: Party
    reason: str
    since: str
    seconds: Seconds
    until: str
    window_s: Seconds


_content = converter(ExtensionContent)


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension by `seconds`, counted from the deadline `since`.

    `window_s` is the length of the whole window, counted from the issue.
    """

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
        """The signed content, as plain JSON data."""
        return {
            "apiVersion": "jitvault.dev/v1",
            "kind": "Extension",
            "installation": self.installation,
            "task": self.task,
            "revision": self.revision,
            "revision_digest": self.revision_digest,
            "by": msgspec.to_builtins(self.by),
            "reason": self.reason,
            "since": rfc3339(self.since),
            "seconds": self.seconds,
            "until": rfc3339(self.until),
            "window_s": self.window_s,
        }

    @property
    def body(self) -> bytes:
        return canonical_bytes(self.content)

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def id(self) -> str:
        return extension_id(self.digest)

    @classmethod
    def of(cls, content: Mapping[str, Any] | ExtensionContent) -> Extension:
        """Return the extension with this content. Raises CorruptRecord."""
        try:
            found = content if isinstance(content, ExtensionContent) else _content(content)
            extension = cls(
                installation=found.installation,
                task=found.task,
                revision=found.revision,
                revision_digest=found.revision_digest,
                by=found.by,
                reason=found.reason,
                since=datetime.fromisoformat(found.since),
                seconds=found.seconds,
                window_s=found.window_s,
            )
            _ = extension.until
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
            raise CorruptRecord(f"an extension is not one that jitvault wrote ({type(error).__name__})") from None
        return extension


def extension_id(digest: str) -> str:
    """Return the short name of an extension, by which people tell two apart."""
    return digest.removeprefix("sha256:")[:12]


def extension_part(digest: str) -> str:
    """Return the part of a decision's path that names the extension.

    It follows the path of its author's decisions about the task; each extension has its own.
    """
    return f"/extend/{digest.removeprefix('sha256:')[:32]}"


def whole_window_s(began: datetime, until: datetime) -> int:
    """Return the seconds from the issue to a deadline, rounded up."""
    return -((began - until) // _SECOND)


def describe_extension(extension: Extension, *, replaces: bool) -> list[str]:
    """Describe what is requested, one sentence a line, for approvers."""
    more = format_duration(timedelta(seconds=extension.seconds))
    whole = format_duration(timedelta(seconds=extension.window_s))
    lines = [
        f"{extension.by.name} asks for {more} more for task {extension.task}: until {_utc_time(extension.until)} "
        f"instead of {_utc_time(extension.since)}, {whole} in all.",
        f"Reason for more time: {extension.reason}",
    ]
    if replaces:
        lines.append("Its token cannot live so long: it is ended and proven dead, and a new one is delivered.")
    return lines


def extension_events(events: Iterable[Event]) -> list[Event]:
    """Return the chain's events about extensions, in order."""
    return [event for event in events if event.kind in EXTENSION_KINDS]


def recent_extension_events(events: Iterable[Event], entity: str, now: datetime) -> list[Event]:
    """Return the events of the last hour about an entity's extension requests."""
    return [
        event
        for event in extension_events(events)
        if event.body["extension"]["by"]["entity"] == entity and now - datetime.fromisoformat(event.at) < _HOUR
    ]


def answered_requests(events: Iterable[Event]) -> set[tuple[str, str]]:
    """Return the requests that were granted, refused or cancelled.

    Each is named by its author's entity and its nonce, so that nobody can cancel the request of another. A request that
    was cancelled counts no more, even if somebody puts it back.
    """
    answers = [event.body for event in extension_events(events) if event.kind != EventKind.EXTENSION_PENDING]
    return {
        (body["extension"]["by"]["entity"], nonce)
        for body in answers
        for nonce in (body["request"], body.get("cancels"))
        if nonce is not None
    }


def is_too_often(events: Iterable[Event], entity: str, request: str, now: datetime) -> bool:
    """Return whether a request waits because its author got many answers.

    The bound is MOST_ASKED answers in an hour; a request that has an answer does not wait.
    """
    lately = recent_extension_events(events, entity, now)
    return len(lately) >= MOST_ASKED and all(event.body["request"] != request for event in lately)


def extended(events: Iterable[Event]) -> list[Event]:
    """Return the events of the extensions that were granted."""
    return [event for event in events if event.kind == EventKind.EXTENDED]


def window_start(events: Iterable[Event]) -> datetime | None:
    """Return when the window of an issued task began, or None.

    It began at the intent to create the first token that was delivered.
    """
    events = list(events)
    first = next((event.body["grant"] for event in events if event.kind == EventKind.DELIVERED), None)
    if not first:
        return None
    intents = (e for e in events if e.kind == EventKind.CREATE_TOKEN_INTENDED and e.body.get("subject") == first)
    return next((datetime.fromisoformat(event.at) for event in intents), None)


def _utc_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
