from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.policy.decision import (
    APPROVERS,
    NO_OBLIGATIONS,
    Decision,
    Level,
    Obligations,
    ProofLevel,
    Requirement,
    combine,
    highest,
    needed_proof_level,
    strictest,
)

GROUPS = [APPROVERS, "jitvault-dba", "jitvault-security"]
SECONDS = st.none() | st.integers(1, 30 * 86_400)
OBLIGATIONS = st.builds(
    Obligations,
    approvals=st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 10)).map(
        lambda counts: tuple(Requirement(*item) for item in sorted(counts.items()))
    ),
    max_ttl_s=SECONDS,
    max_window_s=SECONDS,
    confirm=st.none() | st.sampled_from(ProofLevel),
    owner_may_approve=st.just(()),
    notify=st.sets(st.sampled_from(["a", "b", "c"])).map(lambda names: tuple(sorted(names))),
)
DECISIONS = st.builds(
    Decision,
    permitted=st.booleans(),
    obligations=OBLIGATIONS,
    rules=st.lists(st.sampled_from("abcd"), max_size=3).map(tuple),
    policy_digest=st.just("sha256:x"),
    reasons=st.lists(st.sampled_from(["why", "because"]), max_size=2).map(tuple),
)


def is_at_least(strict: Obligations, lax: Obligations) -> bool:
    """Whether whoever meets `strict` meets `lax`, told without the code under test."""
    counts = {needed.group: needed.count for needed in strict.approvals}
    shorter = [
        cap is None or (own is not None and own <= cap)
        for own, cap in ((strict.max_ttl_s, lax.max_ttl_s), (strict.max_window_s, lax.max_window_s))
    ]
    return (
        all(counts.get(needed.group, 0) >= needed.count for needed in lax.approvals)
        and all(shorter)
        and (lax.confirm is None or strict.confirm in (lax.confirm, ProofLevel.TARGET))
        and set(lax.notify) <= set(strict.notify)
    )


@given(OBLIGATIONS, OBLIGATIONS)
def test_strictest_is_as_strict_as_each_and_asks_for_nothing_else(one: Obligations, other: Obligations) -> None:
    both = strictest(one, other)
    assert is_at_least(both, one) and is_at_least(both, other)
    asked = {*one.approvals, *other.approvals}
    assert set(both.approvals) <= asked
    assert both.max_ttl_s in (one.max_ttl_s, other.max_ttl_s)
    assert both.max_window_s in (one.max_window_s, other.max_window_s)
    assert both.confirm in (one.confirm, other.confirm)
    assert set(both.notify) == {*one.notify, *other.notify}


@given(OBLIGATIONS, OBLIGATIONS, OBLIGATIONS)
def test_strictest_is_a_least_upper_bound(a: Obligations, b: Obligations, c: Obligations) -> None:
    assert strictest(a, b) == strictest(b, a)
    assert strictest(a, strictest(b, c)) == strictest(strictest(a, b), c)
    assert strictest(a, a) == a == strictest(a, NO_OBLIGATIONS)


@given(st.lists(DECISIONS, min_size=1, max_size=5))
def test_combine_never_asks_for_less_than_any_part(parts: list[Decision]) -> None:
    whole = combine(parts)
    assert whole.permitted == all(part.permitted for part in parts)
    if whole.permitted:
        assert all(is_at_least(whole.obligations, part.obligations) for part in parts)
    else:
        assert whole.obligations == NO_OBLIGATIONS
    deciding = [part for part in parts if part.permitted == whole.permitted]
    assert set(whole.rules) == {rule for part in deciding for rule in part.rules}
    assert list(whole.rules) == sorted(set(whole.rules))
    assert set(whole.reasons) == {reason for part in deciding for reason in part.reasons}


@given(st.lists(DECISIONS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_the_parts_changes_nothing(parts: list[Decision], random: object) -> None:
    mixed = [*parts]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert combine(parts) == combine(mixed)


def test_no_decision_is_a_denial() -> None:
    assert combine([]).permitted is False


def test_a_decision_as_json() -> None:
    obligations = Obligations(
        (Requirement("jitvault-dba", 2),), 30, 60, ProofLevel.TARGET, ("security",), ("jitvault-dba",)
    )
    told = Decision(True, obligations, ("a",), "sha256:x", ("because",)).as_json()
    assert told == {
        "permitted": True,
        "obligations": {
            "approvals": [{"group": "jitvault-dba", "count": 2}],
            "max_ttl_s": 30,
            "max_window_s": 60,
            "confirm": "target",
            "notify": ["security"],
            "owner_may_approve": ["jitvault-dba"],
        },
        "rules": ["a"],
        "reasons": ["because"],
        "policy_digest": "sha256:x",
    }
    assert Decision.of(told).obligations == obligations


def test_the_owner_counts_in_a_group_when_all_who_ask_for_it_say_so() -> None:
    one = Requirement("jitvault-dba", 1)
    lax, strict = Obligations((one,), owner_may_approve=("jitvault-dba",)), Obligations((one,))
    for both in (strictest(lax, lax), strictest(lax, NO_OBLIGATIONS), strictest(NO_OBLIGATIONS, lax)):
        assert both.owner_may_approve == ("jitvault-dba",)
    assert strictest(lax, strict).owner_may_approve == strictest(strict, lax).owner_may_approve == ()


@pytest.mark.parametrize(
    ("asked", "obliged", "needed"),
    [
        ("audit", None, "audit"),
        ("audit", "audit", "audit"),
        ("audit", "target", "target"),
        ("target", None, "target"),
        ("target", "audit", "target"),
    ],
)
def test_policy_only_raises_the_rung(asked: str, obliged: str | None, needed: str) -> None:
    assert needed_proof_level(asked, obliged) == needed


@given(st.lists(st.sampled_from(["low", "medium", "high", "critical"]), min_size=1))
def test_the_highest_level_wins(levels: list[str]) -> None:
    order = ["low", "medium", "high", "critical"]
    assert highest(levels) is Level(order[max(map(order.index, levels))])


@pytest.mark.parametrize("levels", [[], ["low", "extreme"], ["LOW"], [""]])
def test_an_unknown_level_is_refused(levels: list[str]) -> None:
    with pytest.raises(ValueError):
        highest(levels)
