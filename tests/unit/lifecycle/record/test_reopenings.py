"""What a task's chain says of how often its end was called proven and did not stay so."""

from __future__ import annotations

from typing import Any

import pytest
from event_examples import example

from jitvault.lifecycle.record.reopenings import (
    is_going_round,
    refused_by_target,
    times_reopened,
    unsettled_listings,
    why_listing_unsettled,
    why_reopened,
    why_seal_postponed,
)
from jitvault.model.event_chain import Event

CONFIRMED: dict[str, Any] = {"checks": [["a", 5, True], ["a", 6, True], ["b", 6, False], ["c", 5, True]]}


def chain(*events: tuple[str, dict[str, Any]]) -> list[Event]:
    return [Event("t", n + 1, "", "", kind, "", example(kind, **body)) for n, (kind, body) in enumerate(events)]


def test_a_task_goes_round_from_the_third_time_on() -> None:
    rounds = [("confirmed", CONFIRMED), ("unproven", {"note": "one"})] * 2
    assert (times_reopened(chain(*rounds)), is_going_round(chain(*rounds))) == (2, False)
    third = chain(*rounds, ("late_lease", {"note": "another"}), ("judged", {}))
    assert (times_reopened(third), is_going_round(third), why_reopened(third)) == (3, True, "another")
    assert (times_reopened([]), why_reopened([])) == (0, "")


def test_what_the_target_refused_counts_until_the_task_begins_to_end_again() -> None:
    confirmed = ("confirmed", CONFIRMED)
    assert refused_by_target(chain(confirmed)) == {"a"}
    assert refused_by_target(chain(confirmed, ("observed", {}))) == {"a"}
    assert refused_by_target(chain(("ending", {}))) == frozenset()
    for again in ("unproven", "late_lease"):
        assert refused_by_target(chain(confirmed, (again, {"note": ""}))) == frozenset()
        newer = ("confirmed", {"checks": [["d", 6, True]]})
        assert refused_by_target(chain(confirmed, (again, {"note": ""}), newer)) == {"d"}


def test_why_a_seal_is_put_off_is_about_the_last_proof_alone() -> None:
    off = ("seal_put_off", {"note": "listed"})
    assert why_seal_postponed(chain(("confirmed", CONFIRMED), off, ("observed", {}))) == "listed"
    assert why_seal_postponed(chain(("confirmed", CONFIRMED), off, ("confirmed", CONFIRMED))) is None
    assert why_seal_postponed(chain(("confirmed", CONFIRMED))) is None


@pytest.mark.parametrize(
    ("answers", "count"), [((), 0), (("no",), 1), (("no", "no"), 2), (("no", "accounted"), 0), (("accounted", "no"), 1)]
)
def test_listings_in_vain_are_counted_in_a_row(answers: tuple[str, ...], count: int) -> None:
    assert unsettled_listings(chain(*(("listed", {"answer": answer}) for answer in answers))) == count


def test_a_listing_in_vain_says_what_it_left_over() -> None:
    left: dict[str, Any] = {"answer": "not accounted for", "suspects": ["a/b"], "drift": None}
    assert "Vault lists a/b" in why_listing_unsettled(chain(("listed", left)))
    assert "its role" in why_listing_unsettled(chain(("listed", {**left, "suspects": [], "drift": "its role"})))
    assert why_listing_unsettled(chain(("listed", {"answer": "no", "suspects": []}))) == "no"
    assert why_listing_unsettled(chain(("listed", left), ("listed", {"answer": "accounted", "suspects": []}))) == ""
    assert why_listing_unsettled([]) == ""
