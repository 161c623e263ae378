"""A ledger in a SQLite file, for one machine and one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from jitvault.errors import LedgerFull, LedgerUnavailable, MissingLedger
from jitvault.ledger.storage.commit_mark import CommitMark
from jitvault.ledger.storage.dialect import from_json, to_json
from jitvault.ledger.storage.group_commit import GroupCommit

BUSY_TIMEOUT_MS = 10_000
_TRIES = 3
_URL_HINT = "Write sqlite:////path/to/file."
_WAL_RETRY_PAUSE_S = 0.02
# Each thread and loop of a worker may read at any moment. A connection beyond the pool is opened and closed for one
# read, which takes longer than the read itself.
_POOL = {"pool_size": 32, "max_overflow": 32}

T = TypeVar("T")


class SqliteStore:
    """`jitvault.ledger.storage.dialect.Store` on SQLite.

    `exclusive` opens the file so that no other process may have it open.
    """

    def __init__(self, url: URL, *, exclusive: bool = False) -> None:
        pool: dict[str, Any] = {"poolclass": NullPool} if exclusive else _POOL
        timeout = {"timeout": BUSY_TIMEOUT_MS / 1000}
        as_json: dict[str, Any] = {"json_serializer": to_json, "json_deserializer": from_json}
        self.engine = create_engine(url, connect_args=timeout, **as_json, **pool)
        if exclusive:
            event.listen(self.engine, "connect", _exclusive)
        event.listen(self.engine, "connect", _on_connect)
        self.group = GroupCommit(self._transaction)
        # an exclusive file has one connection at a time
        self._mark = None if exclusive else CommitMark(self.engine.connect, "PRAGMA data_version")

    def mark(self) -> Hashable | None:
        """Return what every commit by another connection changes."""
        return self._mark and self._mark.read()

    def close(self) -> None:
        if self._mark is not None:
            self._mark.close()
        self.engine.dispose()

    def write(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        """Run `unit` in one transaction, perhaps with those of other threads.

        SQLite begins IMMEDIATE, because a deferred transaction that turns into a writer fails when another one wrote in
        between. A unit that still meets a busy database is run again whole, from its reads.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return self.group.write(unit)
            except OperationalError as error:
                if "locked" in str(error.orig) and attempt < _TRIES:
                    continue
                raise _translated(error) from None
            except (DatabaseError, PoolTimeout) as error:
                raise _translated(error) from None
        raise AssertionError("unreachable")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect() as connection, connection.begin():
            _begin(connection, "BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection, connection.begin() as transaction:
                _begin(connection, "BEGIN")
                yield connection
                transaction.rollback()
        except (DatabaseError, PoolTimeout) as error:
            raise _translated(error) from None


def checked(url: URL) -> URL:
    """Return the URL, with nothing changed.

    Raises LedgerUnavailable for what cannot be a ledger.
    """
    if url.drivername not in ("sqlite", "sqlite+pysqlite") or url.query:
        # an option can make the ledger one in memory, or change how long a writer waits
        raise LedgerUnavailable(
            "the URL of a ledger on SQLite begins with sqlite: and has no `?` options", hint=_URL_HINT
        )
    if not url.database or url.database == ":memory:":
        raise LedgerUnavailable("a ledger in memory would be lost when the command exits", hint="Name a file.")
    return url


def prepare(file: Path, *, create: bool) -> None:
    """Make sure that the file exists and is private.

    Only its owner can read it, or members of the group to which its owner gave it. A missing file is made where
    `create` is true. Raises LedgerUnavailable.
    """
    try:
        if file.exists():
            _keep_others_out(file)
            if file.stat().st_size > 0:
                return
        if not create:
            raise MissingLedger(f"there is no ledger at {file}")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
    except OSError as error:
        raise LedgerUnavailable(f"the ledger {file} cannot be created: {error.strerror}") from None


def _keep_others_out(file: Path) -> None:
    """Remove the rights of others on an existing ledger.

    Its group keeps its rights: a worker and auditors may share a ledger in that way. Raises LedgerUnavailable where
    everyone may write the ledger and it belongs to another user, or where everyone may replace its file.
    """
    file = file.resolve()
    directory = file.parent.stat()
    if directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
        raise LedgerUnavailable(
            f"the ledger is not safe: others may write into {file.parent}", hint=f"chmod o-w {file.parent}"
        )
    # the write-ahead log and its index are made with the mode of the ledger
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        with suppress(FileNotFoundError):
            found = path.stat()
            if found.st_mode & stat.S_IRWXO == 0:
                continue
            if os.geteuid() in (0, found.st_uid):
                path.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IRWXO)
            elif found.st_mode & stat.S_IWOTH:
                raise LedgerUnavailable(
                    f"the ledger is not safe: everybody may write {path}", hint=f"Its owner runs: chmod o= {path}"
                )


def _exclusive(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")


def _on_connect(connection: Any, _record: object) -> None:
    # the driver must not begin transactions by itself: `_begin` does
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _keep_a_write_ahead_log(cursor)
    # NORMAL would lose committed intents in a power failure
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # without this, REPLACE bypasses the triggers that keep tables append-only
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.close()


def _keep_a_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Switch the file to write-ahead logging, waiting for other processes.

    Several processes that make a ledger at once all switch a new file. SQLite lets one of them do it, and tells the
    others at once that the file is locked, whatever their busy time-out.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_PAUSE_S)
        else:
            return


def _begin(connection: Connection, how: str) -> None:
    # Through the driver: a grant makes dozens of reads, and SQLAlchemy's layer costs more than most of them.
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute(how)
    except sqlite3.OperationalError as error:
        raise OperationalError(how, None, error) from error
    except sqlite3.Error as error:
        raise DatabaseError(how, None, error) from error


def _translated(error: Exception) -> LedgerUnavailable:
    reason = str(getattr(error, "orig", None) or error)
    # SHMSIZE: the disk has no room for the index of SQLite's log
    if "full" in reason or getattr(getattr(error, "orig", None), "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
        return LedgerFull(f"the ledger is full: {reason}")
    return LedgerUnavailable(f"the ledger cannot be used: {reason:.200}")
