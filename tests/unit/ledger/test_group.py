"""Group commit on a real SQLite file: many threads, one commit, and each unit's own success or failure."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, change, file_of, make, whole
from sqlalchemy import Connection, event, text

from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.ledger.storage import sqlite
from jitvault.ledger.storage.database import Database, opened
from jitvault.ledger.storage.group_commit import _LARGEST_GROUP, _Turn
from jitvault.ledger.storage.sqlite import SqliteStore

Unit = Callable[[Connection], object]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def path(place: Path) -> Path:
    return place


def store_of(database: Database) -> SqliteStore:
    assert isinstance(database.store, SqliteStore)
    return database.store


def _note(n: int) -> Unit:
    insert = text("INSERT INTO findings (rule, message, at) VALUES ('test', :n, :at)")
    return lambda connection: connection.execute(insert, {"n": str(n), "at": "2030-01-31T09:00:00Z"})


def _notes(database: Database) -> set[int]:
    with database.read() as connection:
        return {int(n) for n in connection.execute(text("SELECT message FROM findings")).scalars()}


def _commits(database: Database) -> list[object]:
    seen: list[object] = []
    event.listen(database.engine, "commit", seen.append)
    return seen


def _behind_one(database: Database, *units: Unit) -> list[Future[object]]:
    """Write all `units` while another thread is inside its own transaction, so that they wait together."""
    inside, go_on = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        inside.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(len(units) + 1) as pool:
        first = pool.submit(database.write, slow)
        assert inside.wait(10)
        rest = [pool.submit(database.write, unit) for unit in units]
        while len(store_of(database).group._waiting) < len(units):
            pass
        go_on.set()
        first.result(10)
    return rest


def test_what_waits_together_is_written_by_one_commit(database: Database) -> None:
    commits = _commits(database)
    done = _behind_one(database, *(_note(n) for n in range(20)))
    assert all(one.exception() is None for one in done)
    assert _notes(database) == set(range(20))
    assert len(commits) == 2


def test_a_unit_that_refuses_undoes_its_own_rows_and_nobody_elses(database: Database) -> None:
    def refuses(connection: Connection) -> None:
        _note(99)(connection)
        raise WrongState("no")

    good, bad, also_good = _behind_one(database, _note(1), refuses, _note(2))
    assert isinstance(bad.exception(), WrongState)
    assert good.exception() is None and also_good.exception() is None
    assert _notes(database) == {1, 2}


def test_what_the_database_refuses_to_one_is_written_for_the_others(database: Database) -> None:
    def breaks_a_rule(connection: Connection) -> None:
        _note(99)(connection)
        connection.execute(text("INSERT INTO findings (rule) VALUES (NULL)"))

    good, bad, also_good = _behind_one(database, _note(1), breaks_a_rule, _note(2))
    assert isinstance(bad.exception(), LedgerUnavailable)
    assert good.exception() is None and also_good.exception() is None
    assert _notes(database) == {1, 2}


def test_nobody_is_told_of_success_when_the_commit_fails(database: Database) -> None:
    def full(_: Connection) -> None:
        raise RuntimeError("the disk is gone")

    event.listen(database.engine, "commit", full)
    done = _behind_one_that_fails(database, [_note(n) for n in range(3)])
    event.remove(database.engine, "commit", full)
    assert all(one.exception() is not None for one in done)
    assert _notes(database) == set()


def _behind_one_that_fails(database: Database, units: list[Unit]) -> list[Future[object]]:
    with ThreadPoolExecutor(len(units)) as pool:
        return [pool.submit(database.write, unit) for unit in units]


def test_a_full_ledger_is_told_to_each_that_waits(database: Database, path: Path) -> None:
    # a pragma of one connection: the pool has no other
    small = opened(f"sqlite:///{path}", create=False)

    def limit(connection: object, _record: object, _proxy: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

    event.listen(small.engine, "checkout", limit)
    long = "x" * 100_000

    def much(connection: Connection) -> None:
        connection.execute(
            text("INSERT INTO findings (rule, message, at) VALUES ('test', :m, '2030-01-31T09:00:00Z')"), {"m": long}
        )

    done = _behind_one(small, much, much, much)
    assert all("full" in str(one.exception()) for one in done)
    assert _notes(database) == set()


def test_many_threads_that_change_tasks_leave_whole_chains(database: Database) -> None:
    ledger = Ledger(database)
    for n in range(4):
        make(ledger, f"t-{n}")
    # two threads for each task: of two writers of one event one has to read again what the other wrote
    jobs = [f"t-{n % 4}" for n in range(8)] * 10
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda task: change(ledger, Change("noted"), task), jobs))
    for n in range(4):
        assert whole(ledger, f"t-{n}")
        assert [e.seq for e in file_of(ledger, f"t-{n}").events] == list(range(1, 22))


def test_a_claim_that_was_lost_is_lost_in_a_group_too(database: Database) -> None:
    ledger = Ledger(database)
    make(ledger)
    with ledger.claim("t-1") as claim:
        stale = claim - 1
        bad, good = _behind_one(
            database,
            lambda c: ledger_apply(ledger, c, stale),
            _note(1),
        )
    assert isinstance(bad.exception(), WrongState)
    assert good.exception() is None


def ledger_apply(ledger: Ledger, connection: Connection, claim: int) -> object:
    from jitvault.ledger.ledger import _fenced
    from jitvault.ledger.task_change import write_change

    noted = Change("noted")
    return write_change(connection, _fenced(connection, "t-1", claim, noted), noted, NOW)


def test_a_database_that_another_process_holds_is_waited_for_together(path: Path, monkeypatch: Any) -> None:
    """Each by itself would wait the whole time, one after the other, while access that is to be ended lives."""
    monkeypatch.setattr("jitvault.ledger.storage.sqlite.BUSY_TIMEOUT_MS", 100)
    begin, begun = sqlite._begin, list[str]()

    def counted(connection: Connection, how: str) -> None:
        begun.append(how)
        begin(connection, how)

    monkeypatch.setattr(sqlite, "_begin", counted)
    database = opened(f"sqlite:///{path}", create=True)
    begun.clear()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = _behind_one_that_fails(database, [_note(n) for n in range(16)])
        assert all("locked" in str(one.exception()) for one in done)
        other.execute("ROLLBACK")
    # of its three tries each shares most with others
    assert 3 <= begun.count("BEGIN IMMEDIATE") <= 12, begun
    database.write(_note(1))
    assert _notes(database) == {1}


def test_a_unit_whose_caller_was_interrupted_while_it_waited_is_not_written_later(database: Database) -> None:
    group = store_of(database).group

    def stopped(_: Callable[[], bool]) -> bool:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group._over, "wait_for", stopped)
        with pytest.raises(KeyboardInterrupt):
            group.write(_note(1))
    group.write(_note(2))
    assert _notes(database) == {2}


def test_a_leader_that_is_interrupted_leaves_the_others_to_themselves(database: Database) -> None:
    def interrupted(_: Connection) -> None:
        raise KeyboardInterrupt

    bad, *good = _behind_one(database, interrupted, *(_note(n) for n in range(3)))
    assert isinstance(bad.exception(), KeyboardInterrupt)
    # its unit may have been led by one of the others, and no more than one
    told = {n for n, one in enumerate(good) if one.exception() is None}
    assert len(told) >= 2 and _notes(database) == told
    database.write(_note(3))
    assert _notes(database) == told | {3}


@pytest.mark.parametrize("count", [1, 200])
def test_more_than_fit_in_one_group_are_all_written_once(database: Database, count: int) -> None:
    done = _behind_one(database, *(_note(n) for n in range(count)))
    assert all(one.exception() is None for one in done)
    with database.read() as connection:
        written = connection.execute(text("SELECT message FROM findings")).scalars()
        assert sorted(int(n) for n in written) == list(range(count))


def test_who_leads_from_the_end_of_a_long_queue_is_written_once(database: Database) -> None:
    group = store_of(database).group
    # those before it wait for the same lock, and any of them can be the first to get it
    waiting = [_Turn(_note(n)) for n in range(2 * _LARGEST_GROUP)]
    group._waiting.extend(waiting)
    group.write(_note(-1))
    while group._waiting:
        group.write(_note(-2))
    with database.read() as connection:
        written = list(connection.execute(text("SELECT message FROM findings")).scalars())
    assert written.count("-1") == 1
    assert all(written.count(str(n)) == 1 for n in range(len(waiting)))
