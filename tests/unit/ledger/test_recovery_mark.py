"""A recovery in the ledger: the mark that keeps everything from being granted, and what it changes about the stream."""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import (
    LEASE,
    NOW,
    TOKEN,
    WORKER,
    batch,
    change,
    file_of,
    grant,
    leases_of,
    make,
    position,
    read,
    seen,
    task,
)
from builders import revision as revision_row
from event_examples import body

from jitvault.audit.observation import Kind
from jitvault.audit.source import Position
from jitvault.errors import Frozen
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, GapKind
from jitvault.model.kinds import EventKind
from jitvault.model.states import State

SECOND = timedelta(seconds=1)
ISSUE = Change("create_token_intended", state=State.ISSUING)
BEGINNING = Position("", 0, 1)


def recovered(ledger: Ledger) -> None:
    """t-1 taken in again, with the token TOKEN."""
    taken_in = body("recovered", grants=[{"grant": "g-t-1-1", "accessor": TOKEN, "line": ""}])
    rows = (revision_row(), grant(accessor_hmac=TOKEN, wrapped_accessor=None))
    ledger.create(task(state=State.ENDING), Change(EventKind.RECOVERED, taken_in, rows=rows), at=NOW)


def test_nothing_is_granted_while_a_recovery_is_open(ledger: Ledger) -> None:
    make(ledger)
    assert ledger.recovering() is None
    assert ledger.begin_recovery(NOW) == NOW
    with pytest.raises(Frozen, match="rebuilt") as refused:
        change(ledger, ISSUE)
    assert "ledger recover" in refused.value.hint
    assert file_of(ledger).task.state is State.APPROVED
    # everything else goes on: what is held is kept, ended and proven
    change(ledger, Change("noted"))
    ledger.end_recovery("it is done", NOW + SECOND)
    assert ledger.recovering() is None
    change(ledger, ISSUE)
    assert file_of(ledger).task.state is State.ISSUING


def test_the_mark_of_a_run_that_died_is_gone_on_with(ledger: Ledger) -> None:
    assert ledger.begin_recovery(NOW) == ledger.begin_recovery(NOW + SECOND) == ledger.recovering() == NOW
    ledger.end_recovery("it is done", NOW + 2 * SECOND)
    assert (ledger.recovering(), ledger.recovered_at()) == (None, NOW)
    assert ledger.begin_recovery(NOW + 3 * SECOND) == ledger.recovered_at() == NOW + 3 * SECOND


def test_the_mark_is_no_tripwires_and_an_operator_does_not_lift_it(ledger: Ledger) -> None:
    ledger.begin_recovery(NOW)
    assert ledger.freeze() is None
    assert ledger.lift_freezes("an exercise", NOW) == 0
    assert ledger.recovering() == NOW


def test_what_was_made_before_freezes_nothing_and_what_is_made_later_does(ledger: Ledger) -> None:
    """The intents of before are lost."""
    ledger.record_session(WORKER, NOW)
    ledger.begin_recovery(NOW + 5 * SECOND)
    made = {"path": "auth/token/create/jitvault-15m", "op": "op-lost"}
    read(ledger, [seen(1, Kind.TOKEN_CREATED, "hmac-a", **made)])
    assert ledger.freeze() is None
    for n, at in ((2, NOW + 5 * SECOND), (3, NOW + 6 * SECOND)):
        read(ledger, [seen(n, Kind.TOKEN_CREATED, f"hmac-{n}", **{**made, "at": at})])
        assert ledger.freeze() is not None


def test_what_was_read_before_a_task_is_taken_in_is_entered_with_it(ledger: Ledger) -> None:
    read(
        ledger,
        [
            seen(1, Kind.TOKEN_CREATED, TOKEN, alias="hmac-wrapping"),
            seen(2, Kind.LEASE_ISSUED, LEASE, actor=TOKEN),
            seen(3, Kind.LEASE_ISSUED, "database/creds/app-ro/other", actor="hmac-of-somebody"),
            # opened by somebody else: whose it is the wrapping says
            seen(4, Kind.USED, TOKEN, actor=TOKEN, alias="hmac-inner"),
            seen(5, Kind.LEASE_ISSUED, "database/creds/app-ro/wrapped", actor="hmac-any", token="hmac-inner"),
        ],
    )
    recovered(ledger)
    assert sorted(leases_of(ledger)) == sorted([LEASE, "database/creds/app-ro/wrapped"])
    assert [event.kind for event in file_of(ledger).events] == [EventKind.RECOVERED, "observed"]
    # the same lines, read again, say nothing new
    read(ledger, [seen(2, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)], offset=900)
    assert file_of(ledger).task.seq == 2


def test_a_new_source_is_read_from_its_beginning(ledger: Ledger) -> None:
    ledger.begin_in_the_past("audit", BEGINNING, NOW)
    assert position(ledger) == BEGINNING
    assert not ledger.readings()["audit"].vouched
    assert [(gap.epoch, gap.kind) for gap in ledger.gaps()] == [(1, GapKind.READ_FROM_START)]


def test_a_source_that_was_read_is_read_again_as_another_stretch(ledger: Ledger) -> None:
    ledger.start_source("audit", Position("1:2", 700, 3))
    ledger.start_source("other", Position("1:3", 0, 1))
    with ledger.claim_source("audit") as claim:
        ledger.trust_source("audit", claim=claim)
    ledger.begin_in_the_past("audit", BEGINNING, NOW)
    assert position(ledger) == Position("", 0, 4)
    assert not ledger.readings()["audit"].vouched
    # who read on meanwhile is refused
    with pytest.raises(Exception, match="another process"):
        ledger.observe("audit", batch([], offset=800, epoch=3), after=Position("1:2", 700, 3), at=NOW)
    assert ledger.start_segments("rebuilt", NOW, kind=GapKind.LEDGER_REBUILT, only=["audit"]) == 1
    assert [gap.kind for gap in ledger.gaps()] == [GapKind.LEDGER_REBUILT, GapKind.READ_FROM_START]
    assert (position(ledger).epoch, position(ledger, "other").epoch) == (5, 1)


def test_lines_that_nobody_read_are_told(ledger: Ledger) -> None:
    read(ledger, [seen(1, Kind.USED, TOKEN)])
    many = [f"{n:064x}" for n in range(1, 700)]
    assert ledger.unknown_lines(many) == many[1:]
