from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.domain.policy import APPROVERS, Decision, Level, Obligations, combine, highest, strictest

OBLIGATIONS = st.builds(
    Obligations,
    approvals=st.integers(0, 10),
    approver_group=st.sampled_from([APPROVERS, "dba", "security"]),
    max_window_s=st.none() | st.integers(0, 30 * 86_400),
)
DECISIONS = st.builds(
    Decision,
    permitted=st.booleans(),
    obligations=OBLIGATIONS,
    rules=st.lists(st.sampled_from("abcd"), max_size=3).map(tuple),
    policy_digest=st.just("sha256:x"),
)


def shortest(windows: list[int | None]) -> int | None:
    return min((w for w in windows if w is not None), default=None)


@given(OBLIGATIONS, OBLIGATIONS)
def test_strictest_asks_for_the_most_approvals_and_the_shortest_window(one: Obligations, other: Obligations) -> None:
    both = strictest(one, other)
    assert both.approvals == max(one.approvals, other.approvals)
    assert both.max_window_s == shortest([one.max_window_s, other.max_window_s])


@given(OBLIGATIONS, OBLIGATIONS)
def test_strictest_is_commutative_in_what_it_counts(one: Obligations, other: Obligations) -> None:
    forth, back = strictest(one, other), strictest(other, one)
    assert (forth.approvals, forth.max_window_s) == (back.approvals, back.max_window_s)
    if one.approvals != other.approvals:
        assert forth == back


@given(OBLIGATIONS, OBLIGATIONS)
def test_the_group_is_that_of_whoever_asks_for_the_most(one: Obligations, other: Obligations) -> None:
    most = max(one.approvals, other.approvals)
    groups = {o.approver_group for o in (one, other) if o.approvals == most}
    assert strictest(one, other).approver_group in groups


@given(OBLIGATIONS)
def test_strictest_of_the_same_is_the_same(one: Obligations) -> None:
    assert strictest(one, one) == one


@given(st.lists(DECISIONS, min_size=1, max_size=5))
def test_combine_never_asks_for_less_than_any_part(parts: list[Decision]) -> None:
    whole = combine(parts)
    assert all(whole.obligations.approvals >= part.obligations.approvals for part in parts)
    assert whole.obligations.max_window_s == shortest([part.obligations.max_window_s for part in parts])
    assert whole.permitted == all(part.permitted for part in parts)
    assert set(whole.rules) == {rule for part in parts for rule in part.rules}
    assert list(whole.rules) == sorted(set(whole.rules))


@given(st.lists(DECISIONS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_the_parts_changes_no_count(parts: list[Decision], random: object) -> None:
    mixed = [*parts]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = combine(parts), combine(mixed)
    assert (one.permitted, one.rules) == (other.permitted, other.rules)
    assert one.obligations.approvals == other.obligations.approvals
    assert one.obligations.max_window_s == other.obligations.max_window_s


def test_no_decision_is_a_denial() -> None:
    assert combine([]).permitted is False


def test_a_decision_as_json() -> None:
    decision = Decision(True, Obligations(2, "dba", 60), ("a",), "sha256:x")
    assert decision.as_json() == {
        "permitted": True,
        "obligations": {"approvals": 2, "approver_group": "dba", "max_window_s": 60},
        "rules": ["a"],
        "policy_digest": "sha256:x",
    }


@given(st.lists(st.sampled_from(["low", "medium", "high", "critical"]), min_size=1))
def test_the_highest_level_wins(levels: list[str]) -> None:
    order = ["low", "medium", "high", "critical"]
    assert highest(levels) is Level(order[max(map(order.index, levels))])


@pytest.mark.parametrize("levels", [[], ["low", "extreme"], ["LOW"], [""]])
def test_an_unknown_level_is_refused(levels: list[str]) -> None:
    with pytest.raises(ValueError):
        highest(levels)
