"""The hash chain of a task's events: what happened cannot be changed without it showing.

The chain makes an edit visible to whoever kept a later head (the receipt is signed over it). It does
not stop a writer who replaces the whole ledger: authority lives in Vault, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.formats.canonical_json import canonical_bytes, likely_bytes, sha256_hex

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """One link: event `seq` (from 1) of a task; `hash` covers task, seq, prev, kind, at and body."""

    task_id: str
    seq: int
    prev: str
    hash: str
    kind: str
    at: str
    body: Mapping[str, Any]


def link(task_id: str, seq: int, prev: str, kind: str, at: str, body: Mapping[str, Any]) -> Event:
    """The event that follows the one whose hash is `prev`. `at` is an RFC 3339 time."""
    covered = {"task": task_id, "seq": seq, "prev": prev, "kind": kind, "at": at, "body": dict(body)}
    return Event(task_id, seq, prev, sha256_hex(canonical_bytes(covered)), kind, at, body)


def _is_as_written(event: Event) -> bool:
    """Whether the event's hash is the one of what it says. A chain is looked at whole each time, and grows."""
    # a database takes bytes for text, which would be written as text here
    if all(type(text) is str for text in (event.task_id, event.prev, event.kind, event.at)):
        covered = {"task": event.task_id, "seq": event.seq, "prev": event.prev, "kind": event.kind, "at": event.at}
        likely = likely_bytes({**covered, "body": event.body})
        if likely is not None and sha256_hex(likely) == event.hash:
            return True
    return event.hash == _hash_of(event)


def _hash_of(event: Event) -> str | None:
    """The hash that `event` should have; None for what no event can say."""
    if not isinstance(event.body, Mapping):
        return None
    try:
        return link(event.task_id, event.seq, event.prev, event.kind, event.at, event.body).hash
    except (TypeError, ValueError):
        return None


def chain_problems(events: Iterable[Event], *, head: str) -> list[str]:
    """What is wrong with a task's chain, read in order of `seq`; empty when it is whole and ends in `head`."""
    problems: list[str] = []
    prev, seq = GENESIS, 0
    for event in events:
        seq += 1
        if event.seq != seq:
            problems.append(f"event {seq} is missing: found {event.seq}")
            # an edited row of SQLite can hold text there
            seq = event.seq if isinstance(event.seq, int) else seq
        elif event.prev != prev:
            problems.append(f"event {seq} does not follow the one before it")
        elif not _is_as_written(event):
            problems.append(f"event {seq} was changed after it was written")
        prev = event.hash
    if prev != head:
        problems.append("the task's head is not its last event")
    return problems
