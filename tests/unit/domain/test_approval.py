from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.domain.approval import Vote, tally
from jitvault.domain.policy import APPROVERS, Obligations

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
INVOLVED = {"e-req": "requester", "e-agent": "agent", "e-owner": "owner"}
TWO = Obligations(approvals=2)


def vote(entity: str = "e-1", decision: str = "approve", **changes: object) -> Vote:
    made = Vote(
        entity_id=entity,
        name=f"name of {entity}",
        decision=decision,
        digest=DIGEST,
        expires_at=NOW + timedelta(hours=1),
        reason="looked at it",
        groups=(APPROVERS, "staff"),
        written_at=NOW - timedelta(minutes=1),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def count(*votes: Vote, needed: Obligations = TWO, now: datetime = NOW) -> tuple[int, str | None, int]:
    """How many count, who denied, how many are missing."""
    found = tally(votes, needed, digest=DIGEST, involved=INVOLVED, now=now)
    return len(found.approved_by), found.denied_by and found.denied_by.entity_id, found.missing


def test_distinct_approvers_count() -> None:
    assert count() == (0, None, 2)
    assert count(vote("e-1")) == (1, None, 1)
    assert count(vote("e-1"), vote("e-2")) == (2, None, 0)
    assert count(vote("e-1"), vote("e-2"), vote("e-3")) == (3, None, 0)


def test_the_same_approver_twice_counts_once() -> None:
    assert count(vote("e-1"), vote("e-1", name="another name"), vote("e-1", reason="again")) == (1, None, 1)


@pytest.mark.parametrize("entity", sorted(INVOLVED))
def test_whoever_is_involved_never_approves(entity: str) -> None:
    assert count(vote(entity), vote("e-1")) == (1, None, 1)
    refused = tally([vote(entity)], TWO, digest=DIGEST, involved=INVOLVED, now=NOW).refused
    assert [r.as_json() for r in refused] == [
        {
            "entity": entity,
            "name": f"name of {entity}",
            "why": f"is the {INVOLVED[entity]} and cannot approve",
        }
    ]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (vote(digest=OTHER), "decided about another digest"),
        (vote(groups=()), f"is not in {APPROVERS}"),
        (vote(groups=("staff",)), f"is not in {APPROVERS}"),
        (vote(expires_at=NOW), "the approval has expired"),
        (vote(expires_at=NOW - timedelta(seconds=1)), "the approval has expired"),
    ],
)
def test_a_vote_that_does_not_count_says_why(wrong: Vote, why: str) -> None:
    found = tally([wrong], TWO, digest=DIGEST, involved=INVOLVED, now=NOW)
    assert found.approved_by == ()
    assert found.missing == 2
    assert [(refusal.entity_id, refusal.why) for refusal in found.refused] == [("e-1", why)]


def test_an_approval_holds_up_to_its_expiry() -> None:
    last = vote(expires_at=NOW + timedelta(microseconds=1))
    assert count(last) == (1, None, 1)
    assert count(last, now=last.expires_at) == (0, None, 2)


def test_the_group_is_the_one_that_policy_names() -> None:
    needed = Obligations(approvals=1, approver_group="dba")
    assert count(vote("e-1"), needed=needed) == (0, None, 1)
    assert count(vote("e-1", groups=("dba",)), needed=needed) == (1, None, 0)


def test_a_denial_wins_over_any_number_of_approvals() -> None:
    votes = [vote(f"e-{n}") for n in range(5)]
    for place in range(6):
        mixed = [*votes[:place], vote("z-no", "deny"), *votes[place:]]
        assert count(*mixed)[1] == "z-no"
    # also one's own earlier approval, and an old denial: a denial does not expire
    assert count(vote("e-1"), vote("e-1", "deny"))[1] == "e-1"
    assert count(vote("e-1", "deny", expires_at=NOW - timedelta(days=1)))[1] == "e-1"


def test_a_denial_from_outside_or_of_another_digest_is_none() -> None:
    assert count(vote("e-1", "deny", groups=())) == (0, None, 2)
    assert count(vote("e-1", "deny", digest=OTHER)) == (0, None, 2)


@pytest.mark.parametrize("decision", ["", "Approve", "APPROVE", "withdraw", "approved", "yes"])
def test_any_other_word_approves_nothing(decision: str) -> None:
    assert count(vote("e-1", decision)) == (0, None, 2)


def test_what_is_missing_as_json() -> None:
    short = tally([vote()], TWO, digest=DIGEST, involved=INVOLVED, now=NOW)
    assert short.missing_json() == [{"group": APPROVERS, "count": 1}]
    full = tally([vote()], Obligations(approvals=1), digest=DIGEST, involved=INVOLVED, now=NOW)
    assert full.missing_json() == []


VOTES = st.builds(
    vote,
    st.sampled_from(["e-1", "e-2", "e-3", *INVOLVED]),
    st.sampled_from(["approve", "deny", "withdraw", ""]),
    digest=st.sampled_from([DIGEST, OTHER]),
    groups=st.sampled_from([(), ("staff",), (APPROVERS,), ("dba", APPROVERS)]),
    expires_at=st.integers(-5, 5).map(lambda s: NOW + timedelta(seconds=s)),
)


def eligible(votes: list[Vote]) -> set[str]:
    """Who really approved, told without the code under test."""
    return {
        v.entity_id
        for v in votes
        if v.decision == "approve"
        and v.digest == DIGEST
        and APPROVERS in v.groups
        and v.entity_id not in INVOLVED
        and v.expires_at > NOW
    }


@given(st.lists(VOTES, max_size=12), st.integers(0, 5))
def test_what_is_missing_is_what_distinct_eligible_approvers_leave(votes: list[Vote], needed: int) -> None:
    found = tally(votes, Obligations(approvals=needed), digest=DIGEST, involved=INVOLVED, now=NOW)
    assert found.missing == max(0, needed - len(eligible(votes)))
    assert {v.entity_id for v in found.approved_by} == eligible(votes)
    denials = [v for v in votes if v.decision == "deny" and v.digest == DIGEST and APPROVERS in v.groups]
    assert (found.denied_by is not None) == bool(denials)


@given(st.lists(VOTES, max_size=8), VOTES)
def test_one_more_vote_never_makes_more_missing_nor_takes_a_denial_back(votes: list[Vote], more: Vote) -> None:
    before = tally(votes, TWO, digest=DIGEST, involved=INVOLVED, now=NOW)
    after = tally([*votes, more], TWO, digest=DIGEST, involved=INVOLVED, now=NOW)
    assert before.missing - 1 <= after.missing <= before.missing
    assert before.denied_by is None or after.denied_by is not None
