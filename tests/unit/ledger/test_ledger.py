"""The ledger on both databases: what each holds by itself, and what survives two writers and a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from builders import (
    LEASE,
    NOW,
    TOKEN,
    as_is,
    change,
    file_of,
    grant,
    issued,
    lose,
    make,
    operation,
    read,
    revision,
    seen,
    task,
    whole,
)
from event_examples import body
from ledgers import LedgerPlace, Shelf, address
from sqlalchemy import text
from together import child, run_together

from jitvault.audit.observation import Kind
from jitvault.errors import JitvaultError, LedgerUnavailable, MissingLedger, WrongState
from jitvault.ledger import claims
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import (
    Change,
    CheckRow,
    DecisionRow,
    LeaseRow,
    OpState,
    Turn,
)
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import HEAD, Database, opened, raw, upgrade
from jitvault.ledger.storage.dialect import guards, triggers
from jitvault.ledger.task_change import write_change
from jitvault.model.event_bodies import EventBody, ledger_part
from jitvault.model.event_chain import GENESIS
from jitvault.model.evidence import Lack, Missing, NoToken, Quiet
from jitvault.model.states import EndReason, State, Verdict

REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError, psycopg.errors.DatatypeMismatch)


# -- creating and changing --------------------------------------------------------------------------------


def test_a_task_begins_with_its_first_event(ledger: Ledger) -> None:
    made = make(ledger)
    assert (made.state, made.version, made.seq) == (State.APPROVED, 1, 1)
    found = file_of(ledger)
    (first,) = found.events
    assert (first.kind, first.prev, first.seq, first.hash) == ("submitted", GENESIS, 1, made.head)
    assert (first.body["decision"]["policy"]["policy_digest"], first.body["state"]) == ("sha256:p", "approved")
    assert first.at == "2030-01-31T09:00:00Z"
    assert found.revision == revision()
    assert whole(ledger)


def _changes() -> list[Change]:
    """Rows of each kind that a record follows by itself, and of one that it has to be read for."""
    earlier = NOW - timedelta(seconds=1)
    quiet, silent = Quiet(1000), Missing(lack=Lack.PENDING, count=2, about="r-1")
    checks = (
        CheckRow(2, ok=True, evidence=quiet, task_id="t-1", subject="z"),
        CheckRow(7, ok=False, evidence=silent, task_id="t-1", subject="a"),
    )
    renewal = operation("op-3", OpState.SETTLED, kind="renew_token", sent_at=earlier)
    decision = DecisionRow("t-1", "e-1", "ann", "approve", revision().digest, NOW, "")
    ends = {"end_reason": EndReason.DEADLINE, "due_at": NOW}
    return [
        Change("issuing", state=State.ISSUING, rows=(grant(), operation("op-2", OpState.INTENDED))),
        Change(
            "delivered", body("delivered"), state=State.ISSUED, fields={"ends_at": NOW}, rows=(grant(delivered=True),)
        ),
        Change("judged", rows=checks),
        Change("judged", rows=(CheckRow(2, ok=False, evidence=silent, task_id="t-1", subject="z"),)),
        Change("queued", rows=(renewal,)),
        Change("revoked", rows=(operation("op-2", OpState.UNKNOWN, sent_at=earlier),)),
        Change("decided", rows=(decision,)),
        Change("ending", body("ending", reason="deadline"), state=State.ENDING, fields=ends),
    ]


def test_a_change_returns_the_record_as_it_is_read_afterwards(ledger: Ledger) -> None:
    make(ledger)
    record = file_of(ledger)
    with ledger.claim("t-1") as claim:
        for what in _changes():
            record = ledger.change(record, what, claim=claim, at=NOW)
            assert record == file_of(ledger), what.event


def test_a_change_of_a_task_that_changed_meanwhile_returns_what_is_there(ledger: Ledger) -> None:
    make(ledger)
    old = file_of(ledger)
    change(ledger, Change("judged", rows=(CheckRow(1, ok=True, evidence=NoToken(), task_id="t-1", subject="x"),)))
    with ledger.claim("t-1") as claim:
        record = ledger.change(old, Change("judged"), claim=claim, at=NOW)
    assert record == file_of(ledger) and len(record.checks) == 1 and len(record.events) == 3


def test_a_change_returns_what_its_line_has_settled_already(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("revoke_intended", rows=(operation("op-9", OpState.INTENDED),)))
    record = file_of(ledger)
    read(ledger, [seen(1, Kind.LEASE_REVOKED, LEASE, op="op-9")])
    answered = Change("revoked", rows=(operation("op-9", OpState.ANSWERED),))
    with ledger.claim("t-1") as claim:
        record = ledger.change(record, answered, claim=claim, at=NOW)
    assert record == file_of(ledger) and record.operations[0].state is OpState.SETTLED


def test_an_event_names_the_acts_that_it_intends(ledger: Ledger) -> None:
    make(ledger)
    rows = (operation("op-9", OpState.INTENDED), operation("op-8", OpState.ANSWERED))
    change(ledger, Change("revoke_intended", rows=rows))
    assert ledger_part(file_of(ledger).events[-1]).ops == {"op-9": LEASE}


def test_a_task_is_created_once(ledger: Ledger) -> None:
    make(ledger)
    with pytest.raises(WrongState, match="task t-1 exists already"):
        make(ledger)
    assert len(file_of(ledger).events) == 1


@pytest.mark.parametrize("state", [s for s in State if s not in (State.PENDING_APPROVAL, State.APPROVED, State.DENIED)])
def test_a_task_begins_in_no_other_state(ledger: Ledger, state: State) -> None:
    with pytest.raises(WrongState, match="cannot go from nothing"):
        make(ledger, state=state)
    assert ledger.task("t-1") is None


def test_a_change_is_one_event_and_everything_that_it_writes(ledger: Ledger) -> None:
    make(ledger)
    rows = (grant(), operation())
    written = change(ledger, Change("issuing", EventBody(note="one"), State.ISSUING, {"due_at": NOW}, rows))
    assert (written.state, written.version, written.seq, written.due_at) == (State.ISSUING, 2, 2, NOW)
    found = file_of(ledger)
    assert (found.task, found.grants, found.operations) == (written, (grant(),), (operation(),))
    body = found.events[-1].body
    assert (body["note"], body["state"]) == ("one", "issuing")
    assert whole(ledger)


def test_a_row_is_replaced_by_its_key(ledger: Ledger) -> None:
    lacks = Missing(lack=Lack.PENDING, count=2, about="r-1")
    failed = CheckRow(7, ok=False, evidence=lacks, task_id="t-1", subject=LEASE)
    passed = CheckRow(7, ok=True, evidence=Quiet(1000, lacks), task_id="t-1", subject=LEASE)
    make(ledger)
    change(ledger, Change("a", rows=(grant(), failed)))
    dead = grant(verdict=Verdict.GONE, dead_at=NOW, settled=True)
    change(ledger, Change("b", rows=(dead, passed)))
    assert file_of(ledger).grants == (dead,)
    assert file_of(ledger).checks == (passed,)


def test_every_kind_of_row_comes_back_as_it_was(ledger: Ledger) -> None:
    make(ledger)
    lease = LeaseRow(LEASE, "t-1", "g-t-1-1", "database/creds/app-ro", "v-1", NOW, Verdict.LIVE, None)
    decision = DecisionRow("t-1", "e-1", "ann", "approve", task().digest, NOW, "fine")
    fields = {"end_reason": EndReason.DRIFT, "ending_at": NOW, "dead_ms": 3, "confirmed_ms": 4, "receipt": {"a": [1]}}
    change(ledger, Change("all", fields=fields, rows=(grant(), lease, decision, operation())))
    found = file_of(ledger)
    assert (found.leases, found.decisions, found.operations) == ((lease,), (decision,), (operation(),))
    assert found.task.end_reason is EndReason.DRIFT
    assert (found.task.state, found.operations[0].state) == (State.APPROVED, OpState.ANSWERED)
    typed = (found.task.state, found.operations[0].state, found.grants[0].verdict, found.leases[0].verdict)
    assert [type(value) for value in typed] == [State, OpState, Verdict, Verdict]
    assert (found.task.receipt, found.task.ending_at) == ({"a": [1]}, NOW)
    assert found.grants[0].issued_at is not None
    assert found.grants[0].issued_at.tzinfo is UTC


def test_a_decision_about_another_revision_does_not_stand_in_the_file(ledger: Ledger) -> None:
    make(ledger)
    old = DecisionRow("t-1", "e-1", "ann", "approve", "sha256:" + "b" * 64, NOW, "of the first revision")
    change(ledger, Change("a", rows=(old,)))
    assert file_of(ledger).decisions == ()


def test_a_move_that_the_table_does_not_have_writes_nothing(ledger: Ledger) -> None:
    make(ledger)
    before = file_of(ledger)
    with pytest.raises(WrongState, match="cannot go from approved to sealed"):
        change(ledger, Change("x", state=State.SEALED, rows=(operation(),)))
    assert file_of(ledger) == before


def test_a_row_that_is_refused_takes_the_whole_change_with_it(ledger: Ledger) -> None:
    make(ledger)
    before = file_of(ledger)
    orphan = LeaseRow("x", "t-1", "no-such-grant", "p", None, NOW, Verdict.LIVE, None)
    with pytest.raises(JitvaultError):
        change(ledger, Change("x", state=State.ISSUING, rows=(operation(), orphan)))
    assert file_of(ledger) == before


def test_what_is_not_there(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ledger.task("t-9"), ledger.record("t-9"), ledger.tasks()) == (None, None, [])
    assert ledger.readings() == {}
    assert ledger.installation() is None
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    with pytest.raises(WrongState), ledger.claim("t-9"):
        pass


def test_tasks_are_listed_in_the_order_of_their_creation(ledger: Ledger) -> None:
    for n, name in enumerate(["c", "a", "b"]):
        ledger.create(replace(task(name), created_at=NOW + timedelta(seconds=n)), Change("submitted"), at=NOW)
    assert [row.task_id for row in ledger.tasks()] == ["c", "a", "b"]


def test_tasks_are_listed_by_their_states_and_by_their_names(ledger: Ledger, place: LedgerPlace) -> None:
    states = {State.ISSUED, State.SEALED, State.UNVERIFIED, State.ENDING}
    for state in states:
        make(ledger, state.value)
        as_is(place, f"UPDATE tasks SET state = '{state.value}' WHERE task_id = '{state.value}'")
    some: list[set[State]] = [{State.ISSUED, State.ENDING}, {State.SEALED, State.ISSUED}, {State.ACTIVE}, set()]
    for wanted in some:
        assert {row.state for row in ledger.tasks(wanted)} == wanted & states
    assert {row.task_id for row in ledger.known_tasks(["sealed", "issued", "other"])} == {"sealed", "issued"}
    assert ledger.known_tasks([]) == []
    assert [*ledger.revision_bodies()] == [b'{"a":1}'] * len(states)


def test_the_installation_is_set_once(ledger: Ledger) -> None:
    assert ledger.installation() is None
    ledger.set_installation("one")
    ledger.set_installation("two")
    assert ledger.installation() == "one"


def test_a_finding_is_told_once(ledger: Ledger) -> None:
    make(ledger)
    for _ in range(2):
        ledger.finding("t-1", "ledger_edited", "m" * 2000, NOW)
    (found,) = file_of(ledger).findings
    assert (found["rule"], found["message"]) == ("ledger_edited", "m" * 1000)


# -- claims and fencing -----------------------------------------------------------------------------------


def test_each_claim_has_a_higher_epoch(ledger: Ledger) -> None:
    make(ledger)
    epochs = []
    for _ in range(3):
        with ledger.claim("t-1") as claim:
            epochs.append(claim)
    assert epochs == sorted(set(epochs))


def test_a_claim_excludes_others_until_it_is_given_back(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    make(ledger, "t-2")
    monkeypatch.setattr(claims, "PATIENCE_S", 0.1)
    other = Ledger(opened(address(place), create=False))
    with ledger.claim("t-1"):
        with pytest.raises(WrongState, match="another process is working on task t-1"), other.claim("t-1"):
            pass
        with other.claim("t-2"):
            pass
    with other.claim("t-1"):
        pass


def test_a_claim_is_given_back_after_an_error(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    make(ledger)
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    with pytest.raises(ValueError, match="oops"), ledger.claim("t-1"):
        raise ValueError("oops")
    with ledger.claim("t-1"):
        pass


def test_a_claim_lives_30_seconds_by_the_databases_clock(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    with ledger.claim("t-1") as claim:
        ((until,),) = as_is(place, "SELECT claim_until FROM tasks")
        assert 28 < until - time.time() <= 30.5
        as_is(place, "UPDATE tasks SET claim_until = claim_until - 20")
        monkeypatch.setattr(claims, "_FRESH_S", 0.0)
        ledger.extend("t-1", claim)
        ((until,),) = as_is(place, "SELECT claim_until FROM tasks")
        assert 28 < until - time.time() <= 30.5


def test_a_claim_is_extended_once_it_is_5_seconds_old(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)

    def until() -> float:
        ((found,),) = as_is(place, "SELECT claim_until FROM tasks")
        return float(found)

    monkeypatch.setattr(claims, "_FRESH_S", 0.5)
    with ledger.claim("t-1") as claim:
        begun = until()
        ledger.extend("t-1", claim)
        assert until() == begun
        time.sleep(0.5)
        ledger.extend("t-1", claim)
        assert until() > begun
        extended = until()
        ledger.extend("t-1", claim)
        assert until() == extended
        # a stopped process may have lost it by now
        time.sleep(0.5)
        lose(place)
        with ledger.claim("t-1"), pytest.raises(WrongState, match="took over"):
            ledger.extend("t-1", claim)


def test_a_claim_that_was_taken_ahead_is_as_old_as_its_taking(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    assert ledger.take("t-1") is Turn.OURS
    time.sleep(0.3)
    monkeypatch.setattr(claims, "_FRESH_S", 0.5)
    with ledger.claim("t-1") as claim:
        time.sleep(0.3)
        ((before,),) = as_is(place, "SELECT claim_until FROM tasks")
        ledger.extend("t-1", claim)
        ((after,),) = as_is(place, "SELECT claim_until FROM tasks")
        assert after > before


def test_a_stale_claim_writes_nothing(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger)
    with ledger.claim("t-1") as old:
        lose(place)
        with ledger.claim("t-1") as new:
            assert new > old
            before = file_of(ledger)
            with pytest.raises(WrongState, match="another process took over task t-1"):
                ledger.apply("t-1", Change("late", state=State.ISSUING, rows=(operation(),)), claim=old, at=NOW)
            with pytest.raises(WrongState, match="took over"):
                ledger.extend("t-1", old)
            assert file_of(ledger) == before
            ledger.apply("t-1", Change("mine"), claim=new, at=NOW)
    assert [e.kind for e in file_of(ledger).events] == ["submitted", "mine"]


def test_giving_back_a_stale_claim_leaves_the_new_one(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    old = ledger.claim("t-1")
    old.__enter__()
    lose(place)
    with ledger.claim("t-1"):
        old.__exit__(None, None, None)
        monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
        with pytest.raises(WrongState), ledger.claim("t-1"):
            pass


def test_a_claim_of_another_task_is_none_of_this_one(ledger: Ledger) -> None:
    make(ledger)
    make(ledger, "t-2")
    for _ in range(2):
        change(ledger, Change("x"))
    with ledger.claim("t-1") as claim, ledger.claim("t-2"), pytest.raises(WrongState):
        ledger.apply("t-2", Change("x"), claim=claim, at=NOW)


def test_a_task_that_changed_in_between_is_not_overwritten(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger)
    before = ledger.task("t-1")
    assert before is not None
    # a change slipped in after the task was read, as on a database that does not lock on reading
    read = replace(before, version=before.version - 1)
    database = opened(address(place), create=False)
    with pytest.raises(WrongState, match="task t-1 changed in between"):
        database.write(lambda connection: write_change(connection, read, Change("x", rows=(operation(),)), NOW))
    assert ledger.task("t-1") == before
    assert file_of(ledger).operations == ()
    assert whole(ledger)


def test_a_move_is_noted_where_it_was_made_and_nowhere_else(ledger: Ledger, place: LedgerPlace) -> None:
    other = Ledger(opened(address(place), create=False))
    with ledger.moves() as mine, other.moves() as theirs:
        make(ledger)
        make(ledger, "t-2")
        change(ledger, Change("create_token_intended", state=State.ISSUING))
        change(ledger, Change("noted"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(make, ledger, "t-3").result(10)
        # the other one looks, and does what is left to be done
        with other.claim("t-1") as claim:
            other.change(file_of(other), Change("noted"), claim=claim, at=NOW)
        change(other, Change("create_token_intended", state=State.ISSUING), "t-2")
    assert {name: row.state for name, row in mine.items()} == {"t-1": State.ISSUING, "t-2": State.APPROVED}
    assert {name: row.state for name, row in theirs.items()} == {"t-2": State.ISSUING}
    make(ledger, "t-4")
    assert "t-4" not in mine


def test_two_threads_never_hold_the_same_claim(ledger: Ledger) -> None:
    make(ledger)
    holders, most, guard = 0, 0, threading.Lock()

    def work(n: int) -> None:
        nonlocal holders, most
        for turn in range(5):
            with ledger.claim("t-1") as claim:
                with guard:
                    holders += 1
                    most = max(most, holders)
                ledger.apply("t-1", Change("step", EventBody(note=f"{n}: {turn}")), claim=claim, at=NOW)
                with guard:
                    holders -= 1

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert most == 1
    assert len(file_of(ledger).events) == 11
    assert whole(ledger)


def test_two_processes_never_hold_the_same_claim(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger)
    code = (
        "with ledger.claim('t-1') as claim:\n"
        "    begun = time.monotonic(); time.sleep(0.2); print(claim, begun, time.monotonic())\n"
    )
    spans = sorted(tuple(map(float, said.split())) for said in run_together(child(code, place), child(code, place)))
    assert spans[0][0] < spans[1][0]
    # monotonic time is one clock for all processes
    assert spans[0][2] <= spans[1][1]


def test_four_processes_with_50_changes_each_lose_none(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger)
    code = (
        "for turn in range(50):\n"
        "    with ledger.claim('t-1') as claim:\n"
        "        ledger.apply('t-1', Change('step', EventBody(note=f'{sys.argv[2]} {turn}')), claim=claim, at=NOW)\n"
    )
    # claims are polled every 50 ms; with four waiting that would be slow, and is not what is tried here
    code = "from jitvault.ledger import claims\nclaims._POLL_S = 0.001\n" + code
    run_together(*(child(code, place, who) for who in "abcd"))
    found = file_of(ledger)
    steps = {e.body["note"] for e in found.events if e.kind == "step"}
    assert steps == {f"{who} {turn}" for who in "abcd" for turn in range(50)}
    assert len(found.events) == 201
    assert whole(ledger)


def test_four_processes_on_tasks_of_their_own_lose_none(ledger: Ledger, place: LedgerPlace) -> None:
    for who in "abcd":
        make(ledger, who)
    code = (
        "with ledger.claim(sys.argv[2]) as claim:\n"
        "    for turn in range(25):\n"
        "        ledger.apply(sys.argv[2], Change('step', EventBody(note=str(turn))), claim=claim, at=NOW)\n"
    )
    run_together(*(child(code, place, who) for who in "abcd"))
    for who in "abcd":
        assert len(file_of(ledger, who).events) == 26
        assert whole(ledger, who)


@pytest.mark.parametrize("where", ["in the middle", "after the last statement"])
def test_a_kill_within_a_transaction_leaves_the_ledger_as_it_was(
    ledger: Ledger, place: LedgerPlace, where: str
) -> None:
    make(ledger)
    before = file_of(ledger)
    stop = "print('in', flush=True); time.sleep(60)\n"
    if where == "in the middle":
        code = (
            "def unit(c):\n"
            "    c.execute(text(\"UPDATE tasks SET state = 'sealed', head = 'x'\"))\n"
            "    c.execute(text(\"INSERT INTO findings (rule, message, at) VALUES ('a', 'b', '2030-01-01')\"))\n"
            f"    {stop}"
            "database.write(unit)\n"
        )
    else:
        code = (
            "from sqlalchemy import event\n"
            "def on_commit(connection):\n"
            "    if sys.argv[2] == 'armed':\n"
            f"        {stop}"
            "with ledger.claim('t-1') as claim:\n"
            "    event.listen(database.engine, 'commit', on_commit)\n"
            "    ledger.apply('t-1', Change('x', state=State.ISSUING), claim=claim, at=NOW)\n"
        )
    victim = child(code, place, "armed")
    assert victim.stdin is not None
    assert victim.stdout is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
    assert [victim.stdout.readline(), victim.stdout.readline()] == ["ready\n", "in\n"]
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=10)
    again = Ledger(opened(address(place), create=False))
    assert file_of(again) == before
    assert whole(again)
    if isinstance(place, Path):
        assert as_is(place, "PRAGMA integrity_check") == [("ok",)]
    # its claim is over after 30 s; then the work goes on
    lose(place)
    change(again, Change("next"))
    assert whole(again)


# -- what the database itself refuses ---------------------------------------------------------------------


def test_a_task_has_one_unsettled_grant(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(grant(),)))
    with pytest.raises(JitvaultError):
        change(ledger, Change("b", rows=(grant(attempt=2),)))
    assert file_of(ledger).grants == (grant(),)
    change(ledger, Change("c", rows=(grant(settled=True), grant(attempt=2))))
    assert len(file_of(ledger).grants) == 2


def test_an_attempt_is_made_once(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(grant(settled=True),)))
    with pytest.raises(JitvaultError):
        change(ledger, Change("b", rows=(grant(grant_id="g-other", settled=True),)))


def filled(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET kind = kind",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 1",
        "UPDATE observations SET path = path",
        "DELETE FROM observations",
    ],
)
def test_events_and_observations_are_append_only(ledger: Ledger, place: LedgerPlace, statement: str) -> None:
    filled(ledger)
    with pytest.raises(REFUSED, match="is append-only"):
        as_is(place, statement)
    assert whole(ledger)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tasks SET state = 'done'",
        "UPDATE tasks SET end_reason = 'because'",
        "UPDATE grants SET verdict = 'dead'",
        "UPDATE leases SET verdict = 'confirmed'",
        "UPDATE operations SET state = 'sent'",
        "UPDATE grants SET settled = 2",
        "UPDATE grants SET delivered = 7",
        "INSERT INTO checks VALUES ('t-1', 's', 1, 2, 'x')",
        "INSERT INTO installation (one, id) VALUES (2, 'i')",
        'INSERT INTO observations (line, source, epoch, "offset", at, closing, kind, request_id, path, subject, actor,'
        " op, remote, failed, error, token, alias, detail) VALUES ('l', 's', 1, 1, '2030-01-01', true, 'told', '', '',"
        " '', '', '', '', false, '', '', '', '{}')",
    ],
)
def test_values_outside_their_enumeration_are_refused(ledger: Ledger, place: LedgerPlace, statement: str) -> None:
    filled(ledger)
    with pytest.raises(REFUSED, match=r"(?i)check constraint|of type boolean"):
        as_is(place, statement)


@pytest.mark.parametrize(("table", "column"), [("tasks", "state"), ("grants", "verdict"), ("operations", "state")])
def test_every_value_of_an_enumeration_is_allowed(ledger: Ledger, place: LedgerPlace, table: str, column: str) -> None:
    filled(ledger)
    values = {("tasks", "state"): State, ("grants", "verdict"): Verdict, ("operations", "state"): OpState}
    for value in values[table, column]:
        as_is(place, f"UPDATE {table} SET {column} = ?", value.value)


@pytest.mark.parametrize("table", ["revisions", "decisions", "grants", "leases", "checks", "operations", "events"])
def test_nothing_belongs_to_a_task_that_is_not_there(ledger: Ledger, place: LedgerPlace, table: str) -> None:
    filled(ledger)
    rows = (
        DecisionRow("t-1", "e-1", "ann", "approve", "sha256:x", NOW, ""),
        CheckRow(1, ok=True, evidence=NoToken(), task_id="t-1", subject=LEASE),
    )
    change(ledger, Change("more", rows=rows))
    statement = f"UPDATE {table} SET task_id = 'no-such-task'"
    if table == "events":
        statement = "INSERT INTO events SELECT 'no-such-task', seq, prev, hash, kind, at, body FROM events LIMIT 1"
    with pytest.raises(REFUSED, match=r"(?i)foreign key constraint"):
        as_is(place, statement)


def test_a_lease_belongs_to_a_grant_that_is_there(ledger: Ledger, place: LedgerPlace) -> None:
    filled(ledger)
    with pytest.raises(REFUSED, match=r"(?i)foreign key constraint"):
        as_is(place, "UPDATE leases SET grant_id = 'no-such-grant'")


def test_foreign_keys_are_on_in_our_own_connections(database: Database, ledger: Ledger) -> None:
    filled(ledger)
    with pytest.raises(LedgerUnavailable, match=r"(?i)foreign key"):
        database.write(lambda c: c.execute(text("UPDATE leases SET grant_id = 'no-such-grant'")))


def test_issue_times_are_those_of_the_role(ledger: Ledger) -> None:
    make(ledger)
    rows = [
        grant(attempt=1, settled=True),
        grant(attempt=2, settled=True, issued_at=None),
        grant(attempt=3, role="jitvault-1h", issued_at=NOW + timedelta(seconds=9)),
    ]
    change(ledger, Change("a", rows=rows))
    assert ledger.issue_times("jitvault-15m") == {NOW}


# -- opening it --------------------------------------------------------------------------------------------


def test_nothing_that_is_done_while_reading_is_kept(database: Database, ledger: Ledger) -> None:
    make(ledger)
    # the one refuses it and the other takes it back
    with suppress(LedgerUnavailable), database.read() as connection:
        connection.execute(text("UPDATE tasks SET requester = 'x'"))
    row = ledger.task("t-1")
    assert row is not None
    assert row.requester == "e-req"


def _old_version(place: LedgerPlace) -> None:
    as_is(place, "UPDATE alembic_version SET version_num = '0000'")


def _newer_version(place: LedgerPlace) -> None:
    as_is(place, "UPDATE alembic_version SET version_num = '9999'")


def _no_version(place: LedgerPlace) -> None:
    as_is(place, "DROP TABLE alembic_version")


def _empty_version(place: LedgerPlace) -> None:
    as_is(place, "DELETE FROM alembic_version")


@pytest.mark.parametrize("spoil", [_old_version, _newer_version, _no_version, _empty_version])
@pytest.mark.parametrize("create", [True, False])
def test_another_schema_is_refused_and_left_alone(
    database: Database, place: LedgerPlace, spoil: Callable[[LedgerPlace], None], create: bool
) -> None:
    make(Ledger(database))
    spoil(place)
    tables = tables_of(place)
    with pytest.raises(LedgerUnavailable, match=f"schema version .*, this jitvault needs {HEAD}") as caught:
        opened(address(place), create=create)
    assert caught.value.exit_code == 11
    assert tables_of(place) == tables


def tables_of(place: LedgerPlace) -> list[tuple[Any, ...]]:
    if isinstance(place, Path):
        return as_is(place, "SELECT name, sql FROM sqlite_master ORDER BY name")
    return as_is(place, "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")


def test_a_file_that_a_worker_has_only_begun_is_no_ledger_yet(tmp_path: Path) -> None:
    """The schema is one transaction, and the file is there before it."""
    file = tmp_path / "ledger.db"
    as_is(file, "PRAGMA journal_mode = wal")
    assert file.stat().st_size > 0
    with pytest.raises(MissingLedger, match="no ledger in this file"):
        opened(str(file), create=False)
    opened(str(file), create=True).close()


def test_somebody_elses_database_is_left_alone(place: LedgerPlace, shelf: Shelf) -> None:
    theirs = place if isinstance(place, Path) else shelf.empty()
    as_is(theirs, "CREATE TABLE theirs (a integer)")
    for make_it in (lambda at: opened(at, create=True), lambda at: upgrade(raw(at))):
        with pytest.raises(LedgerUnavailable, match="schema version none"):
            make_it(address(theirs))
    assert [row[0] for row in tables_of(theirs)] == ["theirs"]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&cache=shared&uri=true",
        "sqlite:///x.db?timeout=0",
        "sqlite+aiosqlite:///x.db",
        "sqlite+nothing:///x.db",
        "postgresql://user:hvs-password@127.0.0.1:1/x",
        "postgresql+psycopg://user:hvs-password@127.0.0.1:1/x",
        "postgresql://user:hvs-password@127.0.0.1:hvs-password/x",
        "postgresql://user:hvs-password@127.0.0.1:1/x?hvs-password=1",
        "postgresql+asyncpg://user:hvs-password@127.0.0.1:1/x",
        "mysql://user:hvs-password@127.0.0.1/x",
        "nonsense",
        "",
        "://",
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_url_that_cannot_be_a_ledger_is_refused(
    url: str, create: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerUnavailable) as caught:
        opened(url, create=create)
    assert "hvs-password" not in str(caught.value) + caught.value.hint
    assert caught.value.exit_code == 11
    assert caught.value.__cause__ is None
    assert list(tmp_path.iterdir()) == []


# -- the schema -------------------------------------------------------------------------------------------


def test_the_migrations_make_the_schema_of_the_models(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_every_append_only_table_is_guarded(database: Database) -> None:
    with database.read() as connection:
        assert triggers(connection) == guards(connection.dialect.name, ("events", "observations"))
