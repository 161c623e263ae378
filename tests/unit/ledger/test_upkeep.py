"""What renewals write without an event: under a claim, and only when and what was sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import LEASE, NOW, TOKEN, file_of, issued, operation, read, seen
from ledgers import LedgerPlace, address
from sqlalchemy import update

from jitvault.audit.observation import Kind
from jitvault.errors import WrongState
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, OperationRow, OpState, Turn
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.ledger.task_change import record_after
from jitvault.ledger.upkeep import Intended, Upkeep
from jitvault.model.event_bodies import RenewIntended
from jitvault.model.kinds import EventKind, OperationKind


def renewal(op_id: str, state: OpState, kind: OperationKind = OperationKind.RENEW_TOKEN) -> OperationRow:
    return operation(op_id, state, kind=kind, sent_at=NOW)


def expire(ledger: Ledger) -> None:
    """Let every claim be over."""
    ledger._db.write(lambda connection: connection.execute(update(schema.tasks).values(claim_until=2.0)))


def test_an_upkeep_returns_the_record_as_it_is_read_afterwards(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    record = file_of(ledger)
    later = NOW + timedelta(seconds=30)
    rows = (
        replace(record.grants[-1], renew_at=later),
        replace(record.leases[0], renew_at=later),
        renewal("op-8", OpState.SETTLED),
        renewal("op-9", OpState.INTENDED),
    )
    with ledger.claim("t-1") as claim:
        after = ledger.keep_up(record, Upkeep("t-1", claim, rows, {"due_at": later}))
    assert after == file_of(ledger)
    assert (after.task.due_at, after.grants[-1].renew_at, after.leases[0].renew_at) == (later, later, later)
    assert [op.op_id for op in after.operations if op.kind == OperationKind.RENEW_TOKEN] == ["op-9"]
    # neither the chain nor the task's version moves
    assert (after.events, after.task.version) == (record.events, record.task.version)


def test_the_last_renewal_of_a_token_is_the_last_one_with_that_answer(ledger: Ledger) -> None:
    issued(ledger)
    record = file_of(ledger)
    grant = record.grants[-1]
    assert ledger.renewed_at(grant, "ok") is None
    sent = renewal("op-1", OpState.ANSWERED)
    answers = ("ok", "ok", "looked up", None)
    ops = [
        replace(sent, op_id=f"op-1{n}", subject=TOKEN, answer=answer, answered_at=NOW + timedelta(seconds=n))
        for n, answer in enumerate(answers, 1)
    ]
    lease = replace(ops[0], op_id="op-20", kind=OperationKind.RENEW_LEASE, answered_at=NOW + timedelta(days=1))
    with ledger.claim("t-1") as claim:
        ledger.keep_up(record, Upkeep("t-1", claim, (*ops, lease)))
    assert ledger.renewed_at(grant, "ok") == NOW + timedelta(seconds=2)
    assert ledger.renewed_at(replace(grant, accessor_hmac="another"), "ok") is None


def test_of_a_credential_an_upkeep_writes_when_it_is_renewed_and_nothing_else(ledger: Ledger) -> None:
    issued(ledger)
    record = file_of(ledger)
    grant = replace(record.grants[-1], renew_at=NOW, expires_at=NOW + timedelta(days=9), settled=True, role="other")
    with ledger.claim("t-1") as claim:
        ledger.keep_up(record, Upkeep("t-1", claim, (grant,)))
    assert file_of(ledger).grants[-1] == replace(record.grants[-1], renew_at=NOW)


def test_a_renewed_task_stays_with_the_process_that_keeps_it(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    other = Ledger(opened(address(place), create=False))
    for stays in (True, False):
        with ledger.claim("t-1") as claim:
            upkeep = Upkeep("t-1", claim, fields={"due_at": NOW}, gives_back=True, stays=stays)
            assert ledger.keep_up_all([upkeep]) == set()
            assert other.take_due(NOW, 9) == ([] if stays else ["t-1"])
            other.give_back("t-1")


def test_an_event_may_come_with_the_intents_and_then_both_are_there(ledger: Ledger) -> None:
    issued(ledger)
    record = file_of(ledger)
    op, until = renewal("op-8", OpState.INTENDED), NOW + timedelta(hours=1)
    rows = (replace(record.grants[-1], expires_at=until), op)
    change = Change(EventKind.RENEW_INTENDED, RenewIntended(until=until, renewals=()), rows=rows)
    begun = ledger.begin_renewals([Intended(record.task, (op,), change)], NOW)["t-1"]
    after = file_of(ledger)
    assert begun.written is not None and begun.written.task.head == after.task.head
    assert record_after(record, rows, begun.written) == after
    assert after.events[-1].body["ops"] == {"op-8": op.subject} and after.grants[-1].expires_at == until


def test_of_a_task_that_has_changed_neither_event_nor_intent_is_written(ledger: Ledger) -> None:
    issued(ledger)
    record = file_of(ledger)
    op = renewal("op-8", OpState.INTENDED)
    change = Change(EventKind.RENEW_INTENDED, RenewIntended(until=NOW, renewals=()), rows=(op,))
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    before = file_of(ledger)
    assert ledger.begin_renewals([Intended(record.task, (op,), change)], NOW) == {}
    assert file_of(ledger) == before


def test_a_lent_claim_is_continued_and_one_that_was_taken_over_is_not(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    other = Ledger(opened(address(place), create=False))
    for is_lost in (False, True):
        assert ledger.take("t-1") is Turn.OURS
        assert ledger.lend("t-1") and not ledger.lend("t-1")
        if is_lost:
            expire(ledger)
            assert other.take("t-1") is Turn.OURS
        begun = ledger.begin_renewals(
            [Intended(file_of(ledger).task, (renewal(f"op-{is_lost}", OpState.INTENDED),))], NOW
        )
        assert ("t-1" in begun) is not is_lost
        if begun:
            ledger.keep_up_all([Upkeep("t-1", begun["t-1"].claim, gives_back=True)])


def test_the_lent_claim_of_a_task_that_has_changed_can_be_given_back(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    other, record = Ledger(opened(address(place), create=False)), file_of(ledger)
    assert ledger.take("t-1") is Turn.OURS and ledger.lend("t-1")
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    assert ledger.begin_renewals([Intended(record.task, ())], NOW) == {}
    assert other.take("t-1") is Turn.ANOTHERS
    ledger.give_lent_back("t-1")
    assert other.take("t-1") is Turn.OURS


def test_nothing_is_written_of_a_task_that_another_process_took_over(ledger: Ledger) -> None:
    issued(ledger)
    record = file_of(ledger)
    with ledger.claim("t-1") as claim:
        pass
    with ledger.claim("t-1"):
        upkeep = Upkeep("t-1", claim, (renewal("op-8", OpState.INTENDED),), {"due_at": NOW})
        assert ledger.keep_up_all([upkeep]) == {"t-1"}
        with pytest.raises(WrongState):
            ledger.keep_up(record, upkeep)
    assert file_of(ledger) == record


def test_the_line_of_an_announced_renewal_makes_no_event_and_any_other_does(ledger: Ledger) -> None:
    issued(ledger)
    ledger.record_session("hmac-worker", NOW)
    record = file_of(ledger)
    with ledger.claim("t-1") as claim:
        ledger.keep_up(record, Upkeep("t-1", claim, (renewal("op-8", OpState.ANSWERED),)))
    read(ledger, [seen(1, Kind.RENEWED, TOKEN, actor="hmac-worker", op="op-8", closing=True)])
    assert file_of(ledger).events == record.events
    assert len(ledger.renewal_lines("t-1", NOW)) == 1
    # the same operation again, an operation that nobody announced, and a token that is no worker's
    for n, (actor, op) in enumerate((("hmac-worker", "op-8"), ("hmac-worker", "op-7"), ("hmac-thief", "op-8")), 2):
        before = file_of(ledger).events
        read(ledger, [seen(n, Kind.RENEWED, TOKEN, actor=actor, op=op, closing=True)])
        assert len(file_of(ledger).events) == len(before) + 1, (actor, op)
