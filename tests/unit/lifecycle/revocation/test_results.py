"""When what could not be revoked is due again: soon at first, later and later, never all at once and never never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jitvault.lifecycle.revocation.results import next_try
from jitvault.model.states import DEAD, Verdict
from jitvault.model.ttl import LONGEST_PAUSE, SHORTEST_PAUSE

BEGUN = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
LASTED = st.timedeltas(timedelta(seconds=-5), timedelta(days=30))
LEAST, MOST = 0.75, 1.25


def wait(lasted: timedelta) -> timedelta:
    now = BEGUN + lasted
    return next_try(BEGUN, now) - now


@given(LASTED)
def test_it_is_always_due_again_between_a_moment_and_some_minutes(lasted: timedelta) -> None:
    # the quiet second of the proof is over then
    assert SHORTEST_PAUSE <= wait(lasted) <= LONGEST_PAUSE * MOST
    assert timedelta(seconds=1) == SHORTEST_PAUSE
    assert timedelta(minutes=5) == LONGEST_PAUSE


@given(st.timedeltas(2 * SHORTEST_PAUSE, 2 * LONGEST_PAUSE))
def test_it_waits_half_of_what_it_has_lasted(lasted: timedelta) -> None:
    assert lasted / 2 * LEAST <= wait(lasted) <= lasted / 2 * MOST


def test_it_begins_soon_and_ends_seldom() -> None:
    assert all(wait(timedelta(0)) <= SHORTEST_PAUSE * MOST for _ in range(20))
    assert all(wait(timedelta(days=1)) >= LONGEST_PAUSE * LEAST for _ in range(20))


def test_many_that_failed_at_once_are_not_tried_at_once() -> None:
    tries = sorted(wait(timedelta(minutes=2)) for _ in range(200))
    assert len(set(tries)) > 100
    assert tries[-1] - tries[0] > timedelta(seconds=15)


def test_only_what_is_proven_or_never_was_is_dead() -> None:
    assert {Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED} == DEAD
