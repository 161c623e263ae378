"""The ledger on a real SQLite file: what the database holds by itself, and what survives two writers and a kill."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

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
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError

from jitvault.domain.chain import GENESIS
from jitvault.domain.lifecycle import EndReason, State, Verdict
from jitvault.domain.observation import Kind
from jitvault.errors import JitvaultError, LedgerUnavailable, WrongState
from jitvault.ledger import claims, schema
from jitvault.ledger.database import HEAD, Database, opened
from jitvault.ledger.ledger import SqlLedger
from jitvault.ports.ledger import (
    Change,
    CheckRow,
    DecisionRow,
    LeaseRow,
    OpState,
)

ROOT = Path(__file__).parents[3]


# -- creating and changing --------------------------------------------------------------------------------


def test_a_task_begins_with_its_first_event(ledger: SqlLedger) -> None:
    made = make(ledger)
    assert (made.state, made.version, made.seq) == (State.APPROVED, 1, 1)
    found = file_of(ledger)
    (first,) = found.events
    assert (first.kind, first.prev, first.seq, first.hash) == ("submitted", GENESIS, 1, made.head)
    assert first.body == {"by": "olga", "state": "approved"}
    assert first.at == "2030-01-31T09:00:00.000000+00:00"
    assert found.revision == revision()
    assert whole(ledger)


def test_a_task_is_created_once(ledger: SqlLedger) -> None:
    make(ledger)
    with pytest.raises(WrongState, match="task t-1 exists already"):
        make(ledger)
    assert len(file_of(ledger).events) == 1


@pytest.mark.parametrize("state", [s for s in State if s not in (State.PENDING_APPROVAL, State.APPROVED, State.DENIED)])
def test_a_task_begins_in_no_other_state(ledger: SqlLedger, state: State) -> None:
    with pytest.raises(WrongState, match="cannot go from nothing"):
        make(ledger, state=state)
    assert ledger.task("t-1") is None


def test_a_change_is_one_event_and_everything_that_it_writes(ledger: SqlLedger) -> None:
    make(ledger)
    rows = (grant(), operation())
    written = change(ledger, Change("issuing", {"n": 1}, State.ISSUING, {"due_at": NOW}, rows))
    assert (written.state, written.version, written.seq, written.due_at) == (State.ISSUING, 2, 2, NOW)
    found = file_of(ledger)
    assert (found.task, found.grants, found.operations) == (written, (grant(),), (operation(),))
    assert found.events[-1].body == {"n": 1, "state": "issuing"}
    assert whole(ledger)


def test_a_row_is_replaced_by_its_key(ledger: SqlLedger) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(grant(), CheckRow("t-1", LEASE, 1, False, "none"))))
    dead = grant(verdict=Verdict.GONE, dead_at=NOW, settled=True)
    change(ledger, Change("b", rows=(dead, CheckRow("t-1", LEASE, 1, True, "line x"))))
    assert file_of(ledger).grants == (dead,)
    assert file_of(ledger).checks == (CheckRow("t-1", LEASE, 1, True, "line x"),)


def test_every_kind_of_row_comes_back_as_it_was(ledger: SqlLedger) -> None:
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


def test_a_decision_about_another_revision_does_not_stand_in_the_file(ledger: SqlLedger) -> None:
    make(ledger)
    old = DecisionRow("t-1", "e-1", "ann", "approve", "sha256:" + "b" * 64, NOW, "of the first revision")
    change(ledger, Change("a", rows=(old,)))
    assert file_of(ledger).decisions == ()


def test_a_move_that_the_table_does_not_have_writes_nothing(ledger: SqlLedger) -> None:
    make(ledger)
    before = file_of(ledger)
    with pytest.raises(WrongState, match="cannot go from approved to sealed"):
        change(ledger, Change("x", state=State.SEALED, rows=(operation(),)))
    assert file_of(ledger) == before


def test_a_row_that_is_refused_takes_the_whole_change_with_it(ledger: SqlLedger) -> None:
    make(ledger)
    before = file_of(ledger)
    orphan = LeaseRow("x", "t-1", "no-such-grant", "p", None, NOW, Verdict.LIVE, None)
    with pytest.raises(JitvaultError):
        change(ledger, Change("x", state=State.ISSUING, rows=(operation(), orphan)))
    assert file_of(ledger) == before


def test_what_is_not_there(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ledger.task("t-9"), ledger.file("t-9"), ledger.tasks()) == (None, None, [])
    assert ledger.readings() == {}
    assert ledger.installation() is None
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    with pytest.raises(WrongState), ledger.claim("t-9"):
        pass


def test_tasks_are_listed_in_the_order_of_their_creation(ledger: SqlLedger) -> None:
    for n, name in enumerate(["c", "a", "b"]):
        ledger.create(replace(task(name), created_at=NOW + timedelta(seconds=n)), Change("submitted"), at=NOW)
    assert [row.task_id for row in ledger.tasks()] == ["c", "a", "b"]


def test_the_installation_is_set_once(ledger: SqlLedger) -> None:
    assert ledger.installation() is None
    ledger.set_installation("one")
    ledger.set_installation("two")
    assert ledger.installation() == "one"


def test_a_finding_is_told_once(ledger: SqlLedger) -> None:
    make(ledger)
    for _ in range(2):
        ledger.finding("t-1", "ledger_edited", "m" * 2000, NOW)
    (found,) = file_of(ledger).findings
    assert (found["rule"], found["message"]) == ("ledger_edited", "m" * 1000)


# -- claims and fencing -----------------------------------------------------------------------------------


def test_each_claim_has_a_higher_epoch(ledger: SqlLedger) -> None:
    make(ledger)
    epochs = []
    for _ in range(3):
        with ledger.claim("t-1") as claim:
            epochs.append(claim)
    assert epochs == sorted(set(epochs))


def test_a_claim_excludes_others_until_it_is_given_back(
    ledger: SqlLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    make(ledger, "t-2")
    monkeypatch.setattr(claims, "PATIENCE_S", 0.1)
    other = SqlLedger(opened(f"sqlite:///{path}", create=False))
    with ledger.claim("t-1"):
        with pytest.raises(WrongState, match="another process is working on task t-1"), other.claim("t-1"):
            pass
        with other.claim("t-2"):
            pass
    with other.claim("t-1"):
        pass


def test_a_claim_is_given_back_after_an_error(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    make(ledger)
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    with pytest.raises(ValueError, match="oops"), ledger.claim("t-1"):
        raise ValueError("oops")
    with ledger.claim("t-1"):
        pass


def test_a_claim_lives_30_seconds_by_the_databases_clock(ledger: SqlLedger, path: Path) -> None:
    make(ledger)
    with ledger.claim("t-1") as claim:
        ((until,),) = as_is(path, "SELECT claim_until FROM tasks")
        assert 28 < until - time.time() <= 30.5
        as_is(path, "UPDATE tasks SET claim_until = claim_until - 20")
        ledger.extend("t-1", claim)
        ((until,),) = as_is(path, "SELECT claim_until FROM tasks")
        assert 28 < until - time.time() <= 30.5


def test_a_stale_claim_writes_nothing(ledger: SqlLedger, path: Path) -> None:
    make(ledger)
    with ledger.claim("t-1") as old:
        lose(path)
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
    ledger: SqlLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    old = ledger.claim("t-1")
    old.__enter__()
    lose(path)
    with ledger.claim("t-1"):
        old.__exit__(None, None, None)
        monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
        with pytest.raises(WrongState), ledger.claim("t-1"):
            pass


def test_a_claim_of_another_task_is_none_of_this_one(ledger: SqlLedger) -> None:
    make(ledger)
    make(ledger, "t-2")
    for _ in range(2):
        change(ledger, Change("x"))
    with ledger.claim("t-1") as claim, ledger.claim("t-2"), pytest.raises(WrongState):
        ledger.apply("t-2", Change("x"), claim=claim, at=NOW)


def test_a_task_that_changed_in_between_is_not_overwritten(ledger: SqlLedger, path: Path) -> None:
    make(ledger)
    # a change that slips in after the task was read, as on a database that does not lock on reading
    as_is(path, "CREATE TRIGGER slip_in AFTER INSERT ON events BEGIN UPDATE tasks SET version = version + 1; END")
    before = ledger.task("t-1")
    with pytest.raises(WrongState, match="task t-1 changed in between"):
        change(ledger, Change("x", rows=(operation(),)))
    assert ledger.task("t-1") == before
    assert file_of(ledger).operations == ()
    assert whole(ledger)


def test_two_threads_never_hold_the_same_claim(ledger: SqlLedger) -> None:
    make(ledger)
    holders, most, guard = 0, 0, threading.Lock()

    def work(n: int) -> None:
        nonlocal holders, most
        for turn in range(5):
            with ledger.claim("t-1") as claim:
                with guard:
                    holders += 1
                    most = max(most, holders)
                ledger.apply("t-1", Change("step", {"n": n, "turn": turn}), claim=claim, at=NOW)
                with guard:
                    holders -= 1

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert most == 1
    assert len(file_of(ledger).events) == 11
    assert whole(ledger)


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """Another process with the ledger open as `ledger`; it says `ready`, and goes on when it is told to."""
    head = (
        "import sys, time\n"
        "from datetime import UTC, datetime\n"
        "from sqlalchemy import text\n"
        "from jitvault.domain.lifecycle import State\n"
        "from jitvault.ledger.database import opened\n"
        "from jitvault.ledger.ledger import SqlLedger\n"
        "from jitvault.ports.ledger import Change\n"
        "NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "database = opened(f'sqlite:///{sys.argv[1]}', create=True)\n"
        "ledger = SqlLedger(database)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_together(*children: subprocess.Popen[str]) -> list[str]:
    """Start all at the same moment; what each printed after `ready`."""
    for one in children:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n", one.stderr.read() if one.stderr else ""
    for one in children:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = []
    for one in children:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        said.append(out)
    return said


def test_two_processes_never_hold_the_same_claim(ledger: SqlLedger, path: Path) -> None:
    make(ledger)
    code = (
        "with ledger.claim('t-1') as claim:\n"
        "    begun = time.monotonic(); time.sleep(0.2); print(claim, begun, time.monotonic())\n"
    )
    spans = sorted(tuple(map(float, said.split())) for said in run_together(child(code, path), child(code, path)))
    assert spans[0][0] < spans[1][0]
    # monotonic time is one clock for all processes
    assert spans[0][2] <= spans[1][1]


def test_four_processes_with_50_changes_each_lose_none(ledger: SqlLedger, path: Path) -> None:
    make(ledger)
    code = (
        "for turn in range(50):\n"
        "    with ledger.claim('t-1') as claim:\n"
        "        ledger.apply('t-1', Change('step', {'who': sys.argv[2], 'turn': turn}), claim=claim, at=NOW)\n"
    )
    # claims are polled every 50 ms; with four waiting that would be slow, and is not what is tried here
    code = "from jitvault.ledger import claims\nclaims._POLL_S = 0.001\n" + code
    run_together(*(child(code, path, who) for who in "abcd"))
    found = file_of(ledger)
    steps = {(e.body["who"], e.body["turn"]) for e in found.events if e.kind == "step"}
    assert steps == {(who, turn) for who in "abcd" for turn in range(50)}
    assert len(found.events) == 201
    assert whole(ledger)


def test_four_processes_on_tasks_of_their_own_lose_none(ledger: SqlLedger, path: Path) -> None:
    for who in "abcd":
        make(ledger, who)
    code = (
        "with ledger.claim(sys.argv[2]) as claim:\n"
        "    for turn in range(25):\n"
        "        ledger.apply(sys.argv[2], Change('step', {'turn': turn}), claim=claim, at=NOW)\n"
    )
    run_together(*(child(code, path, who) for who in "abcd"))
    for who in "abcd":
        assert len(file_of(ledger, who).events) == 26
        assert whole(ledger, who)


@pytest.mark.parametrize("where", ["in the middle", "after the last statement"])
def test_a_kill_within_a_transaction_leaves_the_ledger_as_it_was(ledger: SqlLedger, path: Path, where: str) -> None:
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
            "    if connection.get_execution_options().get('jitvault_write') and sys.argv[2] == 'armed':\n"
            f"        {stop}"
            "with ledger.claim('t-1') as claim:\n"
            "    event.listen(database.engine, 'commit', on_commit)\n"
            "    ledger.apply('t-1', Change('x', state=State.ISSUING), claim=claim, at=NOW)\n"
        )
    victim = child(code, path, "armed")
    assert victim.stdin is not None
    assert victim.stdout is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
    assert [victim.stdout.readline(), victim.stdout.readline()] == ["ready\n", "in\n"]
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=10)
    again = SqlLedger(opened(f"sqlite:///{path}", create=False))
    assert file_of(again) == before
    assert whole(again)
    assert as_is(path, "PRAGMA integrity_check") == [("ok",)]
    # its claim is over after 30 s; then the work goes on
    lose(path)
    change(again, Change("next"))
    assert whole(again)


# -- what the database itself refuses ---------------------------------------------------------------------


def test_a_task_has_one_unsettled_grant(ledger: SqlLedger) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(grant(),)))
    with pytest.raises(JitvaultError):
        change(ledger, Change("b", rows=(grant(attempt=2),)))
    assert file_of(ledger).grants == (grant(),)
    change(ledger, Change("c", rows=(grant(settled=True), grant(attempt=2))))
    assert len(file_of(ledger).grants) == 2


def test_an_attempt_is_made_once(ledger: SqlLedger) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(grant(settled=True),)))
    with pytest.raises(JitvaultError):
        change(ledger, Change("b", rows=(grant(grant_id="g-other", settled=True),)))


def filled(ledger: SqlLedger) -> None:
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
def test_events_and_observations_are_append_only(ledger: SqlLedger, path: Path, statement: str) -> None:
    filled(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="is append-only"):
        as_is(path, statement)
    assert whole(ledger)


@pytest.mark.parametrize("table", ["events", "observations"])
def test_nor_does_our_own_code_replace_a_line_of_them(database: Database, ledger: SqlLedger, table: str) -> None:
    # SQLite runs delete triggers for REPLACE only where it is told to
    filled(ledger)
    with pytest.raises(LedgerUnavailable, match=f"{table} is append-only"):
        database.write(lambda c: c.execute(text(f"REPLACE INTO {table} SELECT * FROM {table}")))


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
        "INSERT INTO observations (line, source, epoch, offset, at, closing, kind, request_id, path, subject, actor,"
        " op, remote, failed, error, token, alias, detail) VALUES ('l', 's', 1, 1, '2030-01-01', 1, 'told', '', '', '',"
        " '', '', '', 0, '', '', '', '{}')",
    ],
)
def test_values_outside_their_enumeration_are_refused(ledger: SqlLedger, path: Path, statement: str) -> None:
    filled(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
        as_is(path, statement)


@pytest.mark.parametrize(("table", "column"), [("tasks", "state"), ("grants", "verdict"), ("operations", "state")])
def test_every_value_of_an_enumeration_is_allowed(ledger: SqlLedger, path: Path, table: str, column: str) -> None:
    filled(ledger)
    values = {("tasks", "state"): State, ("grants", "verdict"): Verdict, ("operations", "state"): OpState}
    for value in values[table, column]:
        as_is(path, f"UPDATE {table} SET {column} = ?", value.value)


@pytest.mark.parametrize("table", ["revisions", "decisions", "grants", "leases", "checks", "operations", "events"])
def test_nothing_belongs_to_a_task_that_is_not_there(ledger: SqlLedger, path: Path, table: str) -> None:
    filled(ledger)
    rows = (DecisionRow("t-1", "e-1", "ann", "approve", "sha256:x", NOW, ""), CheckRow("t-1", LEASE, 1, True, "x"))
    change(ledger, Change("more", rows=rows))
    statement = f"UPDATE {table} SET task_id = 'no-such-task'"
    if table == "events":
        statement = "INSERT INTO events SELECT 'no-such-task', seq, prev, hash, kind, at, body FROM events LIMIT 1"
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY constraint failed"):
        as_is(path, statement)


def test_a_lease_belongs_to_a_grant_that_is_there(ledger: SqlLedger, path: Path) -> None:
    filled(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY constraint failed"):
        as_is(path, "UPDATE leases SET grant_id = 'no-such-grant'")


def test_foreign_keys_are_on_in_our_own_connections(database: Database, ledger: SqlLedger) -> None:
    make(ledger)
    with pytest.raises(LedgerUnavailable, match="FOREIGN KEY"):
        database.write(lambda c: c.execute(text("DELETE FROM tasks")))


def test_issue_times_are_those_of_the_role(ledger: SqlLedger) -> None:
    make(ledger)
    rows = [
        grant(attempt=1, settled=True),
        grant(attempt=2, settled=True, issued_at=None),
        grant(attempt=3, role="jitvault-1h", issued_at=NOW + timedelta(seconds=9)),
    ]
    change(ledger, Change("a", rows=rows))
    assert ledger.issue_times("jitvault-15m") == {NOW}


# -- the file ---------------------------------------------------------------------------------------------


def test_the_pragmas_are_really_set_on_every_connection(database: Database) -> None:
    connections = [database.engine.connect() for _ in range(3)]
    for connection in connections:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        # 2 is FULL: NORMAL would lose committed intents when the power fails
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
        connection.close()


def test_a_writer_has_the_lock_from_its_first_statement(database: Database, path: Path) -> None:
    def unit(_: object) -> None:
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()

    database.write(unit)


def test_a_busy_unit_is_run_again_whole(database: Database, ledger: SqlLedger) -> None:
    make(ledger)
    turns = []

    def unit(connection: Any) -> int:
        turns.append(connection.execute(text("SELECT version FROM tasks")).scalar())
        if len(turns) == 1:
            busy()
        return len(turns)

    assert database.write(unit) == 2


def busy() -> None:
    raise OperationalError("x", {}, sqlite3.OperationalError("database is locked"))


def test_a_database_that_stays_busy_is_unavailable(database: Database) -> None:
    turns = []

    def unit(_: object) -> None:
        turns.append(1)
        busy()

    with pytest.raises(LedgerUnavailable, match="locked"):
        database.write(unit)
    assert len(turns) == 3


def test_nothing_that_is_done_while_reading_is_kept(database: Database, ledger: SqlLedger) -> None:
    make(ledger)
    with database.read() as connection:
        connection.execute(text("UPDATE tasks SET requester = 'x'"))
    row = ledger.task("t-1")
    assert row is not None
    assert row.requester == "e-req"


def test_a_missing_ledger_is_created_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    database = opened(f"sqlite:///{path}", create=True)
    make(SqlLedger(database))
    assert {p.stat().st_mode & 0o077 for p in path.parent.iterdir()} == {0}
    assert path.parent.stat().st_mode & 0o077 == 0
    assert SqlLedger(opened(f"sqlite:///{path}", create=False)).task("t-1") is not None


def test_a_missing_ledger_is_not_created_by_whoever_only_reads(path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="there is no ledger at"):
        opened(f"sqlite:///{path}", create=False)
    assert not path.exists()


def _empty(path: Path) -> None:
    path.touch()


def _only_a_header(path: Path) -> None:
    # a process that died between making the file and making the schema
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert path.stat().st_size > 0


@pytest.mark.parametrize("begun", [_empty, _only_a_header])
def test_a_ledger_that_was_only_begun_is_finished(path: Path, begun: Callable[[Path], None]) -> None:
    begun(path)
    with pytest.raises(LedgerUnavailable):
        opened(f"sqlite:///{path}", create=False)
    make(SqlLedger(opened(f"sqlite:///{path}", create=True)))


def test_processes_that_start_at_once_make_one_ledger(path: Path) -> None:
    code = "print(ledger.tasks())\n"
    assert run_together(*(child(code, path) for _ in range(4))) == ["[]\n"] * 4


def _old_version(path: Path) -> None:
    as_is(path, "UPDATE alembic_version SET version_num = '0000'")


def _newer_version(path: Path) -> None:
    as_is(path, "UPDATE alembic_version SET version_num = '9999'")


def _no_version(path: Path) -> None:
    as_is(path, "DROP TABLE alembic_version")


def _empty_version(path: Path) -> None:
    as_is(path, "DELETE FROM alembic_version")


@pytest.mark.parametrize("spoil", [_old_version, _newer_version, _no_version, _empty_version])
@pytest.mark.parametrize("create", [True, False])
def test_another_schema_is_refused_and_left_alone(
    database: Database, path: Path, spoil: Callable[[Path], None], create: bool
) -> None:
    make(SqlLedger(database))
    spoil(path)
    tables = as_is(path, "SELECT name, sql FROM sqlite_master ORDER BY name")
    with pytest.raises(LedgerUnavailable, match=f"schema version .*, this jitvault needs {HEAD}") as caught:
        opened(f"sqlite:///{path}", create=create)
    assert caught.value.exit_code == 11
    assert as_is(path, "SELECT name, sql FROM sqlite_master ORDER BY name") == tables


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    as_is(path, "CREATE TABLE theirs (a)")
    with pytest.raises(LedgerUnavailable, match="schema version none"):
        opened(f"sqlite:///{path}", create=True)
    assert as_is(path, "SELECT name FROM sqlite_master") == [("theirs",)]


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
        "postgresql://user:hvs-password@127.0.0.1/x",
        "postgresql+psycopg://user:hvs-password@127.0.0.1/x",
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


def test_a_ledger_on_another_database_says_so() -> None:
    with pytest.raises(LedgerUnavailable, match="a ledger on postgresql is not supported"):
        opened("postgresql://user@127.0.0.1/x", create=True)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x93garbage" * 4096)


def _text(path: Path) -> None:
    path.write_text("this is no database")


def _directory(path: Path) -> None:
    path.mkdir()


def _cut_off(path: Path) -> None:
    make(SqlLedger(opened(f"sqlite:///{path}", create=True)))
    as_is(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    make(SqlLedger(opened(f"sqlite:///{path}", create=True)))
    as_is(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))


@pytest.mark.parametrize("spoil", [_garbage, _text, _directory, _cut_off, _overwritten])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_ledger_is_unavailable(path: Path, spoil: Callable[[Path], None], create: bool) -> None:
    spoil(path)
    with pytest.raises(LedgerUnavailable) as caught:
        ledger = SqlLedger(opened(f"sqlite:///{path}", create=create))
        ledger.tasks()
        make(ledger, "t-2")
    assert caught.value.hint


def test_a_path_below_a_file_is_unavailable(path: Path) -> None:
    path.touch()
    with pytest.raises(LedgerUnavailable, match="cannot be"):
        opened(f"sqlite:///{path}/ledger.db", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes every file")
def test_a_file_without_permission_is_unavailable(database: Database, path: Path) -> None:
    path.chmod(0)
    with pytest.raises(LedgerUnavailable):
        opened(f"sqlite:///{path}", create=False)


def test_a_full_ledger_is_unavailable_and_stays_whole(database: Database, ledger: SqlLedger) -> None:
    make(ledger)
    database.engine.dispose()

    def limit(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    event.listen(database.engine, "connect", limit)
    written = 0
    with pytest.raises(LedgerUnavailable, match="the ledger is full") as caught, ledger.claim("t-1") as claim:
        for written in range(50):  # noqa: B007 - how many went in is what counts
            ledger.apply("t-1", Change("step", {"much": "x" * 2000}), claim=claim, at=NOW)
    assert "space" in caught.value.hint
    event.remove(database.engine, "connect", limit)
    database.engine.dispose()
    assert whole(ledger)
    assert len(file_of(ledger).events) == written + 1


# -- the schema -------------------------------------------------------------------------------------------


def test_the_migrations_make_the_schema_of_the_models(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_the_checks_and_keys_of_the_models(database: Database, tmp_path: Path) -> None:
    # what the comparison above does not look at: CHECKs, primary keys and partial indexes, as SQLite holds them
    other = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    schema.metadata.create_all(other)
    query = text("SELECT type, name, sql FROM sqlite_master WHERE name != 'alembic_version' AND type != 'trigger'")
    with database.read() as connection, other.connect() as models:
        ours, theirs = ({_plain(*row) for row in c.execute(query)} for c in (connection, models))
    other.dispose()
    assert {row for row in ours if "alembic" not in row[1]} == theirs


def _plain(kind: str, name: str, sql: str | None) -> tuple[str, str, tuple[str, ...]]:
    """A statement without its white space and the order of its parts."""
    one_line = " ".join((sql or "").split()).replace("( ", "(").replace(" )", ")").replace(" (", "(")
    # a comma parts columns and constraints where it is followed by a name, and values where it is not
    parts = re.split(r", (?=[a-zA-Z_\"]+ [A-Z]|CONSTRAINT )", one_line.partition("(")[2].removesuffix(")"))
    return kind, name, tuple(sorted(parts))


def test_every_append_only_table_has_both_triggers(path: Path, database: Database) -> None:
    found = {row[0] for row in as_is(path, "SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    assert found == {f"{table}_no_{act}" for table in ("events", "observations") for act in ("update", "delete")}
