"""How old a published task is, and what it does not contain, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jitvault.cli.views.output import readable
from jitvault.documents.published_task import PublishedTask
from jitvault.model.states import LIVE_STATES

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def facts(document: PublishedTask, published: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """Return facts about a published document, for people.

    They say how old it is and what it does not contain. `published` is that of `with_source`.
    """
    found: dict[str, str] = {}
    if document.state in LIVE_STATES and document.ends_at is not None:
        found["deadline"] = until(document.ends_at, now)
        if step_s := (document.ttl or {}).get("step_s"):
            found["renewals"] = f"for {age(step_s)} at a time: without a worker it ends within that"
    ago = age(published["age_s"])
    unvouched = "nobody: " if published["vouched_by"] == "nobody" else ""
    return {
        **found,
        "as of": f"{readable(published['at'])}, {ago} ago, as a worker published it",
        "vouched": f"by {unvouched}{published['vouched']}",
        "unknown": "uses, timeline, delegations, tripwires, last renewal: an auditor sees them",
    }


def until(at: datetime | str | None, now: datetime, then: str = "") -> str:
    """Return until when access is held, with what happens `then`.

    Of a time that is past it says that no worker has published the end.
    """
    if is_past(at, now):
        then = ", which is over: its end is not published yet"
    return readable(at) + then


def is_past(at: datetime | str | None, now: datetime) -> bool:
    """Return whether a time, also one in RFC 3339, has come; False without one."""
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at is not None and at <= now


def age(seconds: int) -> str:
    """Return a duration as `40 s`, `3 min`, `26 h` or `12 d`, rounded down.

    A unit is used from two of it on.
    """
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
