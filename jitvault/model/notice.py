"""Notices to people outside: which changes of a task, in which words.

A notice's id is derived from its content, so a receiver that gets the notice twice recognises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from jitvault.backoff import doubled
from jitvault.formats.canonical_json import sha256_hex
from jitvault.model.event_bodies import EventBody, ExtensionPending, VerdictsGiven
from jitvault.model.kinds import EventKind
from jitvault.model.states import PROVEN, State, Verdict

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
TOLD_FOR = timedelta(days=1)
"""A notice older than this is not sent any more: it helps nobody, and the ledger still has it."""

_UNENDED = frozenset({Verdict.REVOKE_FAILED.value, Verdict.IRREVOCABLE.value})


class Kind(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    ENDED = "ended"
    FINDING = "finding"
    UNCONFIRMED = "unconfirmed"


_OF_STATE = {
    State.PENDING_APPROVAL: Kind.PENDING,
    State.APPROVED: Kind.APPROVED,
    State.ENDING: Kind.ENDED,
    State.DENIED: Kind.ENDED,
    State.CANCELLED: Kind.ENDED,
    State.LAPSED: Kind.ENDED,
    State.UNVERIFIED: Kind.ENDED,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice to people outside.

    `body` is the state at that moment; `tries` counts how often the notice was sent.
    """

    id: str
    task_id: str | None
    kind: Kind
    at: datetime
    body: Mapping[str, Any]
    tries: int = 0


def kind_of_change(before: State | None, after: State, event: str, body: EventBody) -> Kind | None:
    """Return the kind of notice for a change of a task, or None.

    None means that only the ledger records the change.
    """
    if before in PROVEN and after is State.ENDING:
        return Kind.UNCONFIRMED
    if event == EventKind.REVOKED and isinstance(body, VerdictsGiven) and _UNENDED & {*body.verdicts.values()}:
        return Kind.UNCONFIRMED
    if isinstance(body, ExtensionPending):
        # with no approval missing, it waits for the requester to take a new token
        return Kind.PENDING if body.missing else None
    return _OF_STATE.get(after) if before is not after or event == EventKind.REVISED else None


def notice_id(kind: Kind, task_id: str | None, what: str) -> str:
    """Return 128 bits in hex, equal for equal notices."""
    return sha256_hex("\0".join((kind.value, task_id or "", what)).encode())[:32]


def next_pause(tries: int) -> timedelta:
    """Return how long to wait after `tries` failed deliveries."""
    return doubled(FIRST_PAUSE, tries, LONGEST_PAUSE)
