"""The hash chain of a task's events, which makes every edit visible.

The chain makes an edit visible to everyone who kept a later head (the receipt is signed over the head). It does
not stop a writer who replaces the whole ledger: authority lives in Vault, not in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.formats.canonical_json import canonical_bytes, sha256_hex

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """One link of a task's chain: event `seq`, counted from 1.

    `hash` covers task, seq, prev, kind, at and body. `jitvault.model.event_bodies` reads the body.
    """

    task_id: str
    seq: int
    prev: str
    hash: str
    kind: str
    at: str
    body: Mapping[str, Any]


def link(task_id: str, seq: int, prev: str, kind: str, at: str, body: Mapping[str, Any]) -> Event:
    """Return the event that follows the one with the hash `prev`.

    `at` is an RFC 3339 time.
    """
    covered = {"task": task_id, "seq": seq, "prev": prev, "kind": kind, "at": at, "body": dict(body)}
    return Event(task_id, seq, prev, sha256_hex(canonical_bytes(covered)), kind, at, body)


def _hash_of(event: Event) -> str | None:
    """Return the hash that `event` should have.

    The result is None if its fields cannot be an event's.
    """
    if not isinstance(event.body, Mapping):
        return None
    try:
        return link(event.task_id, event.seq, event.prev, event.kind, event.at, event.body).hash
    except (TypeError, ValueError, RecursionError):
        return None


def chain_problems(events: Iterable[Event], *, head: str) -> list[str]:
    """Return what is wrong with a task's chain, given in order of `seq`.

    The list is empty if the chain is complete and ends in `head`.
    """
    problems: list[str] = []
    prev = GENESIS
    seq = 0
    for event in events:
        seq += 1
        if event.seq != seq:
            problems.append(f"event {seq} is missing: found {event.seq}")
            # an edited row of SQLite can hold text in the integer column
            seq = event.seq if isinstance(event.seq, int) else seq
        elif event.prev != prev:
            problems.append(f"event {seq} does not follow the one before it")
        elif event.hash != _hash_of(event):
            problems.append(f"event {seq} was changed after it was written")
        prev = event.hash
    if prev != head:
        problems.append("the task's head is not its last event")
    return problems
