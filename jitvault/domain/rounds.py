"""How often the end of a task was called proven and did not stay so, by the task's own chain of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitvault.domain.chain import Event
from jitvault.domain.confirmation import TARGET_N
from jitvault.domain.lifecycle import BEGUN_AGAIN

MOST_ROUNDS = 3
"""After so many an operator is told, and the task is not called proven again before it can be sealed."""
AFTER_SEAL = (
    "lease_after_seal",
    "a lease appeared after the task was sealed: the settle window is shorter than the server's requests",
)
"""The rule and the words of the finding about a lease that comes after everything was over."""
PUT_OFF = "seal_put_off"
"""The event that says why a task is not sealed although its settle window is over."""
CONFIRMED = "confirmed"
LISTED, ACCOUNTED = "listed", "accounted"
"""The event of a listing of the task's prefixes, and its answer where every lease belongs to a task."""


def reopened(events: Iterable[Event]) -> int:
    """How often everything of the task was looked up and ended anew."""
    return sum(event.kind in BEGUN_AGAIN for event in events)


def why_reopened(events: Sequence[Event]) -> str:
    """Why that was done the last time; empty where it never was."""
    return next((str(e.body.get("why", "")) for e in reversed(events) if e.kind in BEGUN_AGAIN), "")


def is_going_round(events: Iterable[Event]) -> bool:
    """Whether that was done so often that only an operator can tell whether it leads anywhere."""
    return reopened(events) >= MOST_ROUNDS


def listed_in_vain(events: Sequence[Event]) -> int:
    """How often in a row a listing of the task's paths left a lease over that belongs to no task."""
    answers = [str(e.body["answer"]) for e in events if e.kind == LISTED]
    return next((n for n, answer in enumerate(reversed(answers)) if answer == ACCOUNTED), len(answers))


def why_listed_in_vain(events: Sequence[Event]) -> str:
    """Why the last listing of the task's paths settled nothing; empty where it did, or none was made."""
    last = next((e.body for e in reversed(events) if e.kind == LISTED), None)
    if last is None or last["answer"] == ACCOUNTED:
        return ""
    if last["suspects"]:
        return f"Vault lists {last['suspects'][0]}, which belongs to no task"
    return f"what was approved is not what is there now: {last['drift']}" if last.get("drift") else str(last["answer"])


def why_put_off(events: Sequence[Event]) -> str | None:
    """Why a task that is confirmed is not sealed, as its last try found; None where nothing keeps it from that."""
    for event in reversed(events):
        if event.kind == PUT_OFF:
            return str(event.body["why"])
        if event.kind == CONFIRMED:
            break
    return None


def refused_by_target(events: Sequence[Event]) -> frozenset[str]:
    """The leases that their target refused when the task was confirmed last, by the check that the chain keeps.

    Nothing is left of it once the task began to end again.
    """
    for event in reversed(events):
        if event.kind in BEGUN_AGAIN:
            break
        if event.kind == CONFIRMED:
            return frozenset(subject for subject, n, ok in event.body["checks"] if n == TARGET_N and ok)
    return frozenset()
