"""Which changes people outside hear of, and how long nobody is told again."""

from __future__ import annotations

import pytest
from event_examples import body
from hypothesis import given
from hypothesis import strategies as st

from jitvault.model.notice import LONGEST_PAUSE, Kind, kind_of_change, next_pause, notice_id
from jitvault.model.states import EDGES, START, State

MOVES = [(before, after) for before, edges in EDGES.items() for after in edges]


def test_more_time_that_waits_for_an_approval_is_told() -> None:
    for missing, kind in (([{"group": "jitvault-approvers", "count": 1}], Kind.PENDING), ([], None)):
        waits = body("extension_pending", missing=missing)
        assert kind_of_change(State.ACTIVE, State.ACTIVE, "extension_pending", waits) is kind


@pytest.mark.parametrize(
    ("before", "after", "event", "kind"),
    [
        (None, State.PENDING_APPROVAL, "submitted", Kind.PENDING),
        (None, State.APPROVED, "submitted", Kind.APPROVED),
        (None, State.DENIED, "submitted", Kind.ENDED),
        (State.PENDING_APPROVAL, State.PENDING_APPROVAL, "revised", Kind.PENDING),
        (State.PENDING_APPROVAL, State.PENDING_APPROVAL, "decided", None),
        (State.APPROVED, State.PENDING_APPROVAL, "decided", Kind.PENDING),
        (State.PENDING_APPROVAL, State.APPROVED, "decided", Kind.APPROVED),
        (State.APPROVED, State.CANCELLED, "cancelled", Kind.ENDED),
        (State.ACTIVE, State.ENDING, "ending", Kind.ENDED),
        (State.ENDING, State.CONFIRMED, "confirmed", None),
        (State.ENDING, State.UNVERIFIED, "unverified", Kind.ENDED),
        (State.CONFIRMED, State.ENDING, "late_lease", Kind.UNCONFIRMED),
        (State.ACTIVE, State.ACTIVE, "observed", None),
    ],
)
def test_what_a_change_is_to_people_outside(before: State | None, after: State, event: str, kind: Kind | None) -> None:
    assert kind_of_change(before, after, event, body(event)) is kind


@pytest.mark.parametrize(("verdict", "kind"), [("revoke_failed", Kind.UNCONFIRMED), ("acknowledged", None)])
def test_what_could_not_be_revoked_is_told(verdict: str, kind: Kind | None) -> None:
    revoked = body("revoked", verdicts={"a": "gone", "b": verdict})
    assert kind_of_change(State.ENDING, State.ENDING, "revoked", revoked) is kind


def test_nothing_that_is_over_is_told_as_waiting() -> None:
    for before, after in [*MOVES, *((None, after) for after in START)]:
        kind = kind_of_change(before, after, "decided", body("decided"))
        assert (kind is Kind.PENDING) == (after is State.PENDING_APPROVAL)
        assert (kind is Kind.APPROVED) == (after is State.APPROVED)


@given(st.sampled_from(Kind), st.none() | st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_an_id_is_of_what_is_told(kind: Kind, task: str | None, what: str, other: str) -> None:
    assert notice_id(kind, task, what) == notice_id(kind, task, what)
    assert (notice_id(kind, task, what) == notice_id(kind, task, other)) == (what == other)


@given(st.integers(0, 100_000))
def test_a_pause_grows_and_stays_bounded(tries: int) -> None:
    assert next_pause(tries) <= next_pause(tries + 1) <= LONGEST_PAUSE
