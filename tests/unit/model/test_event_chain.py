from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jitvault.formats.canonical_json import canonical_bytes
from jitvault.model.event_chain import GENESIS, Event, chain_problems, link

KINDS = ("submitted", "decided", "issued", "observed", "sealed")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.text(max_size=6), JSON, max_size=3)
# what a hand that edits the database can put into a field, sense or nonsense
ANYTHING = JSON | st.integers() | st.floats() | st.text(st.characters(), max_size=80)


@st.composite
def chains(draw: st.DrawFn, least: int = 1) -> list[Event]:
    bodies = draw(st.lists(BODIES, min_size=least, max_size=5))
    events: list[Event] = []
    for seq, body in enumerate(bodies, start=1):
        prev = events[-1].hash if events else GENESIS
        at = f"2030-01-31T09:00:{seq:02}Z"
        events.append(link("t-1", seq, prev, draw(st.sampled_from(KINDS)), at, body))
    return events


@given(chains())
def test_an_untouched_chain_is_whole(events: list[Event]) -> None:
    assert chain_problems(events, head=events[-1].hash) == []


def test_no_event_is_whole_only_with_no_head() -> None:
    assert chain_problems([], head=GENESIS) == []
    assert chain_problems([], head="1" * 64) != []


@given(chains(), st.data())
def test_any_change_of_any_field_of_any_event_is_found(events: list[Event], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(events) - 1))
    field = data.draw(st.sampled_from(["task_id", "seq", "prev", "hash", "kind", "at", "body"]))
    value: Any = data.draw(BODIES | ANYTHING if field == "body" else ANYTHING)
    old = getattr(events[place], field)
    assume(not _same(old, value))
    edited = [*events]
    edited[place] = replace(events[place], **{field: value})
    assert chain_problems(edited, head=events[-1].hash) != []


def _same(old: object, new: object) -> bool:
    """Whether two values are one in JSON: 1 and 1.0 have the same canonical form, 1 and true have not."""
    try:
        return canonical_bytes({"value": old}) == canonical_bytes({"value": new})
    except ValueError:
        return False


@given(chains(), st.data())
def test_a_removed_event_is_found(events: list[Event], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(events) - 1))
    assert chain_problems(events[:place] + events[place + 1 :], head=events[-1].hash) != []


@given(chains(least=2), st.data())
def test_two_swapped_events_are_found(events: list[Event], data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.integers(0, len(events) - 1), min_size=2, max_size=2, unique=True))
    edited = [*events]
    edited[one], edited[other] = edited[other], edited[one]
    assert chain_problems(edited, head=events[-1].hash) != []
    # also when their numbers are put back in order
    renumbered = [replace(event, seq=seq) for seq, event in enumerate(edited, start=1)]
    assert chain_problems(renumbered, head=events[-1].hash) != []


@given(chains(), BODIES)
def test_an_appended_event_is_found(events: list[Event], body: dict[str, Any]) -> None:
    last = events[-1]
    more = link("t-1", last.seq + 1, last.hash, "observed", "2030-01-31T10:00:00Z", body)
    assert chain_problems([*events, more], head=last.hash) != []
    assert chain_problems([*events, more], head=more.hash) == []


@given(chains(), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_changed_head_is_found(events: list[Event], head: str) -> None:
    assume(head != events[-1].hash)
    assert chain_problems(events, head=head) == ["the task's head is not its last event"]


@given(chains(least=2), st.data())
def test_an_event_with_a_recomputed_hash_is_found(events: list[Event], data: st.DataObject) -> None:
    # somebody who knows how the hash is made, and rewrites one event of the middle
    place = data.draw(st.integers(0, len(events) - 2))
    old = events[place]
    forged = link(old.task_id, old.seq, old.prev, "forged", old.at, old.body)
    assert chain_problems([*events[:place], forged, *events[place + 1 :]], head=events[-1].hash) != []


@given(chains(least=2), st.data())
def test_a_forged_event_that_the_next_one_is_made_to_follow_is_found(events: list[Event], data: st.DataObject) -> None:
    # the hash covers `prev`, so that one rewritten event asks for every later one to be rewritten
    place = data.draw(st.integers(0, len(events) - 2))
    old = events[place]
    forged = link(old.task_id, old.seq, old.prev, "forged", old.at, old.body)
    follower = replace(events[place + 1], prev=forged.hash)
    edited = [*events[:place], forged, follower, *events[place + 2 :]]
    assert chain_problems(edited, head=events[-1].hash) != []


def test_a_chain_that_does_not_begin_with_the_first_event_is_found() -> None:
    later = link("t-1", 2, GENESIS, "submitted", "2030-01-31T09:00:00Z", {})
    assert chain_problems([later], head=later.hash) == ["event 1 is missing: found 2"]


@pytest.mark.parametrize("body", [None, [], [["state", "approved"]], "x", {"n": 2**60}, {"n": float("nan")}])
def test_a_body_that_no_event_can_have_is_found_and_not_stumbled_over(body: Any) -> None:
    event = link("t-1", 1, GENESIS, "decided", "2030-01-31T09:00:00Z", {"state": "approved"})
    assert chain_problems([replace(event, body=body)], head=event.hash) == ["event 1 was changed after it was written"]


def test_the_hash_covers_the_task() -> None:
    at = "2030-01-31T09:00:00Z"
    one, other = (link(task, 1, GENESIS, "submitted", at, {}) for task in ("t-1", "t-2"))
    assert one.hash != other.hash


@pytest.mark.parametrize("body", [{"ms": 1.5}, {"ms": 1.0}, {"\U0001f600": 1, "\uffff": 2}, {"text": "\x7f\u2028\x1f"}])
def test_an_event_that_has_to_be_written_canonically_is_whole_as_well(body: dict[str, Any]) -> None:
    event = link("t-1", 1, GENESIS, "decided", "2030-01-31T09:00:00Z", body)
    assert chain_problems([event], head=event.hash) == []


@pytest.mark.parametrize("field", ["task_id", "kind", "at", "prev"])
def test_bytes_in_the_place_of_text_are_a_change(field: str) -> None:
    event = link("task", 1, GENESIS, "observed", "20300131", {"a": 1})
    edited = replace(event, **{field: b64decode(getattr(event, field))})
    assert chain_problems([edited], head=event.hash) != []
