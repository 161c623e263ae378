"""What may be removed from Vault: only what is old, and about no task that is open or was granted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jitvault.documents.paths import REQUEST_LIFE
from jitvault.documents.tidy import NEVER_GRANTED, Remains, is_removable
from jitvault.model.states import BEFORE_GRANT, State

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
MONTH, SECOND = timedelta(days=30), timedelta(seconds=1)


def left(state: str | None, *ages: timedelta, published: timedelta = MONTH) -> Remains:
    requests = {f"requests/e-{n}/t/submit": NOW - age for n, age in enumerate(ages)}
    return Remains("t", requests, state, NOW - published if state is not None else None)


@pytest.mark.parametrize("state", [None, "refused", "", *State])
def test_what_is_open_or_was_granted_stays_however_old_it_is(state: str | None) -> None:
    assert is_removable(left(state, MONTH), NOW, MONTH) == (state is None or state in NEVER_GRANTED)


def test_whatever_may_still_be_granted_or_was_is_none_of_what_is_removed() -> None:
    open_ = {State.PENDING_APPROVAL, State.APPROVED} | (set(State) - BEFORE_GRANT - {State.CANCELLED})
    assert NEVER_GRANTED.isdisjoint(state.value for state in open_)


def test_all_of_it_has_to_be_old() -> None:
    assert not is_removable(left(None, MONTH, MONTH - SECOND), NOW, MONTH)
    assert not is_removable(left("refused", MONTH, published=MONTH - SECOND), NOW, MONTH)
    assert is_removable(left("refused"), NOW, MONTH) and not is_removable(Remains("t", {}), NOW, MONTH)


def test_a_request_that_can_still_begin_something_stays_whatever_is_asked() -> None:
    assert not is_removable(left(None, REQUEST_LIFE - SECOND), NOW, timedelta(0))
    assert is_removable(left(None, REQUEST_LIFE), NOW, timedelta(0))


def test_the_published_refusal_goes_last() -> None:
    assert left("refused", MONTH).paths == ("requests/e-0/t/submit", "tasks/t")
