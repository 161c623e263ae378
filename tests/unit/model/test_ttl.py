"""How long a credential lives: no renewal exceeds any bound, and nothing is renewed that need not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from credential_story import STRANGER, TOKEN, WORKER, Story
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind
from jitvault.formats.clocks import TOLERANCE
from jitvault.lifecycle.renewal.schedule import heartbeat_deadline
from jitvault.model.ttl import (
    early_end,
    increment,
    needs_renewal,
    next_look,
    renew_at,
    requested_ttl,
    unrenewed_expiry,
)

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(("criticality", "minutes"), [("low", 15), ("medium", 10), ("high", 5), ("critical", 2)])
def test_who_asks_for_no_ttl_gets_one_by_criticality(criticality: str, minutes: int) -> None:
    assert requested_ttl(None, criticality) == minutes * MINUTE
    assert requested_ttl(7 * MINUTE, criticality) == 7 * MINUTE


@given(
    window=st.integers(1, 8 * 3600),
    ttl_s=st.integers(1, 8 * 3600),
    step_s=st.integers(1, 8 * 3600),
    late=st.lists(st.floats(0, 300), min_size=200, max_size=200),
    given_less=st.lists(st.integers(0, 5), min_size=200, max_size=200),
)
def test_no_renewal_exceeds_any_bound_and_every_life_is_renewed_up_to_the_deadline(
    window: int, ttl_s: int, step_s: int, late: list[float], given_less: list[int]
) -> None:
    ends_at, span = after(window), min(ttl_s, step_s)
    sent, given_s = NOW, span
    for more, less in zip(late, given_less, strict=True):
        due = renew_at(sent, given_s, ends_at)
        if due is None:
            assert sent + timedelta(seconds=given_s) > ends_at - timedelta(seconds=1)
            return
        # there is time for it: at half of its life or soon after, but for what is too short for that
        half = max(timedelta(seconds=given_s) / 2, timedelta(seconds=1))
        assert sent + half <= due < sent + half + half / 30
        # never before Vault ends what nobody renews
        assert unrenewed_expiry(NOW, due, span) >= sent + timedelta(seconds=given_s)
        sent = due + timedelta(seconds=more)
        seconds = increment(sent, ends_at, span)
        assert 0 <= seconds <= min(ttl_s, step_s)
        assert seconds == 0 or sent + timedelta(seconds=seconds) <= ends_at
        if not seconds:
            assert sent > ends_at - timedelta(seconds=1)
            return
        given_s = max(1, seconds - less)


@given(
    window=st.integers(10, 8 * 3600),
    step_s=st.integers(10, 8 * 3600),
    late=st.lists(st.floats(0, 0.4), min_size=200, max_size=200),
    behind=st.floats(-1, 1),
)
def test_a_token_that_was_renewed_whenever_it_was_due_ends_by_the_deadline_and_any_other_too_early(
    window: int, step_s: int, late: list[float], behind: float
) -> None:
    ends_at = after(window)
    sent, given_s = NOW, min(window, step_s)
    for part in late:
        # by Vault's clock
        expires_at = sent + timedelta(seconds=given_s) - behind * TOLERANCE
        due = renew_at(sent, given_s, ends_at)
        if due is None:
            assert early_end(expires_at, due, ends_at) is None
            return
        assert early_end(expires_at, due, ends_at) == expires_at
        sent = due + part * timedelta(seconds=given_s)
        given_s = increment(sent, ends_at, step_s)
        assert given_s


def test_a_token_that_got_less_than_the_time_to_the_deadline_ends_too_early() -> None:
    assert early_end(after(54), None, after(60)) == after(54) and early_end(after(54.1), None, after(60)) is None
    assert early_end(after(60), after(30), after(60)) == after(60)


def test_a_renewal_gives_the_step_and_never_more_than_is_left() -> None:
    assert increment(NOW, after(600), 120) == 120
    assert increment(NOW, after(119.9), 120) == 119
    assert increment(NOW, after(0.9), 120) == increment(NOW, NOW, 120) == increment(after(9), NOW, 120) == 0


def test_what_reaches_the_deadline_is_not_renewed() -> None:
    assert needs_renewal(NOW, after(121), 120) and not needs_renewal(NOW, after(120.9), 120)
    assert renew_at(NOW, 120, after(600)) == after(60)
    assert renew_at(NOW, 120, after(120)) is None
    # however little it gets, Vault is not asked more than once a second
    assert unrenewed_expiry(NOW, after(60), 120) == after(120) and unrenewed_expiry(NOW, after(300), 120) == after(360)
    seldom = renew_at(NOW, 1, after(600))
    assert seldom == renew_at(NOW, 0, after(600)) and seldom is not None and after(1) <= seldom < after(1.04)


@given(st.floats(0, 300), st.floats(0, 300))
def test_what_is_renewed_within_the_same_sixtieth_of_a_life_is_renewed_together(one: float, other: float) -> None:
    due = [renew_at(after(sent), 120, after(3600)) for sent in (one, other)]
    seconds = [at.timestamp() for at in due if at is not None]
    assert [second % 2 for second in seconds] == [0, 0]
    assert abs(seconds[0] - seconds[1]) < abs(one - other) + 2


def test_every_line_of_the_token_is_a_beat_and_the_worker_gives_none() -> None:
    story = Story().created()
    assert heartbeat_deadline(TOKEN, story.lines, MINUTE) is None
    story.wait(1).add(Kind.UNWRAPPED, TOKEN, actor=STRANGER)
    first = story.lines[-1].at
    assert heartbeat_deadline(TOKEN, story.lines, MINUTE) == first + MINUTE
    story.wait(1).add(Kind.RENEWED, TOKEN, actor=WORKER).token_alive()
    assert heartbeat_deadline(TOKEN, story.lines, MINUTE) == first + MINUTE
    story.wait(1).add(Kind.DENIED, TOKEN, actor=TOKEN)
    assert heartbeat_deadline(TOKEN, story.lines, MINUTE) == story.lines[-1].at + MINUTE
    assert heartbeat_deadline(TOKEN, story.lines, None) is heartbeat_deadline("", story.lines, MINUTE) is None


def test_the_next_look_is_the_first_of_all() -> None:
    assert next_look(after(3), None, after(2)) == after(2)
    assert next_look(None) is next_look() is None
