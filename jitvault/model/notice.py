"""What is told to people outside: which changes of a task they hear of, and in which words.

A notice has an id that is made of what it tells, so whoever hears it twice knows that it is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from jitvault.formats.canonical_json import sha256_hex
from jitvault.model.kinds import EventKind
from jitvault.model.states import PROVEN, State, Verdict

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
TOLD_FOR = timedelta(days=1)
"""After so long nobody is told any more: news of yesterday helps nobody, and the ledger has it."""

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
    """Something to tell. `body` is what was so at that moment; `tries` counts how often it was sent."""

    id: str
    task_id: str | None
    kind: Kind
    at: datetime
    body: Mapping[str, Any]
    tries: int = 0


def of_change(before: State | None, after: State, event: str, body: Mapping[str, Any]) -> Kind | None:
    """What a change of a task is to people outside; None for what only the record is interested in."""
    if before in PROVEN and after is State.ENDING:
        return Kind.UNCONFIRMED
    if event == "revoked" and _UNENDED & {*body.get("verdicts", {}).values()}:
        return Kind.UNCONFIRMED
    if event == EventKind.EXTENSION_PENDING:
        # with nobody missing it waits for who asked, to take a new token
        return Kind.PENDING if body.get("missing") else None
    return _OF_STATE.get(after) if before is not after or event == "revised" else None


def notice_id(kind: Kind, task_id: str | None, what: str) -> str:
    """128 bits that say the same of the same."""
    return sha256_hex("\0".join((kind.value, task_id or "", what)).encode())[:32]


def next_pause(tries: int) -> timedelta:
    """How long to wait after the `tries`th time that nobody took it."""
    return min(FIRST_PAUSE * (1 << min(tries, 20)), LONGEST_PAUSE)
