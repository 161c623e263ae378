"""What is particular about a ledger on PostgreSQL: a server that can go away, and writers beside each other."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from builders import LEASE, NOW, TOKEN, as_is, change, file_of, issued, make, read, seen, task, whole
from ledgers import Shelf, allow, owner_of
from psycopg.adapt import PyFormat
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from together import child, run_together
from wire import Cut, wired

from jitvault.audit.observation import Kind
from jitvault.errors import LedgerUnavailable, WrongState
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.ledger.storage import postgres, schema
from jitvault.ledger.storage.database import HEAD, Database, opened, raw
from jitvault.ledger.storage.rights import login_of
from jitvault.model.ledger_facts import LedgerLogin


@pytest.fixture
def place(shelf: Shelf) -> str:
    return shelf.new()


def test_a_worker_keeps_its_connections_and_nothing_of_those_it_had(place: str) -> None:
    database, made, hands = opened(place, create=False), list[Any](), 12
    event.listen(database.engine, "connect", lambda connection, _: made.append(connection))

    def look(all_there: threading.Barrier) -> None:
        with database.read() as connection:
            all_there.wait(10)
            connection.execute(text("SELECT 1"))

    for _ in range(3):
        with ThreadPoolExecutor(hands) as pool:
            list(pool.map(look, [threading.Barrier(hands)] * hands))
    assert 0 < len(made) <= hands
    assert len({one.adapters.get_dumper(str, PyFormat.AUTO) for one in made}) == 1


# -- a server that goes away --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_answer_was_lost_is_written_once(ledger: Ledger, place: str, when: Cut) -> None:
    make(ledger)
    with wired(place) as (wire, url):
        cut_off = Ledger(opened(url, create=False))
        with cut_off.claim("t-1") as claim:
            wire.cut(when)
            written = cut_off.apply("t-1", Change("once"), claim=claim, at=NOW)
        assert wire.cuts == 1
    assert [event.kind for event in file_of(ledger).events] == ["submitted", "once"]
    assert ledger.task("t-1") == written
    assert whole(ledger)


def test_what_became_of_a_commit_is_said_to_be_unknown_where_nobody_can_say(
    ledger: Ledger, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.3)
    with wired(place) as (wire, url):
        cut_off = Ledger(opened(url, create=False))
        with pytest.raises(LedgerUnavailable, match="may or may not be written"), cut_off.claim("t-1") as claim:
            wire.cut("after")
            # nor does anybody else get through
            wire.close()
            cut_off.apply("t-1", Change("once"), claim=claim, at=NOW)
    assert [event.kind for event in file_of(ledger).events] == ["submitted", "once"]


def test_a_server_that_was_restarted_in_between_is_found_again(ledger: Ledger, shelf: Shelf) -> None:
    make(ledger)
    shelf.server.restart()
    assert ledger.task("t-1") is not None
    shelf.server.restart()
    change(ledger, Change("next"))
    assert whole(ledger)


def test_a_server_that_is_away_for_a_moment_is_waited_for(ledger: Ledger, shelf: Shelf) -> None:
    make(ledger)
    shelf.server.kill()
    # its sessions need some milliseconds to notice; whoever is in the middle of reading then is refused
    time.sleep(0.3)
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(ledger.task, "t-1")
        writing = pool.submit(change, ledger, Change("next"))
        shelf.server.start()
        assert reading.result(20) is not None
        assert writing.result(20).seq == 2
    assert whole(ledger)


def test_a_server_that_stays_away_is_unavailable(
    ledger: Ledger, place: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.2)
    shelf.server.kill()
    try:
        for act in (ledger.tasks, lambda: make(ledger, "t-2"), lambda: opened(place, create=True)):
            with pytest.raises(LedgerUnavailable, match="cannot be used") as caught:
                act()
            assert make_url(place).password not in str(caught.value)
    finally:
        shelf.server.start()
    assert [row.task_id for row in ledger.tasks()] == ["t-1"]


def test_a_wrong_password_and_a_database_that_is_not_there_are_told_without_the_password(place: str) -> None:
    url = make_url(place)
    wrong = secrets.token_urlsafe(16)
    for other in (url.set(password=wrong), url.set(database="nowhere")):
        with pytest.raises(LedgerUnavailable) as caught:
            opened(other.render_as_string(hide_password=False), create=True)
        said = f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
        assert wrong not in said and str(url.password) not in said
        assert "failed" in said


# -- beside each other ----------------------------------------------------------------------------------------


def test_units_that_block_each_other_are_both_written(database: Database, ledger: Ledger) -> None:
    make(ledger, "a")
    make(ledger, "b")
    both = threading.Barrier(2, timeout=10)
    runs: list[str] = []

    def unit(first: str, then: str) -> Any:
        def crosswise(connection: Connection) -> None:
            runs.append(first)
            more = text("UPDATE tasks SET confirmed_ms = coalesce(confirmed_ms, 0) + 1 WHERE task_id = :id")
            connection.execute(more, {"id": first})
            if len(runs) <= 2:
                both.wait()
            connection.execute(more, {"id": then})

        return lambda: database.write(crosswise)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(unit("a", "b")), pool.submit(unit("b", "a"))]:
            done.result(20)
    assert [row.confirmed_ms for row in ledger.tasks()] == [2, 2]
    assert len(runs) == 3


def test_a_lock_that_another_keeps_is_not_waited_for_without_end(
    place: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    monkeypatch.setattr(postgres, "LOCK_TIMEOUT_MS", 50)
    hurried = Ledger(opened(place, create=False))
    with psycopg.connect(place) as other:
        other.execute("SELECT 1 FROM tasks FOR UPDATE")
        with pytest.raises(LedgerUnavailable, match="lock timeout"):
            change(hurried, Change("x"))
    change(hurried, Change("x"))


def test_who_is_paused_within_a_transaction_holds_nobody_up(
    place: str, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger)
    monkeypatch.setattr(postgres, "IDLE_TIMEOUT_MS", 100)
    paused = opened(place, create=False)
    inside, go_on = threading.Event(), threading.Event()
    runs: list[int] = []

    def unit(connection: Connection) -> None:
        connection.execute(text("UPDATE tasks SET confirmed_ms = coalesce(confirmed_ms, 0) + 1"))
        runs.append(1)
        if len(runs) == 1:
            inside.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(paused.write, unit, alone=True)
        assert inside.wait(10)
        change(ledger, Change("next"))
        go_on.set()
        done.result(20)
    assert (len(runs), ledger.tasks()[0].confirmed_ms) == (2, 1)


def test_what_looks_before_it_writes_misses_nobody(database: Database, ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: ledger.finding(None, "unknown_token", "the same", NOW), range(8)))
        ledger.record_salt("hmac-1", NOW)
        changed = list(pool.map(lambda _: ledger.record_salt("hmac-2", NOW), range(8)))
    assert len(told) == 8
    assert changed.count(True) == 1
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM findings")).scalar() == 1


def test_lines_are_entered_while_nobody_changes_a_task(database: Database, ledger: Ledger, place: str) -> None:
    issued(ledger)
    inside, go_on = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        inside.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        changing = pool.submit(database.write, slow)
        assert inside.wait(10)
        entering = pool.submit(read, ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while as_is(place, waiting) == [(0,)]:
            assert not entering.done()
        go_on.set()
        changing.result(10)
        entering.result(10)
    assert [lease.lease_id for lease in file_of(ledger).leases] == [LEASE]


def test_two_readers_of_the_same_lines_in_two_sources_enter_each_once(ledger: Ledger, place: str) -> None:
    issued(ledger)
    lines = [seen(n, Kind.USED, TOKEN, actor=TOKEN) for n in range(200)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(read, ledger, lines, source=name) for name in ("audit", "node-2")]:
            done.result(30)
    assert as_is(place, "SELECT count(*) FROM observations") == [(200,)]
    assert whole(ledger)


def test_an_insert_that_another_was_before_is_run_again(database: Database) -> None:
    runs: list[int] = []
    insert = text("INSERT INTO audit_salts (mark, first_at) VALUES (:mark, now())")

    def unit(connection: Connection) -> int:
        runs.append(1)
        known = connection.execute(text("SELECT count(*) FROM audit_salts")).scalar_one()
        if len(runs) == 1:
            database.write(lambda other: other.execute(insert, {"mark": "0"}))
        connection.execute(insert, {"mark": str(known)})
        return int(known)

    assert database.write(unit) == 1
    assert len(runs) == 2


def test_a_worker_passes_by_what_another_is_taking(ledger: Ledger, place: str) -> None:
    for name in ("a", "b"):
        make(ledger, name)
        change(ledger, Change("noted", fields={"due_at": NOW}), name)
    with psycopg.connect(place) as other:
        other.execute("SELECT 1 FROM tasks WHERE task_id = 'a' FOR UPDATE")
        began = time.monotonic()
        assert ledger.take_due(NOW, 9) == ["b"]
        assert time.monotonic() - began < 5


def test_two_that_create_the_same_task_make_one(ledger: Ledger) -> None:
    def create(_: int) -> bool:
        try:
            ledger.create(task(), Change("submitted"), at=NOW)
        except WrongState:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]


# -- the database -----------------------------------------------------------------------------------------------


def test_an_empty_database_is_made_a_ledger_by_upgrade_alone_and_once(shelf: Shelf) -> None:
    url = shelf.empty()
    with pytest.raises(LedgerUnavailable, match="no ledger in this database") as caught:
        opened(url, create=True)
    assert "ledger upgrade" in caught.value.hint
    code = "from jitvault.ledger.storage.database import raw, upgrade\nprint(upgrade(raw(sys.argv[1]))[0])\n"
    said = run_together(*(child(code, url, begin="") for _ in range(3)))
    assert sorted(said) == [f"{HEAD}\n", f"{HEAD}\n", "None\n"]
    make(Ledger(opened(url, create=False)))


def test_the_migrations_make_the_checks_and_keys_of_the_models(place: str) -> None:
    of_schema = text(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = to_regnamespace(:name) "
        "AND conrelid::regclass::text NOT LIKE '%alembic_version' "
        "UNION SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE relnamespace = to_regnamespace(:name) AND relname NOT LIKE 'alembic_version%'"
    )
    with raw(owner_of(place)).engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA models"))
        schema.metadata.create_all(connection.execution_options(schema_translate_map={None: "models"}))
        made, models = (
            {found.replace(f"{name}.", "") for found in connection.execute(of_schema, {"name": name}).scalars()}
            for name in ("public", "models")
        )
    assert made == models
    assert any("irrevocable" in found for found in made) and any("WHERE" in found for found in made)


@contextmanager
def as_role(place: str, *, writes: bool) -> Iterator[tuple[str, str]]:
    """A login with the printed grants of a worker or a reader: its name, and its URL."""
    password, name = secrets.token_urlsafe(16), f"night_{secrets.token_hex(4)}"
    as_is(place, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    allow(place, name, writes=writes)
    yield name, make_url(place).set(username=name, password=password).render_as_string(hide_password=False)
    as_is(place, f"DROP OWNED BY {name}")
    as_is(place, f"DROP ROLE {name}")


def login(url: str, *, writes: bool) -> LedgerLogin:
    with raw(url).read() as connection:
        return login_of(connection, writes=writes)


def test_a_worker_may_not_change_or_delete_what_is_written(place: str) -> None:
    forbidden = [
        "DROP TRIGGER events_no_delete ON events",
        "DELETE FROM findings",
        "TRUNCATE events",
        "DROP TABLE tasks",
        "SET session_replication_role = replica",
        "UPDATE events SET kind = kind",
        "UPDATE audit_salts SET mark = mark",
        "UPDATE alembic_version SET version_num = '9999'",
    ]
    for statement in forbidden:
        with psycopg.connect(place) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute(statement.encode())


@pytest.mark.parametrize("writes", [True, False])
def test_the_printed_grants_give_what_is_needed_and_nothing_else(place: str, writes: bool) -> None:
    with as_role(place, writes=writes) as (name, url):
        assert login(url, writes=writes) == LedgerLogin(name, writes, False, (), ())
        as_is(place, f"REVOKE SELECT ON writers FROM {name}")
        as_is(place, f"GRANT UPDATE (kind) ON events TO {name}")
        as_is(place, f"GRANT TRIGGER ON tasks TO {name}")
        changed = login(url, writes=writes)
        assert changed.missing == ("SELECT on writers",)
        assert changed.excess == ("UPDATE on events", "TRIGGER on tasks")
        # again, as after an upgrade
        allow(place, name, writes=writes)
        assert login(url, writes=writes) == LedgerLogin(name, writes, False, (), ())
    assert login(owner_of(place), writes=writes).owns


def test_a_refused_statement_is_told_with_the_missing_right(place: str) -> None:
    with as_role(place, writes=True) as (name, url):
        as_is(place, f"REVOKE DELETE ON over_quota FROM {name}")
        as_is(place, f"REVOKE USAGE ON SEQUENCE findings_id_seq FROM {name}")
        worker = Ledger(opened(url, create=False))
        lacks = f"its login {name} lacks USAGE on findings_id_seq, DELETE on over_quota$"
        for act in (
            lambda: worker.keep_over_quota("e-1", 0, NOW),
            lambda: worker.finding(None, "denied", "no", NOW),
            worker.check_login,
        ):
            with pytest.raises(LedgerUnavailable, match=lacks) as caught:
                act()
            assert f"`jitvault ledger grants {name}`" in caught.value.hint
        as_is(place, f"REVOKE SELECT ON over_quota FROM {name}")
        # a reader's grants would take a worker's other rights, and this may be either
        with pytest.raises(LedgerUnavailable, match=f"{name} lacks SELECT on over_quota$") as caught:
            worker.over_quota()
        assert f"`jitvault ledger grants {name}` prints if a worker" in caught.value.hint


def test_a_message_that_no_index_would_take_is_cut(ledger: Ledger) -> None:
    make(ledger)
    # printable ones, which are stored as they are: others are escaped first
    long = "".join(chr(0x20000 + n * 37) for n in range(1000))
    for _ in range(2):
        ledger.finding("t-1", "denied", long, NOW)
    (found,) = file_of(ledger).findings
    assert found["message"] == long[:500]


def test_options_of_the_url_are_those_of_postgresql(place: str) -> None:
    url = make_url(place).update_query_dict({"options": "-c search_path=elsewhere", "application_name": "night"})
    database = raw(url.render_as_string(hide_password=False))
    with database.read() as connection:
        names = ("search_path", "application_name", "timezone", "lock_timeout", "transaction_read_only")
        found = [connection.execute(text(f"SHOW {name}")).scalar() for name in names]
    assert found == ["elsewhere", "night", "UTC", "10s", "on"]
