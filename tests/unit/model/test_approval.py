from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_revision import revision

from jitvault.model import approval
from jitvault.model.approval import ApproverDecision, Subject, denial, tally, unmet
from jitvault.model.event_bodies import Refusal
from jitvault.model.revision_content import Party
from jitvault.model.signed_document import EnvelopeSignature, SignedByPerson
from jitvault.policy.decision import APPROVERS, Obligations, Requirement

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
INVOLVED = {f"e-{part}": f"is the {part} and cannot approve" for part in ("requester", "agent", "owner")}
SUBJECT = Subject(DIGEST, 1, "e-requester")
PARTS = {part: Party(f"e-{part}", part) for part in ("requester", "agent", "owner")}
REVISION = revision(**PARTS)
DBA, SECURITY = "jitvault-dba", "jitvault-security"


def needing(*groups: str) -> Obligations:
    """One approval of each time that a group is named."""
    return Obligations(tuple(Requirement(group, count) for group, count in sorted(Counter(groups).items())))


TWO = needing(APPROVERS, APPROVERS)


def decided(entity: str = "e-1", decision: str = "approve", **changes: object) -> ApproverDecision:
    made = ApproverDecision(
        entity_id=entity,
        name=f"name of {entity}",
        decision=decision,
        digest=DIGEST,
        expires_at=NOW + timedelta(hours=1),
        reason="looked at it",
        groups=(APPROVERS, "staff"),
        written_at=NOW - timedelta(minutes=1),
        revision=1,
        requester="e-requester",
        envelope=SignedByPerson("e30=", "application/vnd.jitvault+json", [EnvelopeSignature("k", "c2ln")]),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def count(*decisions: ApproverDecision, needed: Obligations = TWO, now: datetime = NOW) -> tuple[int, str | None, int]:
    """How many count, who denied, how many are missing."""
    found = tally(decisions, needed, subject=SUBJECT, barred=INVOLVED, now=now)
    return len(found.approved_by), found.denied_by and found.denied_by.entity_id, sum(m.count for m in found.missing)


def test_distinct_approvers_count() -> None:
    assert count() == (0, None, 2)
    assert count(decided("e-1")) == (1, None, 1)
    assert count(decided("e-1"), decided("e-2")) == (2, None, 0)
    assert count(decided("e-1"), decided("e-2"), decided("e-3")) == (3, None, 0)


def test_the_same_approver_twice_counts_once() -> None:
    assert count(decided("e-1"), decided("e-1", name="another name"), decided("e-1", reason="again")) == (1, None, 1)


@pytest.mark.parametrize("entity", sorted(INVOLVED))
def test_whoever_is_involved_never_approves(entity: str) -> None:
    assert count(decided(entity), decided("e-1")) == (1, None, 1)
    refused = tally([decided(entity)], TWO, subject=SUBJECT, barred=INVOLVED, now=NOW).refused
    assert refused == (Refusal(entity=entity, name=f"name of {entity}", why=INVOLVED[entity], withdrawn=False),)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (decided(digest=OTHER), "decided about another digest"),
        (decided(digest=OTHER, revision=0), "approved revision 0"),
        (decided(digest=OTHER, revision=0, decision="deny"), "denied revision 0"),
        (decided(digest=OTHER, revision=0, withdrawn=True), "decided about another digest"),
        (decided(digest=OTHER, revision=0, requester="e-other"), "decided about another digest"),
        (decided(groups=()), f"is not in {APPROVERS}"),
        (decided(groups=("staff",)), f"is not in {APPROVERS}"),
        (decided(revision=2), "decided about another revision or requester"),
        (decided(requester="e-other"), "decided about another revision or requester"),
        (decided(void="withdrew the approval"), "withdrew the approval"),
        (decided(unregistered="is not a registered approver"), "is not a registered approver"),
        (decided(decision="deny", unregistered="is not a registered approver"), "is not a registered approver"),
        (decided(expires_at=NOW), "the approval has expired"),
        (decided(expires_at=NOW - timedelta(seconds=1)), "the approval has expired"),
    ],
)
def test_a_decision_that_does_not_count_says_why(wrong: ApproverDecision, why: str) -> None:
    found = tally([wrong], TWO, subject=SUBJECT, barred=INVOLVED, now=NOW)
    assert found.approved_by == ()
    assert found.missing == TWO.approvals
    assert [(refusal.entity, refusal.why) for refusal in found.refused] == [("e-1", why)]


def test_an_approval_holds_up_to_its_expiry() -> None:
    last = decided(expires_at=NOW + timedelta(microseconds=1))
    assert count(last) == (1, None, 1)
    assert count(last, now=last.expires_at) == (0, None, 2)


