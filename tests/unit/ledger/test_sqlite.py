"""What is particular about a ledger in a SQLite file: the file, its pragmas, and one writer at a time."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import LEASE, NOW, TOKEN, as_is, file_of, issued, make, read, seen, whole
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from together import child, run_together

from jitvault.audit.observation import Kind
from jitvault.errors import LedgerUnavailable
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database, opened
from jitvault.model.event_bodies import EventBody


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def path(place: Path) -> Path:
    return place


def test_a_busy_unit_is_run_again_whole(database: Database, ledger: Ledger) -> None:
    make(ledger)
    turns = []

    def unit(connection: Any) -> int:
        turns.append(connection.execute(text("SELECT version FROM tasks")).scalar())
        if len(turns) == 1:
            busy()
        return len(turns)

    assert database.write(unit) == 2


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


def test_a_missing_ledger_is_created_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    database = opened(f"sqlite:///{path}", create=True)
    make(Ledger(database))
    assert {p.stat().st_mode & 0o077 for p in path.parent.iterdir()} == {0}
    assert path.parent.stat().st_mode & 0o077 == 0
    assert Ledger(opened(f"sqlite:///{path}", create=False)).task("t-1") is not None


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
    make(Ledger(opened(f"sqlite:///{path}", create=True)))


def test_processes_that_start_at_once_make_one_ledger(path: Path) -> None:
    code = "print(ledger.tasks())\n"
    assert run_together(*(child(code, path) for _ in range(4))) == ["[]\n"] * 4


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x93garbage" * 4096)


def _text(path: Path) -> None:
    path.write_text("this is no database")


def _directory(path: Path) -> None:
    path.mkdir()


def _cut_off(path: Path) -> None:
    make(Ledger(opened(f"sqlite:///{path}", create=True)))
    as_is(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    make(Ledger(opened(f"sqlite:///{path}", create=True)))
    as_is(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))


@pytest.mark.parametrize("spoil", [_garbage, _text, _directory, _cut_off, _overwritten])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_ledger_is_unavailable(path: Path, spoil: Callable[[Path], None], create: bool) -> None:
    spoil(path)
    with pytest.raises(LedgerUnavailable) as caught:
        ledger = Ledger(opened(f"sqlite:///{path}", create=create))
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


def test_a_full_ledger_is_unavailable_and_stays_whole(database: Database, ledger: Ledger) -> None:
    make(ledger)
    database.close()

    def limit(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    event.listen(database.engine, "connect", limit)
    written = 0
    with pytest.raises(LedgerUnavailable, match="the ledger is full") as caught, ledger.claim("t-1") as claim:
        for written in range(50):  # noqa: B007 - how many went in is what counts
            ledger.apply("t-1", Change("step", EventBody(note="x" * 2000)), claim=claim, at=NOW)
    assert "space" in caught.value.hint
    event.remove(database.engine, "connect", limit)
    database.close()
    assert whole(ledger)
    assert len(file_of(ledger).events) == written + 1


@pytest.mark.parametrize("table", ["events", "observations"])
def test_nor_does_our_own_code_replace_a_line_of_them(database: Database, ledger: Ledger, table: str) -> None:
    # SQLite runs delete triggers for REPLACE only where it is told to
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    with pytest.raises(LedgerUnavailable, match=f"{table} is append-only"):
        database.write(lambda c: c.execute(text(f"REPLACE INTO {table} SELECT * FROM {table}")))


# -- the schema -------------------------------------------------------------------------------------------


def test_the_migrations_make_the_checks_and_keys_of_the_models(database: Database, tmp_path: Path) -> None:
    # what the comparison above does not look at: CHECKs, primary keys and partial indexes, as SQLite holds them
    other = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    schema.metadata.create_all(other)
    others = "'alembic_version', 'sqlite_stat1'"
    query = text(f"SELECT type, name, sql FROM sqlite_master WHERE name NOT IN ({others}) AND type != 'trigger'")
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


@pytest.mark.parametrize(("mode", "then"), [(0o666, 0o660), (0o644, 0o640), (0o660, 0o660), (0o600, 0o600)])
def test_a_ledger_that_is_there_is_nobody_elses_any_more(tmp_path: Path, mode: int, then: int) -> None:
    """A file that somebody made beforehand, or that was copied with a careless umask."""
    path, link = tmp_path / "real.db", tmp_path / "ledger.db"
    first = opened(str(path), create=True)
    with first.read():
        for one in tmp_path.iterdir():
            one.chmod(mode)
        link.symlink_to(path)
        with opened(str(link), create=False).read():
            modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert set(modes.values()) == {then}
    assert {"real.db-wal", "real.db-shm"} <= set(modes)


def test_an_empty_file_that_was_put_there_is_tightened_before_anything_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    path.chmod(0o666)
    opened(str(path), create=True)
    assert path.stat().st_mode & 0o777 == 0o660


def test_a_ledger_that_everybody_may_replace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened(str(path), create=True)
    tmp_path.chmod(0o777)
    with pytest.raises(LedgerUnavailable, match="the ledger is not safe: others may write into"):
        opened(str(path), create=False)
    tmp_path.chmod(0o1777)
    opened(str(path), create=False)
