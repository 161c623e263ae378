"""A ledger in a PostgreSQL database, for any number of workers.

SQLite has one writer at a time; here two kinds of transactions give the guarantees that follow from that. Transactions
that change a task lock its row and run in parallel. Transactions that ingest the audit stream, or that check whether
something exists before they write it, run alone (`alone`): no transaction runs whose changes they could miss, or that
could miss theirs.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jitvault.backoff import doubled, jittered
from jitvault.errors import LedgerFull, LedgerUnavailable, LedgerUnreachable
from jitvault.ledger.storage.commit_mark import CommitMark
from jitvault.ledger.storage.dialect import from_json, to_json
from jitvault.ledger.storage.rights import login_of, refusal

# how long to wait for a server that went away, and for each lock
PATIENCE_S = 10.0
LOCK_TIMEOUT_MS = 10_000
STATEMENT_TIMEOUT_MS = 60_000
# a process that is paused within a transaction would block all others
IDLE_TIMEOUT_MS = 15_000
_TRIES = 8
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# the ledger's own number among the advisory locks of the database
_LOCK = 0x6A69_7476
_CHANNEL = "jitvault"
# serialization failure, deadlock, and a row that another transaction inserted after this one found it missing
_RETRIED = frozenset({"40001", "40P01", "23505"})
_LOCK_TIMEOUT = "55P03"
_FULL = frozenset({"53100", "53200"})
_NOT_ALLOWED = "42501"
# connections are refused or ended: the server shuts down, starts up or failed over, or has too many of them
_UNREACHABLE = frozenset({"57P01", "57P02", "57P03", "57P05", "25006", "53300"})

T = TypeVar("T")


class PostgresStore:
    """`jitvault.ledger.storage.dialect.Store` on PostgreSQL."""

    def __init__(self, url: URL) -> None:
        self._secret = url.password
        self._was_reached = False
        settings = {
            "timezone": "UTC",
            "lock_timeout": LOCK_TIMEOUT_MS,
            "statement_timeout": STATEMENT_TIMEOUT_MS,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        own_options = url.query.get("options", "")
        arguments = {
            "connect_timeout": 10,
            "application_name": "jitvault",
            # notices a server that vanished without closing its connections
            "keepalives_idle": 10,
            "tcp_user_timeout": 20_000,
            **{name: value for name, value in url.query.items() if name != "options"},
            "options": f"{options} {own_options if isinstance(own_options, str) else ' '.join(own_options)}".strip(),
            # no prepared statements: a pooler in between may hand the connection to another client
            "prepare_threshold": None,
        }
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg", query={}),
            connect_args=arguments,
            json_serializer=to_json,
            json_deserializer=from_json,
            # One for each thread of a worker: others are closed and reopened, several times for each task.
            pool_size=16,
            max_overflow=16,
            pool_timeout=PATIENCE_S,
        )
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "checkout", _on_checkout)
        # The end of the server's log. Other databases of the server move it as well, which costs a look.
        self._mark = CommitMark(self._connected_for_marks, "SELECT pg_current_wal_insert_lsn()::text")

    def mark(self) -> Hashable | None:
        """Return what every commit changes."""
        return self._mark.read()

    def close(self) -> None:
        self._mark.close()
        self.engine.dispose()

    def _connected_for_marks(self) -> Connection:
        return self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def listener(self) -> Listener:
        """Return what hears of the commits that ran alone, of all processes."""
        return Listener(self._connected_for_marks)

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        """Run `unit` in a transaction, again whole where another one interfered.

        Also after the server went away. Where the answer to a commit was lost, the server itself is asked by the
        transaction's number whether it was committed.
        """
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return self._written(unit, alone=alone)
            except (DBAPIError, PoolTimeout) as error:
                if not self._is_retried(error, tries, time.monotonic() - began):
                    raise self._translated(error, writes=True) from None
            time.sleep(jittered(doubled(_FIRST_PAUSE_S, tries, _LONGEST_PAUSE_S)))

    def _written(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        number_of_this = "pg_current_xact_id()::text"
        first = text(f"SELECT pg_advisory_xact_lock_shared({_LOCK}), {number_of_this}")
        if alone:
            first = text(f"SELECT pg_advisory_xact_lock({_LOCK}), {number_of_this}, pg_notify('{_CHANNEL}', '')")
        with self.engine.connect() as connection:
            number: str = connection.execute(first).one()[1]
            value = unit(connection)
            try:
                connection.commit()
            except DBAPIError as error:
                if not _is_lost(error):
                    raise
                unanswered = error
            else:
                return value
        if not self._was_committed(number):
            raise unanswered
        return value

    def _was_committed(self, number: str) -> bool:
        """Return what became of a commit that was sent and not answered.

        Raises LedgerUnavailable where the server does not say.
        """
        query = text("SELECT pg_xact_status(CAST(:number AS xid8))")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with self.engine.connect() as connection:
                    found = connection.execute(query, {"number": number}).scalar()
            except DBAPIError:
                found = None
            if found in ("committed", "aborted"):
                return bool(found == "committed")
            time.sleep(0.1)
        raise LedgerUnavailable(
            "the ledger's server went away during a commit: the change may or may not be written",
            hint="Run the command again: it continues from what the ledger has.",
        )

    def _is_retried(self, error: Exception, tries: int, waited_s: float) -> bool:
        code = _code(error)
        if code in _RETRIED:
            return tries < _TRIES
        if code == _LOCK_TIMEOUT:
            return tries < 3
        return self._was_reached and waited_s < PATIENCE_S and (_is_lost(error) or code in _UNREACHABLE)

    # -- reading ---------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        try:
            with self._connected() as connection, connection.begin() as transaction:
                yield connection
                transaction.rollback()
        except (DBAPIError, PoolTimeout) as error:
            raise self._translated(error, writes=False) from None

    def _connected(self) -> Connection:
        """Return a connection with an unchanging view of its own.

        Waits for a server that went away, if it was reached before.
        """
        began = time.monotonic()
        while True:
            try:
                connection = self.engine.connect()
            except DBAPIError:
                if not self._was_reached or time.monotonic() - began > PATIENCE_S:
                    raise
                time.sleep(0.1)
            else:
                self._was_reached = True
                return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def _translated(self, error: Exception, *, writes: bool) -> LedgerUnavailable:
        code = _code(error)
        cause = getattr(error, "orig", None)
        if code in _FULL:
            return LedgerFull("the ledger is full: its server has no room")
        if code == _NOT_ALLOWED and (refused := self._refused(writes=writes)) is not None:
            return refused
        # only the primary message: the details of a refusal show rows
        reason = getattr(getattr(cause, "diag", None), "message_primary", None) or " ".join(str(cause or error).split())
        if self._secret:
            reason = reason.replace(str(self._secret), "***")
        kind = LedgerUnreachable if code in _UNREACHABLE or _is_lost(error) else LedgerUnavailable
        return kind(
            f"the ledger cannot be used: {reason:.200}",
            hint="Check its URL (JITVAULT_LEDGER, or --to), and whether its PostgreSQL runs, takes this login and has "
            "free space.",
        )

    def _refused(self, *, writes: bool) -> LedgerUnavailable | None:
        """Return the error that names the rights which the login lacks.

        None where it lacks none that the schema asks for, or the server cannot be asked.
        """
        try:
            with self.engine.connect() as connection:
                login = login_of(connection, writes=writes)
        except (DBAPIError, PoolTimeout):
            return None
        return refusal(login)


class Listener:
    """Hears of announced commits, on a connection of its own. For one thread.

    `connect` opens a connection in which each statement is a transaction of its own.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    def wait(self, within_s: float) -> bool:
        """Wait for a commit; return whether there was one, or may have been one.

        That is so where nothing can be heard: after `within_s` then. Raises nothing.
        """
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
                # what was committed before was not heard
                return True
            driver: Any = self._connection.connection.driver_connection
            ready, _, _ = select.select([driver.pgconn.socket], [], [], within_s)
            if ready:
                # all that came, since one look is about all of it
                driver.pgconn.consume_input()
                while driver.pgconn.notifies() is not None:
                    pass
            return bool(ready)
        except (DBAPIError, PoolTimeout, _driver_error()):
            self.close()
            time.sleep(within_s)
            return True

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # another user of the pool must not hear
            connection.invalidate()
            connection.close()


