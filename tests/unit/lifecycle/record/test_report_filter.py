"""The times and states that `report` takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jitvault.errors import UsageError
from jitvault.lifecycle.record.report_filter import ReportFilter, parse_states, parse_time
from jitvault.model.states import State

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("30", NOW - timedelta(seconds=30)),
        ("30s", NOW - timedelta(seconds=30)),
        ("10m", NOW - timedelta(minutes=10)),
        ("1d12h", NOW - timedelta(hours=36)),
        ("400d", NOW - timedelta(days=400)),
        ("2030-01-01T12:00:00+02:00", datetime(2030, 1, 1, 10, 0, tzinfo=UTC)),
        ("2030-01-01", datetime(2030, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_absolute_or_a_duration_ago(text: str, at: datetime) -> None:
    assert parse_time(text, "--since", NOW) == at
    assert parse_time(None, "--since", NOW) is None


def test_a_day_is_included_as_a_whole() -> None:
    until = parse_time("2030-01-01", "--until", NOW, ends_day=True)
    assert until is not None and until + timedelta(microseconds=1) == datetime(2030, 1, 2, tzinfo=UTC)
    assert str(ReportFilter(until=until)) == "until 2030-01-01 23:59:59 UTC"


@pytest.mark.parametrize("text", ["", "now", "2030-13-01", "2030-01-01T12:00:00", "1.5h", "-1h", "99999d", "1h1d"])
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(UsageError, match="--since") as refused:
        parse_time(text, "--since", NOW - timedelta(days=365 * 1900))
    assert "2030-01-31T09:00:00Z" in refused.value.hint and "7d" in refused.value.hint


def test_an_unknown_state_says_which_there_are() -> None:
    assert parse_states(["sealed", "active"]) == {State.SEALED, State.ACTIVE}
    with pytest.raises(UsageError, match="there is no state 'seeled'") as refused:
        parse_states(["sealed", "seeled"])
    assert all(state in refused.value.hint for state in State)


def test_a_filter_says_what_it_is() -> None:
    assert ReportFilter().is_empty and str(ReportFilter()) == ""
    wanted = ReportFilter(agent="a", states=frozenset({State.SEALED, State.ACTIVE}), since=NOW)
    assert str(wanted) == "agent a, state active or sealed, since 2030-01-31 09:00:00 UTC"
