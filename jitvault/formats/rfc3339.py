"""The one form of the times that programs read."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec


def rfc3339(at: datetime) -> str:
    """Return a time as RFC 3339 in UTC with "Z", and with microseconds where there are any.

    This is the form in which msgspec writes the times of a Struct, so all times of a document have one form.
    """
    found: str = msgspec.to_builtins(at.astimezone(UTC))
    return found
