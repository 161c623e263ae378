"""Opening the ledger: connections, transactions and the schema's version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jitvault.errors import LedgerUnavailable
from jitvault.ledger.group import GroupCommit

HEAD = "0001"
BUSY_TIMEOUT_MS = 10_000
_TRIES = 3
_WRITE = "jitvault_write"

T = TypeVar("T")


class Database:
    """One ledger database. Create it with `opened`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._group = GroupCommit(self._transaction)

    def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in one transaction that holds the write lock from its first statement.

        A deferred transaction that turns into a writer fails when another wrote in between, so SQLite
        begins IMMEDIATE; a unit that still meets a busy database is run again whole, from its reads.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return self._group.write(unit)
            except OperationalError as error:
                if "locked" in str(error.orig) and attempt < _TRIES:
                    continue
                raise _translated(error) from None
            except (DatabaseError, PoolTimeout) as error:
                raise _translated(error) from None
        raise AssertionError("unreachable")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; nothing that is done in it is written."""
        try:
            with self.engine.connect() as connection, connection.begin() as transaction:
                yield connection
                transaction.rollback()
        except (DatabaseError, PoolTimeout) as error:
            raise _translated(error) from None


def opened(url: str, *, create: bool) -> Database:
    """The ledger at the SQLAlchemy URL `url`. A missing SQLite file is created where `create` is true.

    Raises LedgerUnavailable for a URL that cannot be used, a missing ledger, and any schema version but
    ours: an old ledger is never migrated silently.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LedgerUnavailable(
            "JITVAULT_LEDGER is not a database URL", hint="Example: sqlite:////var/lib/jitvault/ledger.db"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise LedgerUnavailable(f"a ledger on {parsed.get_backend_name()} is not supported by this version")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.query:
        # an option can make it a ledger in memory, or change how long a writer waits
        raise LedgerUnavailable("a ledger on SQLite has no driver of its own and no options")
    _prepare_file(parsed.database, create=create)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, json_serializer=_to_json)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    database = Database(engine)
    if create:
        _create(database)
    _check_version(database, url)
    return database


def _to_json(value: object) -> str:
    # most of what is written is JSON, and this is ten times as fast as the standard library's
    return msgspec.json.encode(value).decode()


def ledger_exists(url: str) -> bool:
    """Whether `url` names a SQLite file that is there."""
    try:
        path = make_url(url).database
    except ArgumentError:
        return False
    return bool(path) and Path(path or "").exists()


def _prepare_file(path: str | None, *, create: bool) -> None:
    """See that there is a file that only its owner can read."""
    if not path or path == ":memory:":
        raise LedgerUnavailable("a ledger in memory would be forgotten", hint="Name a file in JITVAULT_LEDGER.")
    file = Path(path)
    try:
        if file.exists() and file.stat().st_size > 0:
            return
        if not create:
            raise LedgerUnavailable(
                f"there is no ledger at {file}",
                hint="The worker makes it with its first task. Auditors get JITVAULT_LEDGER from who runs the worker.",
            )
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
    except OSError as error:
        raise LedgerUnavailable(f"the ledger {file} cannot be created: {error.strerror}") from None


def _on_connect(connection: Any, _record: object) -> None:
    # the driver must not begin by itself: _on_begin says how
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL would lose committed intents when the power fails
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # without it REPLACE passes by the triggers that keep tables append-only
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _create(database: Database) -> None:
    """Make the schema where there is none. Of two processes that start at once the second finds it made.

    The file's size tells nothing: another process may have made the file and not yet the schema, or died then.
    """
    from jitvault.ledger.migrations import upgrade

    def unit(connection: Connection) -> None:
        if _is_empty(connection):
            upgrade(connection)

    with database.read() as connection:
        empty = _is_empty(connection)
    if empty:
        database.write(unit)


def _check_version(database: Database, url: str) -> None:
    with database.read() as connection:
        found = _version(connection)
    if found != HEAD:
        raise LedgerUnavailable(
            f"the ledger has schema version {found or 'none'}, this jitvault needs {HEAD}",
            hint="Use the jitvault that wrote it, or move the file away and start a new ledger.",
        )


def _is_empty(connection: Connection) -> bool:
    return connection.execute(text("SELECT 1 FROM sqlite_master LIMIT 1")).scalar() is None


def _version(connection: Connection) -> str | None:
    there = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).scalar()
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if there else None


def _translated(error: Exception) -> LedgerUnavailable:
    reason = str(getattr(error, "orig", None) or error)
    if "full" in reason:
        return LedgerUnavailable(
            f"the ledger is full: {reason}", hint="Free space on its disk, then run the command again."
        )
    return LedgerUnavailable(f"the ledger cannot be used: {reason:.200}")
