"""What is signed of more time: all of it is in the digest, and a deadline only moves on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from event_examples import example
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jitvault.model.event_chain import GENESIS, Event, link
from jitvault.model.extension import (
    Extension,
    describe_extension,
    extension_id,
    extension_part,
    whole_window_s,
)
from jitvault.model.extension_history import MOST_ASKED, answered_requests, is_too_often, window_start
from jitvault.model.kinds import EventKind
from jitvault.model.revision_content import Party

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)
PLAIN = Extension(
    installation="i",
    task="t-1",
    revision=1,
    revision_digest="sha256:" + "0" * 64,
    by=Party("e-1", "operator"),
    reason="slow",
    since=NOW,
    seconds=600,
    until=NOW + timedelta(minutes=10),
    window_s=1500,
)
OTHER: dict[str, Any] = {
    "installation": "j",
    "task": "t-2",
    "revision": 2,
    "revision_digest": "sha256:" + "1" * 64,
    "by": Party("e-2", "operator"),
    "reason": "slower",
    "since": {"since": NOW - timedelta(seconds=1), "seconds": 601},
    "seconds": {"seconds": 601, "until": NOW + timedelta(seconds=601)},
    "window_s": 1501,
}
times = st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
seconds = st.integers(1, 30 * 86_400)


def test_whatever_is_asked_for_is_another_digest_and_another_place() -> None:
    given_by_others = {"api_version", "kind", "until"}
    assert {*Extension.__struct_fields__} - given_by_others == OTHER.keys()
    changed = [replace(PLAIN, **(value if isinstance(value, dict) else {name: value})) for name, value in OTHER.items()]
    assert len({one.digest for one in (PLAIN, *changed)}) == len(OTHER) + 1
    assert len({extension_part(one.digest) for one in (PLAIN, *changed)}) == len(OTHER) + 1


@given(times, seconds, st.integers(1, 10**7))
def test_what_is_published_of_it_is_the_same_extension(since: datetime, more: int, window_s: int) -> None:
    one = replace(PLAIN, since=since, seconds=more, until=since + timedelta(seconds=more), window_s=window_s)
    assert msgspec.convert(one.content, Extension) == one
    for other in (more - 1, more + 1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**one.content, "seconds": other}, Extension)


@given(times, st.integers(1, 10**9), seconds)
def test_the_whole_window_is_never_told_shorter_than_it_is(began: datetime, micros: int, more: int) -> None:
    until = began + timedelta(microseconds=micros, seconds=more)
    whole = timedelta(seconds=whole_window_s(began, until))
    assert timedelta(0) <= whole - (until - began) < timedelta(seconds=1)


def test_an_approver_reads_from_when_to_when_and_what_becomes_of_the_token() -> None:
    asked, why = describe_extension(PLAIN, replaces=False)
    assert asked == (
        "operator asks for 10m more for task t-1: until 2030-01-31 09:10:00 UTC instead of 2030-01-31 09:00:00 UTC, "
        "25m in all."
    )
    assert why == "Reason for more time: slow"
    assert "a new one is delivered" in describe_extension(PLAIN, replaces=True)[-1]


def test_a_window_began_when_the_first_token_was_meant_that_was_delivered() -> None:
    def at(minute: int) -> str:
        return (NOW + timedelta(minutes=minute)).isoformat()

    told = [
        ("create_token_intended", at(0), {"ops": {"o-1": "lost"}}),
        ("create_token_intended", at(1), {"ops": {"o-2": "first"}}),
        ("delivered", at(2), {"grant": "first"}),
        ("create_token_intended", at(3), {"ops": {"o-3": "next"}}),
        ("delivered", at(4), {"grant": "next"}),
    ]
    events: list[Event] = []
    for kind, when, body in told:
        events.append(
            link("t", len(events) + 1, events[-1].hash if events else GENESIS, kind, when, example(kind, **body))
        )
    assert window_start(events) == NOW + timedelta(minutes=1)
    assert window_start(events[:2]) is None


def content_by(entity: str) -> dict[str, Any]:
    return {**PLAIN.content, "by": {"entity": entity, "name": entity}}


def test_of_one_entity_so_many_answers_are_given_in_an_hour_and_what_waits_is_not_another_one() -> None:
    hour = timedelta(hours=1)

    def said(n: int, by: str = "e-1", kind: str = EventKind.EXTENSION_REFUSED) -> Event:
        body = example(kind, request=f"{by}-{n}", extension=content_by(by))
        return link("t-1", n + 1, GENESIS, kind, (NOW + n * timedelta(seconds=1)).isoformat(), body)

    events = [said(n) for n in range(MOST_ASKED)]
    at = NOW + timedelta(minutes=1)
    assert not is_too_often(events[1:], "e-1", "new", at)
    assert is_too_often(events, "e-1", "new", at)
    # others are answered, and so is what was answered before: it may wait for an approval
    assert not is_too_often(events, "e-2", "new", at)
    assert not is_too_often([*events, said(50, kind=EventKind.EXTENSION_PENDING)], "e-1", "e-1-50", at)
    assert not is_too_often(events, "e-1", "new", NOW + hour)


def test_a_request_that_was_cancelled_is_answered_and_nobody_cancels_that_of_another() -> None:
    def said(kind: str, by: str, request: str, cancels: str | None = None) -> Event:
        changes = {"cancels": cancels} if cancels else {}
        body = example(kind, request=request, extension=content_by(by), **changes)
        return link("t-1", 1, GENESIS, kind, NOW.isoformat(), body)

    waits = said(EventKind.EXTENSION_PENDING, "e-1", "n-1")
    assert answered_requests([waits]) == set()
    by_another = said(EventKind.EXTENSION_CANCELLED, "e-2", "n-2", cancels="n-1")
    assert ("e-1", "n-1") not in answered_requests([waits, by_another])
    own = said(EventKind.EXTENSION_CANCELLED, "e-1", "n-3", cancels="n-1")
    assert answered_requests([waits, own]) == {("e-1", "n-1"), ("e-1", "n-3")}


def test_an_extension_has_a_short_name() -> None:
    assert extension_id(PLAIN.digest) == PLAIN.id and len(PLAIN.id) == 12
    assert PLAIN.digest.startswith(f"sha256:{PLAIN.id}")
