"""A loop may spare itself a look at the ledger only where nothing was committed since its last one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from builders import make
from hypothesis import given
from hypothesis import strategies as st
from ledgers import LedgerPlace, address

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import opened
from jitvault.ledger.unchanged import LONGEST_S, NothingDue, Unchanged

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_mark_stays_while_nothing_is_committed_and_no_longer(ledger: Ledger, place: LedgerPlace) -> None:
    # a server also writes by itself, now and then
    assert any(ledger.mark() == ledger.mark() for _ in range(20))
    before = ledger.mark()
    make(ledger)
    own = ledger.mark()
    assert own not in (None, before)
    # another process's connections
    other = Ledger(opened(address(place), create=False))
    make(other, "t-2")
    other.close()
    assert ledger.mark() not in (None, before, own)


def test_a_new_connection_is_no_sign_that_nothing_was_committed(ledger: Ledger) -> None:
    before = ledger.mark()
    ledger.close()
    assert ledger.mark() != before


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("commit"), st.just(0.0)),
            st.tuples(st.just("look"), st.booleans()),
            st.tuples(st.just("wait"), st.floats(0.1, LONGEST_S)),
        ),
        max_size=30,
    )
)
def test_every_commit_is_looked_at_after_it(steps: list[tuple[str, float]]) -> None:
    """Whatever fails in between, and also without a mark that changes, after the longest time."""
    commits, seen, now, looked_at = 0, -1, 0.0, -LONGEST_S
    unchanged = Unchanged(lambda: commits, lambda: now)
    for what, how in steps:
        if what == "commit":
            commits += 1
        elif what == "wait":
            now += how
        elif unchanged.is_so():
            assert seen == commits
            assert now - looked_at < LONGEST_S
        elif how:
            unchanged.looked()
            seen, looked_at = commits, now


def test_what_is_committed_during_a_look_is_looked_at_again() -> None:
    commits = 0
    unchanged = Unchanged(lambda: commits)
    assert not unchanged.is_so()
    commits += 1
    unchanged.looked()
    assert not unchanged.is_so()


def test_an_unknown_mark_is_never_the_same() -> None:
    unchanged = Unchanged(lambda: None)
    assert not unchanged.is_so()
    unchanged.looked()
    assert not unchanged.is_so()


def test_nothing_is_due_until_the_first_task_is(ledger: Ledger) -> None:
    rest = NothingDue(ledger.mark)
    assert not rest.is_so(NOW)
    rest.looked(None)
    assert rest.is_so(NOW)
    make(ledger)
    assert not rest.is_so(NOW)
    rest.looked(NOW + timedelta(seconds=1))
    assert rest.is_so(NOW)
    assert not rest.is_so(NOW + timedelta(seconds=1))
