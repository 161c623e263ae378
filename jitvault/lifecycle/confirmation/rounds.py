"""Count, in a task's chain, how often its end was called proven and reopened.

A counter of its own could be edited or lost; the events say the number already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import TARGET_N
from jitvault.model.states import REOPENING_EVENTS

MOST_ROUNDS = 3
"""After so many, an operator is told and the task is confirmed only when it can be sealed."""
ACCOUNTED = "accounted"
"""The answer of a lease listing where every lease belongs to a task."""


def reopened(events: Iterable[Event]) -> int:
    """Count how often everything of the task was looked up and ended anew."""
    return sum(event.kind in REOPENING_EVENTS for event in events)


def why_reopened(events: Sequence[Event]) -> str:
    """Return why it was done the last time; empty where it never was."""
    return next((str(e.body.get("why", "")) for e in reversed(events) if e.kind in REOPENING_EVENTS), "")


def is_going_round(events: Iterable[Event]) -> bool:
    """Return whether it was done so often that an operator has to know."""
    return reopened(events) >= MOST_ROUNDS


def listed_in_vain(events: Sequence[Event]) -> int:
    """Count the last listings in a row that settled nothing."""
    answers = [str(e.body["answer"]) for e in events if e.kind == EventKind.LISTED]
    return next((n for n, answer in enumerate(reversed(answers)) if answer == ACCOUNTED), len(answers))


def why_listed_in_vain(events: Sequence[Event]) -> str:
    """Return why the last listing settled nothing; empty where it did."""
    last = next((e.body for e in reversed(events) if e.kind == EventKind.LISTED), None)
    if last is None or last["answer"] == ACCOUNTED:
        return ""
    if last["suspects"]:
        return f"Vault lists {last['suspects'][0]}, which belongs to no task"
    return f"what was approved is not what is there now: {last['drift']}" if last.get("drift") else str(last["answer"])


def why_put_off(events: Sequence[Event]) -> str | None:
    """Return what kept a confirmed task from its seal at the last try, if anything."""
    for event in reversed(events):
        if event.kind == EventKind.SEAL_PUT_OFF:
            return str(event.body["why"])
        if event.kind == EventKind.CONFIRMED:
            break
    return None


def refused_by_target(events: Sequence[Event]) -> frozenset[str]:
    """Return the leases that their target refused when the task was confirmed last.

    The chain keeps each check. Nothing is left of it once the task began to end again.
    """
    for event in reversed(events):
        if event.kind in REOPENING_EVENTS:
            break
        if event.kind == EventKind.CONFIRMED:
            return frozenset(subject for subject, n, ok in event.body.get("checks", ()) if n == TARGET_N and ok)
    return frozenset()
