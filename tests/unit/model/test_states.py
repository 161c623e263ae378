from __future__ import annotations

import itertools

import pytest

from jitvault.errors import WrongState
from jitvault.model.states import (
    BEFORE_GRANT,
    EDGES,
    ENDED,
    LIVE_STATES,
    OVER,
    PROVEN,
    State,
    check_move,
)

# The table as the design tells it, spelled out here and not read from the code: every pair that is not
# below is refused. The main line, then what stands beside it, then the ways back.
ALLOWED = {
    ("pending_approval", "approved"),
    ("approved", "issuing"),
    ("issuing", "issued"),
    ("issued", "active"),
    ("active", "ending"),
    ("ending", "confirmed"),
    ("confirmed", "sealed"),
    # closed by hand, without proof
    ("ending", "unverified"),
    ("confirmed", "unverified"),
    # before it is granted a task can be denied or cancelled, or its window passes
    ("pending_approval", "denied"),
    ("pending_approval", "cancelled"),
    ("pending_approval", "lapsed"),
    ("approved", "denied"),
    ("approved", "cancelled"),
    ("approved", "lapsed"),
    # policy denied it, and may permit it when its time is over
    ("denied", "lapsed"),
    # a grant ends from every state in which a credential may be live
    ("issuing", "ending"),
    ("issued", "ending"),
    # an extension past what the token can live
    ("issued", "issuing"),
    ("active", "issuing"),
    # a late lease
    ("confirmed", "ending"),
    # a new revision, or an approval that no longer holds, is decided again
    ("approved", "pending_approval"),
    ("denied", "pending_approval"),
    ("denied", "approved"),
    ("lapsed", "pending_approval"),
    ("lapsed", "approved"),
    ("lapsed", "denied"),
}
STARTS = {"pending_approval", "approved", "denied"}
PAIRS = [(before, after) for before, after in itertools.product(State, State) if before is not after]


def test_the_states_are_the_designed_ones() -> None:
    assert {state.value for state in State} == {
        *("pending_approval", "approved", "issuing", "issued", "active", "ending", "confirmed", "sealed"),
        *("denied", "cancelled", "lapsed", "unverified"),
    }


def test_a_move_is_allowed_if_and_only_if_the_table_has_it() -> None:
    for before, after in PAIRS:
        if (before.value, after.value) in ALLOWED:
            check_move("t-1", before, after)
            continue
        with pytest.raises(WrongState, match=f"task t-1 cannot go from {before} to {after}") as caught:
            check_move("t-1", before, after)
        assert caught.value.exit_code == 9


@pytest.mark.parametrize("state", State)
def test_a_task_begins_only_where_the_first_decision_puts_it(state: State) -> None:
    if state.value in STARTS:
        check_move("t-1", None, state)
        return
    with pytest.raises(WrongState, match=f"from nothing to {state}"):
        check_move("t-1", None, state)


@pytest.mark.parametrize("state", State)
def test_staying_in_place_is_no_move(state: State) -> None:
    check_move("t-1", state, state)


def test_every_state_has_its_row_and_the_table_cannot_be_changed() -> None:
    assert set(EDGES) == set(State)
    with pytest.raises(TypeError):
        EDGES[State.SEALED] = frozenset({State.ACTIVE})  # type: ignore[index]


def test_the_groups_of_states_are_what_their_names_say() -> None:
    assert set(LIVE_STATES) == {State.ISSUING, State.ISSUED, State.ACTIVE}
    assert set(PROVEN) == {State.CONFIRMED, State.SEALED}
    assert set(ENDED) == {State.ENDING, State.CONFIRMED, State.SEALED, State.UNVERIFIED}
    assert set(OVER) == {State.SEALED, State.UNVERIFIED, State.CANCELLED, State.DENIED, State.LAPSED}
    assert set(State) - set(BEFORE_GRANT) - set(LIVE_STATES) - set(ENDED) == {State.CANCELLED}


def test_whoever_holds_a_credential_cannot_slip_past_its_proof() -> None:
    # from a state with a live credential, every way to the end leads through `ending` and `confirmed`, but for the
    # one that says so of itself
    reached, new = set(LIVE_STATES), set(LIVE_STATES)
    while new:
        new = {after for state in new for after in EDGES[state] if after is not State.CONFIRMED} - reached
        reached |= new
    assert reached == {State.ISSUING, State.ISSUED, State.ACTIVE, State.ENDING, State.UNVERIFIED}