@cache
def _driver_error() -> type[Exception]:
    from psycopg import Error

    return Error


def checked(url: URL) -> URL:
    """Return the URL, with nothing changed.

    Raises LedgerUnavailable for what cannot be a ledger.
    """
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise LedgerUnavailable("the URL of a ledger on PostgreSQL names no driver", hint="Write postgresql://…")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise LedgerUnavailable(
            "a ledger on PostgreSQL needs psycopg",
            hint="Install jitvault with its extra `postgres`: docs/install.md says how.",
        ) from None
    return url


def _code(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _is_lost(error: Exception) -> bool:
    """Return whether the connection was lost, or none could be made."""
    code = _code(error)
    return getattr(error, "connection_invalidated", False) or (
        type(getattr(error, "orig", None)).__name__ == "OperationalError" and (code is None or code.startswith("08"))
    )


def _on_connect(connection: Any, _record: object) -> None:
    connection.adapters.register_dumper(str, _text_dumper())
    # psycopg keeps announcements for ever until they are asked for, and behind a pooler any connection may hear them
    connection.add_notify_handler(_forget)


def _forget(_announcement: object) -> None:
    """Keep nothing of what another process announced."""


@cache
def _text_dumper() -> type:
    """Return the one dumper class for all connections.

    psycopg keeps what it knows of each class for ever.
    """
    from psycopg.types.string import StrDumper

    class Text(StrDumper):
        """Text of an audit line can hold the one character that PostgreSQL cannot."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))

    return Text


def _on_checkout(connection: Any, _record: object, _proxy: object) -> None:
    """Discard a connection that the server ended.

    A server that ends a connection says so, and nothing else comes unasked: readable data on the socket means the end.
    The look costs no round trip.
    """
    ready, _, _ = select.select([connection.pgconn.socket], [], [], 0)
    if ready:
        raise DisconnectionError("the server ended this connection")
