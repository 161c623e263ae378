"""What a proof rests on: which line comes before which, what was done, and where the canaries stand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from credential_story import LIST_OP, OLD_WORKER, START, STRANGER, Story
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import (
    AuditTrail,
    Point,
    canary_after,
    canary_before,
    done,
    follows,
    listed,
    segment,
    shown,
)
from jitvault.formats.rfc3339 import rfc3339

POINTS = st.builds(
    Point,
    place=st.builds(Place, st.sampled_from(["audit", "node-2"]), st.integers(1, 2), st.integers(0, 3)),
    at=st.integers(0, 3).map(lambda s: START + timedelta(seconds=s)),
)


def line(source: str = "audit", epoch: int = 1, offset: int = 0, seconds: float = 0) -> Observation:
    made = Story().issued().lines[0]
    return replace(made, place=Place(source, epoch, offset), at=START + timedelta(seconds=seconds))


def point(*where: str | float) -> Point:
    found = Point.of(line(*where))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("one", "other", "before"),
    [
        # within a stretch the place alone says it, whatever the times are
        (("audit", 1, 0, 5), ("audit", 1, 9, 1), True),
        (("audit", 1, 9, 1), ("audit", 1, 0, 5), False),
        (("audit", 1, 5, 1), ("audit", 1, 5, 2), False),
        # across stretches and sources only the time does
        (("audit", 1, 9, 1), ("audit", 2, 0, 5), True),
        (("audit", 2, 0, 1), ("audit", 1, 9, 5), True),
        (("audit", 1, 0, 5), ("node-2", 1, 9, 1), False),
        (("audit", 1, 0, 1), ("node-2", 1, 9, 1), False),
    ],
    ids=str,
)
def test_before_is_by_place_within_a_stretch_and_by_time_across(
    one: tuple[str, int, int, float], other: tuple[str, int, int, float], before: bool
) -> None:
    assert point(*one).before(point(*other)) is before
    assert follows(line(*other), line(*one)) is before


def test_everything_follows_nothing() -> None:
    assert Point.of(None) is None
    assert follows(line(), None)


@given(POINTS, POINTS)
def test_no_two_points_are_before_each_other(one: Point, other: Point) -> None:
    assert not (one.before(other) and other.before(one))
    assert not one.before(one)


def test_a_line_is_shown_by_its_beginning_its_path_and_its_time() -> None:
    found = replace(line(), line="ab" * 32, path="sys/x")
    assert shown(found, "nothing") == f"line {'ab' * 8} sys/x at {rfc3339(START)}"
    assert shown(None, "nothing") == "nothing"


@pytest.mark.parametrize(
    ("closing", "failed", "expected"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_only_an_answer_without_error_says_that_something_was_done(closing: bool, failed: bool, expected: bool) -> None:
    assert done(replace(line(), closing=closing, failed=failed)) is expected


def test_a_stretch_is_a_source_and_its_epoch() -> None:
    assert segment(Place("audit", 3, 99)) == ("audit", 3)


# -- canaries ---------------------------------------------------------------------------------------------


def with_canaries(*places: tuple[str, int, int]) -> AuditTrail:
    made = Story().canary().canaries[0]
    return AuditTrail((), tuple(replace(made, place=Place(*place)) for place in places), frozenset())


def test_the_nearest_canaries_of_the_same_stretch_are_the_ones_around() -> None:
    trail = with_canaries(*(("audit", 1, n) for n in (500, 100, 300, 700)))
    here = Place("audit", 1, 400)
    assert (canary_before(trail, here), canary_after(trail, here)) == (300, 500)
    # one that ends a token by Vault's clock stands where its own interval ends, and does not begin it
    there = Place("audit", 1, 500)
    assert (canary_before(trail, there), canary_after(trail, there)) == (300, 500)
    assert canary_before(trail, Place("audit", 1, 100)) is None
    assert canary_after(trail, Place("audit", 1, 701)) is None


@pytest.mark.parametrize("elsewhere", [("audit", 2), ("audit", 0), ("node-2", 1)])
def test_canaries_of_another_stretch_are_not_around(elsewhere: tuple[str, int]) -> None:
    trail = with_canaries((*elsewhere, 100), (*elsewhere, 700))
    here = Place("audit", 1, 400)
    assert (canary_before(trail, here), canary_after(trail, here)) == (None, None)


# -- listings ---------------------------------------------------------------------------------------------

OPS = frozenset({LIST_OP, "op-list-2"})


def found(story: Story, epoch: int = 1) -> Observation | None:
    return listed(story.trail(), OPS, in_segment_of=Place("audit", epoch, 0))


def test_the_last_listing_of_a_stretch_counts() -> None:
    story = Story().listed().listed(op="op-list-2", actor=OLD_WORKER).listed(op="op-else").canary()
    assert found(story) == story.lines[1]


def test_a_listing_that_no_canary_follows_yet_leaves_the_one_before() -> None:
    story = Story().listed().canary().listed(op="op-list-2")
    assert found(story) == story.lines[0]
    assert found(story.canary()) == story.lines[1]


@pytest.mark.parametrize(
    "how", [{"actor": STRANGER}, {"actor": ""}, {"failed": True}, {"closing": False}, {"op": "op-else"}, {"op": ""}]
)
def test_what_is_no_listing(how: dict[str, object]) -> None:
    assert found(Story().listed(**how).canary()) is None


def test_a_listing_belongs_to_its_stretch() -> None:
    story = Story().canary().gap().listed().canary()
    assert (found(story, 1), found(story, 2)) == (None, story.lines[0])
    assert found(Story().elsewhere("node-2").listed().canary()) is None


def test_any_own_line_with_the_operation_is_the_listing() -> None:
    # whether what was listed is accounted for, the ledger says of the operation
    assert found(Story().add(Kind.LEASE_LOOKUP, op=LIST_OP).canary()) is not None
