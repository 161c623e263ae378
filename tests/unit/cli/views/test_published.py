"""What is said of a task where no ledger can be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_published_task import HONEST, read

from jitvault.cli.published import UNKNOWN
from jitvault.cli.views.published import age, facts
from jitvault.documents.published_task import PublishedTask

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SIZES = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (172_800, "2 d"),
        (10**7, "115 d"),
    ],
)
def test_an_age_in_one_unit(seconds: int, said: str) -> None:
    assert age(seconds) == said


@given(st.integers(0, 10**9))
def test_an_age_is_rounded_down_by_less_than_a_half(seconds: int) -> None:
    number, unit = age(seconds).split()
    told = int(number) * SIZES[unit]
    assert told <= seconds < told + SIZES[unit]
    assert unit == "s" or int(number) >= 2


def shown(state: str, ends_at: datetime | None) -> dict[str, str]:
    at = (NOW - 3 * MINUTE).isoformat()
    vouched = {"vouched_by": "nobody", "vouched": "whoever has the worker's token can write it", "problem": None}
    about = {"at": at, "age_s": 180, **vouched, "unknown": list(UNKNOWN)}
    document = read({**HONEST, "state": state, "ends_at": ends_at.isoformat() if ends_at else None})
    assert isinstance(document, PublishedTask)
    return facts(document, about, NOW)


@pytest.mark.parametrize("state", ["issuing", "issued", "active"])
def test_that_a_deadline_is_over_is_told_and_that_the_task_ended_is_not_guessed(state: str) -> None:
    over, to_come = (shown(state, NOW + by)["deadline"] for by in (timedelta(0), MINUTE))
    assert over == "2030-01-31 09:00:00 UTC, which is over: its end is not published yet"
    assert to_come == "2030-01-31 09:01:00 UTC"
    # the bound that is published as `expires_at` is no time at which access ends without a worker
    assert shown(state, NOW)["renewals"] == "for 60 s at a time: without a worker it ends within that"


@pytest.mark.parametrize("state", ["pending_approval", "ending", "confirmed", "sealed"])
def test_what_holds_nothing_has_no_deadline(state: str) -> None:
    assert "deadline" not in shown(state, NOW)
    assert "deadline" not in shown("issuing", None)


def test_since_when_nothing_is_known_is_told_for_every_state() -> None:
    told = shown("sealed", NOW)
    assert told["as of"] == "2030-01-31 08:57:00 UTC, 3 min ago, as a worker published it"
    assert "timeline" in told["unknown"] and "an auditor sees" in told["unknown"]
    assert told["vouched"].startswith("by nobody: whoever has")