def test_the_group_is_the_one_that_policy_names() -> None:
    needed = needing(DBA)
    assert count(decided("e-1"), needed=needed) == (0, None, 1)
    assert count(decided("e-1", groups=(DBA,)), needed=needed) == (1, None, 0)


def test_two_groups_need_two_people() -> None:
    needed = needing(DBA, SECURITY)
    dba, security, both = (
        decided(name, groups=groups)
        for name, groups in (("e-dba", (DBA,)), ("e-sec", (SECURITY,)), ("e-both", (DBA, SECURITY)))
    )
    assert count(dba, security, needed=needed) == (2, None, 0)
    assert count(both, needed=needed) == (1, None, 1), "one person is never two"
    # who is in both makes room for whoever is in one only, whichever that is
    assert count(dba, both, needed=needed) == count(both, security, needed=needed) == (2, None, 0)
    assert count(dba, decided("e-dba-2", groups=(DBA,)), needed=needed) == (2, None, 1)
    left = tally([dba], needed, subject=SUBJECT, barred={}, now=NOW)
    assert left.missing == (Requirement(SECURITY, 1),)


def persons_count(*decisions: ApproverDecision, persons: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """How many are missing, and why others do not count, where entities say who they are."""
    known = {"e-requester": "rita", "e-agent": "", "e-owner": "otto"} if persons is None else persons
    found = approval.count(REVISION, decisions, TWO, forbidden={}, now=NOW, persons=known)
    return sum(m.count for m in found.missing), [refusal.why for refusal in found.refused]


def someone(entity: str, person: str, *more: str) -> ApproverDecision:
    told = {"digest": REVISION.digest, "requester": "e-requester"}
    return decided(entity, person=person, persons=frozenset({person, *more} - {""}), **told)


def test_two_entities_of_one_person_are_one_approver() -> None:
    assert persons_count(someone("e-1", "anna"), someone("e-2", "ben")) == (0, [])
    assert persons_count(someone("e-1", "anna"), someone("e-2", "anna")) == (1, [])


@pytest.mark.parametrize(("person", "registered"), [("rita", ""), ("someone", "rita"), ("otto", "")])
def test_no_entity_of_a_person_who_has_a_part_in_it_approves_it(person: str, registered: str) -> None:
    missing, (why,) = persons_count(someone("e-1", person, registered), someone("e-2", "ben"))
    assert (missing, "is the same person as the" in why) == (1, True)


def test_where_entities_say_who_they_are_one_that_does_not_counts_for_nothing() -> None:
    missing, (why,) = persons_count(someone("e-1", ""), someone("e-2", "ben"))
    assert (missing, "do not say which person" in why) == (1, True)
    missing, why_not = persons_count(someone("e-1", "anna"), someone("e-2", "ben"), persons={"e-agent": "x"})
    assert (missing, len(why_not)) == (2, 2)


def test_any_of_the_groups_can_deny() -> None:
    needed = needing(DBA, SECURITY)
    assert count(decided("e-1", "deny", groups=(SECURITY,)), needed=needed)[1] == "e-1"
    assert count(decided("e-1", "deny"), needed=needed)[1] is None


def test_where_nobody_has_to_approve_an_approver_can_still_deny() -> None:
    assert count(decided("e-1", "deny"), needed=Obligations())[1] == "e-1"
    assert count(decided("e-1", "deny", groups=(DBA,)), needed=Obligations())[1] is None
    assert count(needed=Obligations()) == (0, None, 0)


def test_a_denial_wins_over_any_number_of_approvals() -> None:
    decisions = [decided(f"e-{n}") for n in range(5)]
    for place in range(6):
        mixed = [*decisions[:place], decided("z-no", "deny"), *decisions[place:]]
        assert count(*mixed)[1] == "z-no"
    # also one's own earlier approval, and an old denial: a denial does not expire
    assert count(decided("e-1"), decided("e-1", "deny"))[1] == "e-1"
    assert count(decided("e-1", "deny", expires_at=NOW - timedelta(days=1)))[1] == "e-1"


def test_a_denial_from_outside_or_of_another_digest_is_none() -> None:
    assert count(decided("e-1", "deny", groups=())) == (0, None, 2)
    assert count(decided("e-1", "deny", digest=OTHER)) == (0, None, 2)


@pytest.mark.parametrize("decision", ["", "Approve", "APPROVE", "withdraw", "approved", "yes"])
def test_any_other_word_approves_nothing(decision: str) -> None:
    assert count(decided("e-1", decision)) == (0, None, 2)


def test_what_is_missing_as_json() -> None:
    short = tally([decided()], TWO, subject=SUBJECT, barred=INVOLVED, now=NOW)
    assert short.missing == (Requirement(APPROVERS, 1),)
    full = tally([decided()], needing(APPROVERS), subject=SUBJECT, barred=INVOLVED, now=NOW)
    assert full.missing == ()


DECISIONS = st.builds(
    decided,
    st.sampled_from(["e-1", "e-2", "e-3", *INVOLVED]),
    st.sampled_from(["approve", "deny", "withdraw", ""]),
    digest=st.sampled_from([DIGEST, OTHER]),
    groups=st.sampled_from([(), ("staff",), (APPROVERS,), ("dba", APPROVERS)]),
    expires_at=st.integers(-5, 5).map(lambda s: NOW + timedelta(seconds=s)),
)


def eligible(decisions: list[ApproverDecision]) -> set[str]:
    """Who really approved, told without the code under test."""
    return {
        v.entity_id
        for v in decisions
        if v.decision == "approve"
        and v.digest == DIGEST
        and APPROVERS in v.groups
        and v.entity_id not in INVOLVED
        and v.expires_at > NOW
    }


@given(st.lists(DECISIONS, max_size=12), st.integers(0, 5))
def test_what_is_missing_is_what_distinct_eligible_approvers_leave(
    decisions: list[ApproverDecision], needed: int
) -> None:
    found = tally(decisions, needing(*[APPROVERS] * needed), subject=SUBJECT, barred=INVOLVED, now=NOW)
    assert sum(m.count for m in found.missing) == max(0, needed - len(eligible(decisions)))
    assert {v.entity_id for v in found.approved_by} == eligible(decisions)
    denials = [v for v in decisions if v.decision == "deny" and v.digest == DIGEST and APPROVERS in v.groups]
    assert (found.denied_by is not None) == bool(denials)


@given(st.lists(DECISIONS, max_size=8), DECISIONS)
def test_one_more_decision_never_makes_more_missing_nor_takes_a_denial_back(
    decisions: list[ApproverDecision], more: ApproverDecision
) -> None:
    before = tally(decisions, TWO, subject=SUBJECT, barred=INVOLVED, now=NOW)
    after = tally([*decisions, more], TWO, subject=SUBJECT, barred=INVOLVED, now=NOW)
    assert 0 <= sum(m.count for m in before.missing) - sum(m.count for m in after.missing) <= 1
    assert before.denied_by is None or after.denied_by is not None


# -- several groups -----------------------------------------------------------------------------------------

PLACES = st.lists(st.sampled_from("abc"), max_size=4)
APPROVED = st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), st.sets(st.sampled_from("abc"), max_size=3))


