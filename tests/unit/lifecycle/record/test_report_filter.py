"""What `report` is limited to: an agent, an owner, a template, states and a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import revision as revision_row
from builders import task
from event_examples import example
from hypothesis import given
from hypothesis import strategies as st
from test_revision import revision

from jitvault.errors import UsageError
from jitvault.ledger.model import LeaseRow, TaskRecord
from jitvault.lifecycle.record.report_filter import ReportFilter, parse_states, parse_time
from jitvault.model.event_chain import link
from jitvault.model.states import State, Verdict

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
# the lease of `held`
ISSUED, DEAD = NOW + timedelta(minutes=1), NOW + timedelta(minutes=5)
TIMES = st.none() | st.integers(-3, 10).map(lambda minutes: NOW + timedelta(minutes=minutes))


def of_state(state: State, *leases: LeaseRow, at: datetime = NOW) -> TaskRecord:
    """A task by research-agent for data-owner that asks for pg-read, and reached the state at that time."""
    body = replace(revision_row(), body=revision().body)
    event = link("t-1", 1, "", "submitted", at.isoformat(), example("submitted", state=state.value))
    return TaskRecord(task("t-1", state), body, (), (), leases, (), (), (event,), ())


def held(dead_at: datetime | None = None) -> TaskRecord:
    """A task with a lease from ISSUED until `dead_at`."""
    verdict = Verdict.TARGET_CONFIRMED if dead_at else Verdict.LIVE
    path = "database/creds/app-ro"
    lease = LeaseRow(f"{path}/1", "t-1", "g-1", path, None, ISSUED, verdict, dead_at)
    return of_state(State.SEALED if dead_at else State.ACTIVE, lease)


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


def test_a_day_is_included_as_a_whole_and_no_moment_of_the_next() -> None:
    until = parse_time("2030-01-01", "--until", NOW, ends_day=True)
    assert until is not None and until + timedelta.resolution == datetime(2030, 1, 2, tzinfo=UTC)
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


@pytest.mark.parametrize(
    ("wanted", "instead", "why"),
    [
        ({"agent": "research-agent"}, {"agent": "operator"}, "its agent is research-agent"),
        ({"agent": "Research-Agent"}, {"agent": "e-owner"}, "its agent is research-agent"),
        ({"agent": "e-agent"}, {"agent": "E-AGENT"}, "its agent is research-agent"),
        ({"owner": "data-owner"}, {"owner": "olga"}, "its owner is data-owner"),
        ({"template": "pg-read"}, {"template": "pg-write"}, "its templates are pg-read"),
        ({"states": {State.ACTIVE, State.SEALED}}, {"states": {State.SEALED}}, "it is active"),
        ({"until": ISSUED}, {"until": NOW}, "nothing of it was alive in that time"),
    ],
)
def test_a_task_is_in_the_report_of_what_it_is_alone(wanted: dict[str, Any], instead: dict[str, Any], why: str) -> None:
    file = held()
    for limits in (wanted, {**wanted, "owner": "data-owner", "since": ISSUED}):
        assert len(ReportFilter(**limits).rows(file)) == 1 and ReportFilter(**limits).contradiction(file) is None
    for limits in (instead, {"owner": "data-owner", **instead}):
        assert ReportFilter(**limits).rows(file) == [] and ReportFilter(**limits).contradiction(file) == why


@given(TIMES, TIMES, st.sampled_from([None, DEAD]))
def test_a_lease_is_in_the_report_of_each_time_in_which_it_was_alive(
    since: datetime | None, until: datetime | None, dead_at: datetime | None
) -> None:
    """One that lives is in each that ends after it was issued."""
    is_in = (until is None or until >= ISSUED) and (since is None or dead_at is None or since <= dead_at)
    assert bool(ReportFilter(since=since, until=until).rows(held(dead_at))) is is_in


@given(TIMES, st.sampled_from([State.CANCELLED, State.DENIED, State.PENDING_APPROVAL, State.APPROVED]))
def test_a_task_without_a_lease_is_in_the_report_until_it_is_over(since: datetime | None, state: State) -> None:
    is_over = state in (State.CANCELLED, State.DENIED)
    rows = ReportFilter(since=since, template="pg-read").rows(of_state(state, at=DEAD))
    assert bool(rows) is (since is None or not is_over or since <= DEAD)
