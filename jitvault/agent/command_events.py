"""What a command tells the program that started it. Pure.

    JITVAULT_EVENTS_FD=3 jitvault exec SPEC -- CMD

Each event is one line of JSON on that descriptor. A caller decides by the fields; what is in `text`, `message` and
`hint` is for people, and may be worded otherwise in the next version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]
_ExitCode = Annotated[int, msgspec.Meta(ge=1, le=255)]


class Approvals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many approvals by members of a group are missing."""

    group: str
    count: _Count


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="asked"):
    """The request for the task is signed and stored: the spec is needed no more."""

    task: str


class Waiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="waiting"):
    """The task waits for approvals, or with none missing for its window, which begins at `begins`.

    `text` says that in words.
    """

    task: str
    missing: tuple[Approvals, ...]
    begins: datetime | None
    text: str


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The command failed; the last event.

    `exit_code` is that of the error, also where `exec` exits with the code of a program that could not run.
    """

    exit_code: _ExitCode
    message: str
    hint: str


Event = Asked | Waiting | Failed

_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def line(event: Event) -> bytes:
    """Return an event as one line."""
    return msgspec.json.encode(event) + b"\n"


def event(data: bytes) -> Event:
    """Return the event in a line. Raises msgspec.MsgspecError."""
    return _events.decode(data)
