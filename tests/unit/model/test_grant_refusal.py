"""A request for a grant that was refused stays refused, and nobody makes a task's chain grow with such requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from event_examples import example

from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.event_chain import GENESIS, Event, link
from jitvault.model.grant_refusal import MOST_REFUSED, is_refused, is_refused_too_often
from jitvault.model.kinds import EventKind

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


def event(kind: str, body: dict[str, Any], at: datetime = NOW) -> Event:
    return link("t-1", 1, GENESIS, kind, rfc3339(at), example(kind, **body))


def test_only_the_request_that_was_refused_is_refused() -> None:
    refused = [event(EventKind.SUBMITTED, {"state": "approved"}), event(EventKind.GRANT_REFUSED, {"request": "n-1"})]
    assert is_refused(refused, "n-1")
    assert not is_refused(refused, "n-2") and not is_refused(refused[:1], "n-1")


def test_what_was_refused_before_the_ledger_was_lost_stays_refused() -> None:
    former = {"seq": 3, "head": "h", "state": "approved", "refused_request": "n-1"}
    rebuilt = [event(EventKind.SUBMITTED, {"state": "approved", "recovered_from": former})]
    assert is_refused(rebuilt, "n-1") and not is_refused(rebuilt, "n-2")


def test_so_many_requests_of_an_hour_are_refused_and_the_next_ones_are_not_looked_at() -> None:
    refused = [
        event(EventKind.GRANT_REFUSED, {"request": f"n-{n}"}, NOW + timedelta(seconds=n)) for n in range(MOST_REFUSED)
    ]
    assert is_refused_too_often(refused, NOW + timedelta(minutes=1))
    assert not is_refused_too_often(refused[1:], NOW + timedelta(minutes=1))
    assert not is_refused_too_often(refused, NOW + timedelta(hours=1))
