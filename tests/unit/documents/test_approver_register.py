"""One person is one entity, and what counts was written while they were registered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.approvers import (
    MAX_SKEW,
    Registered,
    Registration,
    Registry,
    check_new,
    check_person,
    registered,
    void,
)
from jitvault.errors import InvalidInput, SecurityFinding

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
GROUP = "jitvault-approvers"
LATER = NOW + timedelta(microseconds=1)


def entry(entity: str, person: str, since: datetime = NOW) -> Registered:
    return Registered(Registration(person=person, entity=entity, groups=(GROUP,)), since)


ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from(["e1", "e2", "e3", "e4"]),
        st.sampled_from(["ann", "ben"]),
        st.integers(0, 3).map(lambda s: NOW + timedelta(seconds=s)),
    ),
    unique_by=lambda each: each.entity,
)


@given(ENTRIES)
def test_of_one_person_one_entity_counts(entries: list[Registered]) -> None:
    found = Registry(tuple(entries))
    written = NOW + timedelta(days=1)
    counting = [each for each in entries if found.why_not(each.entity, written) is None]
    assert sorted(each.person for each in counting) == sorted({each.person for each in entries})
    for each in counting:
        assert all(each.since <= other.since for other in entries if other.person == each.person)


def test_who_is_not_registered_does_not_count() -> None:
    assert Registry().why_not("e1", NOW) == "is not a registered approver"
    assert Registry().groups_of("e1") == ()


@pytest.mark.parametrize(("written", "counts"), [(NOW - timedelta(days=1), False), (NOW, False), (LATER, True)])
def test_what_was_decided_before_the_registration_does_not_count(written: datetime, counts: bool) -> None:
    found = Registry((entry("e1", "ann"),))
    assert (found.why_not("e1", written) is None) is counts


def test_a_second_entity_of_a_person_is_not_registered_and_neither_is_an_entity_for_two_people() -> None:
    found = Registry((entry("e1", "ann"),))
    assert check_new(found, person="ann", entity="e1") is None
    assert check_new(found, person="ben", entity="e2") is None
    assert "one person is one entity" in (check_new(found, person="ann", entity="e2") or "")
    assert "registered for ann already" in (check_new(found, person="ben", entity="e1") or "")


@pytest.mark.parametrize(
    "change",
    [{"person": "Ann"}, {"person": ""}, {"groups": []}, {"groups": ["staff"]}, {"entity": "e2"}, {"more": 1}],
)
def test_what_is_no_registration_of_its_entity_is_a_finding(change: dict[str, object]) -> None:
    proper = {"person": "ann", "entity": "e1", "groups": [GROUP]}
    assert registered(proper, entity="e1", since=NOW) == entry("e1", "ann")
    with pytest.raises(SecurityFinding):
        registered({**proper, **change}, entity="e1", since=NOW)


def test_a_person_has_one_name_however_it_is_typed() -> None:
    assert check_person(" Ann@Example.com ") == "ann@example.com"
    for wrong in ("", "a b", "-x", "x" * 129, "änn"):
        with pytest.raises(InvalidInput):
            check_person(wrong)


TIMES = st.integers(-600, 600).map(lambda s: NOW + timedelta(seconds=s))


@given(TIMES, TIMES, TIMES, TIMES)
def test_an_approval_counts_only_when_both_clocks_have_it_after_the_withdrawal(
    signed: datetime, written: datetime, withdrawn: datetime, withdrawal_written: datetime
) -> None:
    why = void(signed_at=signed, written_at=written, withdrawals=[(withdrawn, withdrawal_written)])
    if why is None:
        assert signed > withdrawn and written > withdrawal_written
    elif why == "withdrew the approval":
        assert signed <= withdrawn or written <= withdrawal_written


@pytest.mark.parametrize("sign", [1, -1])
def test_an_approval_whose_time_is_not_vaults_does_not_count(sign: int) -> None:
    assert void(signed_at=NOW, written_at=NOW + sign * MAX_SKEW) is None
    why = void(signed_at=NOW + sign * timedelta(hours=1), written_at=NOW)
    assert why == f"signed the approval 60 min {'after' if sign > 0 else 'before'} Vault's time of it"
