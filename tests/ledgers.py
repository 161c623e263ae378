"""Where tests keep their ledgers: in a file of SQLite's, or in a database of a real PostgreSQL, one for each test.

A place is the file's path, or the URL by which a worker uses the database. Its login has the rights that
`jitvault ledger grants` prints and no others, so every test on PostgreSQL shows that they are enough.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url

from jitvault.ledger.storage import sqlite
from jitvault.ledger.storage.database import raw, upgrade
from jitvault.ledger.storage.rights import grants
from jitvault.sandbox.postgres import Postgres

LedgerPlace = Path | str
WANTED = os.environ.get("JITVAULT_TEST_LEDGER", "sqlite")
"""Where the tests of the whole product keep them; those of the ledger itself run on both."""

_MADE = "jitvault_ledger"
_WORKER = "ledger_worker"
_OWNERS: dict[int, tuple[str, str]] = {}
"""The owner of the ledgers on each port, and the password."""


def compile_statements_once() -> None:
    """Let all ledgers on SQLite of this process share the statements that SQLAlchemy compiled.

    A command is a process of its own elsewhere. Here thousands of them run in one, each with an engine of its own, and
    compiling took a quarter of their time. The cache goes by the dialect, so those of two engines have to be equal.
    """
    SQLiteDialect_pysqlite.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]
    SQLiteDialect_pysqlite.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    sqlite.create_engine = partial(create_engine, execution_options={"compiled_cache": {}})  # type: ignore[assignment]


class Shelf:
    """Ledgers on one PostgreSQL. Each is a copy of one that was made once, which takes a fifth of the time."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._password = secrets.token_urlsafe(16)
        self._has_one = False

    def new(self) -> str:
        """The URL by which a worker uses a new ledger with nothing in it."""
        if not self._has_one:
            self._run(f"CREATE DATABASE {_MADE}")
            database = raw(self._url(_MADE))
            upgrade(database)
            database.close()
            self._run(f"CREATE ROLE {_WORKER} LOGIN PASSWORD '{self._password}'")
            allow(self._url(_MADE), _WORKER, writes=True)
            self._has_one = True
        name = f"ledger_{secrets.token_hex(6)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {_MADE}")
        _OWNERS[self.server.port] = (self.server.superuser, self.server.superuser_password)
        return self._url(name, _WORKER, self._password)

    def empty(self) -> str:
        """The URL of a new database without a ledger, for its owner."""
        name = f"empty_{secrets.token_hex(6)}"
        self._run(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str, login: str = "", password: str = "") -> str:
        server = self.server
        # sent in plain, so that a test can see what goes over the wire
        login = f"{login or server.superuser}:{password or server.superuser_password}"
        return f"postgresql://{login}@{server.host}:{server.port}/{name}?sslmode=disable"

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute(statement)


def owner_of(place: str) -> str:
    """The URL by which its owner uses a ledger that a `Shelf` made."""
    url = make_url(place)
    if url.username != _WORKER:
        return place
    name, password = _OWNERS[url.port or 0]
    return url.set(username=name, password=password).render_as_string(hide_password=False)


def allow(place: str, login: str, *, writes: bool) -> None:
    """Run what `jitvault ledger grants` prints for a login, as the owner."""
    with psycopg.connect(owner_of(place), autocommit=True) as connection:
        connection.execute("; ".join(grants(login, writes=writes)).encode())


@cache
def shelf_of(server: Postgres) -> Shelf:
    return Shelf(server)


@cache
def _own_server() -> Postgres:
    """One that is no test's target, which tests stop: for a run in which all ledgers are on PostgreSQL."""
    directory = TemporaryDirectory(prefix="jitvault-ledgers-", ignore_cleanup_errors=True)
    server = Postgres(Path(directory.name))
    server.start()
    atexit.register(lambda: (server.stop(), directory.cleanup()))
    return server


def new_place(server: Postgres, file: Path, kind: str = WANTED) -> LedgerPlace:
    """A new ledger, as `jitvault ledger upgrade` makes it: in `file`, or on `server`."""
    if kind != "postgresql":
        return new_file(file)
    return shelf_of(_own_server() if WANTED == "postgresql" else server).new()


def bind(place: LedgerPlace, installation: str) -> LedgerPlace:
    """Make a new ledger one that a worker of this installation has used.

    Otherwise its first worker takes it for a new one beside a lost one, since other tests left tasks in Vault.
    """
    ask(place, "INSERT INTO installation (one, id, generation) VALUES (1, ?, 0)", [installation])
    return place


def new_file(file: Path) -> Path:
    """A new ledger in `file`: a copy of one that was made once, which takes a tenth of the time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    copyfile(_made_file(), file)
    file.chmod(0o600)
    return file


@cache
def _made_file() -> Path:
    directory = TemporaryDirectory(prefix="jitvault-ledgers-", ignore_cleanup_errors=True)
    file = Path(directory.name) / "ledger.db"
    database = raw(str(file))
    upgrade(database)
    database.close()
    atexit.register(directory.cleanup)
    return file


def kind_of(ledger: str) -> str:
    """By what JITVAULT_LEDGER says; where it says nothing the tests' own choice."""
    return "postgresql" if ledger.startswith("postgresql:") else WANTED


def has_table(place: LedgerPlace, table: str) -> bool:
    if isinstance(place, Path):
        return place.exists() and bool(ask(place, "SELECT 1 FROM sqlite_master WHERE name = ?", [table])[0])
    return bool(ask(place, "SELECT 1 FROM pg_tables WHERE tablename = ?", [table])[0])


def address(place: LedgerPlace) -> str:
    """What JITVAULT_LEDGER says of it."""
    return place if isinstance(place, str) else f"sqlite:///{place}"


def place_of(ledger: str) -> LedgerPlace:
    """Where JITVAULT_LEDGER says that it is."""
    return Path(ledger.removeprefix("sqlite:///")) if ledger.startswith("sqlite:") else ledger


def ask(
    place: LedgerPlace, statement: str, values: Sequence[object] = (), *, keys: bool = True
) -> tuple[list[Any], int]:
    """What somebody with the database and a program for it can do: gives the rows and the number of those that changed.

    `?` stands for a value. Without `keys` what refers to a row that is not there is taken as well.
    """
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as file, file:
            file.execute(f"PRAGMA foreign_keys = {'ON' if keys else 'OFF'}")
            done = file.execute(statement, values)
            return done.fetchall(), done.rowcount
    with psycopg.connect(owner_of(place), options="-c timezone=UTC") as connection:
        if not keys:
            connection.execute("SET session_replication_role = replica")
        cursor = connection.execute(statement.replace("?", "%s").encode(), values or None)
        return (cursor.fetchall() if cursor.description else []), cursor.rowcount