def best(places: list[str], approvers: dict[str, set[str]]) -> int:
    """How many of the places can be filled at most, by trying every way to seat people who count once."""
    people: list[str | None] = [*approvers, *[None] * len(places)]
    return max(
        sum(who is not None and place in approvers[who] for place, who in zip(places, seated, strict=True))
        for seated in permutations(people, len(places))
    )


@settings(deadline=None)
@given(PLACES, APPROVED)
def test_as_few_approvals_are_missing_as_can_be_when_nobody_counts_twice(
    places: list[str], approvers: dict[str, set[str]]
) -> None:
    needed = needing(*places).approvals
    left = unmet(needed, {who: sorted(groups) for who, groups in approvers.items()})
    assert sum(each.count for each in left) == len(places) - best(places, approvers)
    counts = {each.group: each.count for each in needed}
    assert all(0 < each.count <= counts[each.group] for each in left), "nothing is missing that nobody asked for"


def test_who_is_in_a_smaller_group_as_well_counts_there() -> None:
    needed = needing(APPROVERS, "jitvault-security").approvals
    both = {"e": [APPROVERS, "jitvault-security"]}
    assert unmet(needed, both) == (Requirement(APPROVERS, 1),), "it takes anybody of the general group, and no second"


@given(PLACES, APPROVED, st.sets(st.sampled_from("abc")))
def test_one_approver_more_fills_at_most_one_place_and_never_opens_one(
    places: list[str], approvers: dict[str, set[str]], more: set[str]
) -> None:
    def missing(who: dict[str, set[str]]) -> int:
        return sum(m.count for m in unmet(needing(*places).approvals, {k: sorted(v) for k, v in who.items()}))

    assert 0 <= missing(approvers) - missing({**approvers, "9": more}) <= 1


@given(st.text())
def test_the_reason_of_a_denial_is_set_apart_and_ends_where_it_is_quoted(reason: str) -> None:
    words = denial("adam", reason)
    said = words.removeprefix("adam denied it: ")
    assert said == "no reason given" if not reason else (said[0], said[-1], said.count('"')) == ('"', '"', 2)
    assert words.isprintable()
