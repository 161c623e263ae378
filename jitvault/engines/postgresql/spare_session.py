"""Keep a session open at a PostgreSQL server as a reserve.

It is for when nobody gets in any more. One login can fill the server's lock table, and strangers can take every
connection. Then a session that is open already still works, as long as it needs no new entry of the lock table. So
the kept session stays in a transaction that has read everything that a probe reads, and has the locks for that
(AccessShareLock on shared catalogs). It keeps no old row versions alive, and it releases its locks as soon as
another session waits for one of them.

What was measured: docs/vault-facts.md, "One login against the whole server".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jitvault.engines.postgresql import client, sessions
from jitvault.engines.postgresql.refusal import error_of
from jitvault.errors import NotConfirmed

if TYPE_CHECKING:
    import psycopg

_SETTINGS = ("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout")
_SET = """
    SELECT pg_catalog.set_config(name, '0'::pg_catalog.text, false) FROM pg_catalog.pg_settings
    WHERE name OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])
"""
_MEMBERS = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_auth_members"
# The sessions that wait for one of our locks, and whether Vault made their login, or the login is gone; and those of
# Vault's logins that wait for a whole catalog, or a database. CREATE RULE, CREATE TRIGGER and DROP DATABASE do before
# they ask whether their user may, and everybody waits behind them: every new login, or every revocation.
_WAITING = f"""
    SELECT a.usesysid, coalesce(r.rolname::pg_catalog.text, 'a login that is gone'::pg_catalog.text),
        a.usesysid IS NOT NULL AND (r.oid IS NULL
        OR r.rolname OPERATOR(pg_catalog.~) '{client.VAULTS_LOGINS}'::pg_catalog.text)
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.usesysid
    WHERE NOT l.granted
    AND (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(l.pid))
        OR l.mode OPERATOR(pg_catalog.~) '^(Share|ShareRowExclusive|Exclusive|AccessExclusive)Lock$'::pg_catalog.text
        AND (l.relation OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid
            OR l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass::pg_catalog.oid)
        AND r.rolname OPERATOR(pg_catalog.~) '{client.VAULTS_LOGINS}'::pg_catalog.text)
"""  # noqa: S608 - only the constant goes in
# How many locks each session has whose login Vault made, or whose login is gone; and the least size of the lock
# table. A session with few locks is no reason for anything. What a session keeps for itself (fast path), and what
# serializable isolation remembers (SIReadLock), is not in the table that all sessions share.
_HOLDERS = f"""
    SELECT l.pid, a.usesysid, coalesce(r.rolname::pg_catalog.text, 'a login that is gone'::pg_catalog.text),
        pg_catalog.count(*), pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8
        OPERATOR(pg_catalog.*) pg_catalog.current_setting('max_connections')::pg_catalog.int8
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.usesysid
    WHERE a.usesysid IS NOT NULL AND NOT l.fastpath
    AND l.mode OPERATOR(pg_catalog.<>) 'SIReadLock'::pg_catalog.text
    AND (r.oid IS NULL OR r.rolname OPERATOR(pg_catalog.~) '{client.VAULTS_LOGINS}'::pg_catalog.text)
    GROUP BY 1, 2, 3
"""  # noqa: S608 - only the constant goes in
_SESSIONS_OF = """
    SELECT pid, usesysid FROM pg_catalog.pg_stat_activity
    WHERE usesysid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[])
"""
OUT_S = 10.0
"""How long a login that held too many locks is thrown out, since it last did."""
_LOOK_S = 5.0
_FULL = 2
_MANY = 50
"""Which part of the lock table is too much for all such sessions together, and which makes one of them a holder."""


class SpareSession:
    """One kept session for each server, shared by the threads of a process."""

    def __init__(self) -> None:
        self._sessions: dict[str, psycopg.Connection[Any]] = {}
        self._thrown_out: dict[str, dict[int, tuple[str, float]]] = {}
        """By server, and by oid of the login: the login's name, and until when."""
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        """One lock for each server: a server that hangs keeps no thread from another server."""

    def keep(self, dsn: str) -> tuple[str, ...]:
        """Open the session if it is not; return the logins that are thrown out.

        Those logins held every lock. Raises NotConfirmed if the server lets nobody in.
        """
        with self._turn(dsn):
            if dsn not in self._sessions:
                self._sessions[dsn] = _opened(dsn)
            with self._asking(dsn, _LOOK_S) as target:
                if not _is_held(target):
                    _hold(target)
                sessions.clear(target)
                waiting = target.execute(_WAITING).fetchall()
                if any(not is_agents for _, _, is_agents in waiting):
                    # the waiting session gets the lock before we ask again
                    target.execute("COMMIT")
                    return ()
                with target.transaction():
                    return self._throw_out(dsn, target, {oid: name for oid, name, _ in waiting})

    @contextmanager
    def session(self, dsn: str) -> Iterator[psycopg.Connection[Any] | None]:
        """Yield the session at a server, or None.

        Raises NotConfirmed if it ends meanwhile.
        """
        with self._turn(dsn):
            if dsn not in self._sessions:
                yield None
                return
            with self._asking(dsn) as target, target.transaction():
                yield target

    def close(self) -> None:
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _turn(self, dsn: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(dsn, threading.Lock())

    def _throw_out(self, dsn: str, target: psycopg.Connection[Any], waiting: dict[int, str]) -> tuple[str, ...]:
        """End each session of a login that waits for us or held too many locks.

        It is repeated for a while, since a client comes back sooner than others get in.
        """
        now = time.monotonic()
        kept_out = self._thrown_out.get(dsn, {})
        for oid, name in (waiting | _holders(target)).items():
            kept_out[oid] = (name, now + OUT_S)
        self._thrown_out[dsn] = {oid: entry for oid, entry in kept_out.items() if entry[1] > now}
        out = {oid: name for oid, (name, _) in self._thrown_out[dsn].items()}
        if out:
            for pid, oid in target.execute(_SESSIONS_OF, (list(out),)).fetchall():
                sessions.end_session(target, pid, oid)
        return tuple(sorted(set(out.values())))

    @contextmanager
    def _asking(self, dsn: str, seconds: float = client.ANSWERS_S) -> Iterator[psycopg.Connection[Any]]:
        target = self._sessions[dsn]
        try:
            with client.for_so_long(target, seconds):
                yield target
        except client.driver().Error as error:
            self._sessions.pop(dsn).close()
            raise NotConfirmed(f"the session that is kept at the target ended ({type(error).__name__})") from None


def _opened(dsn: str) -> psycopg.Connection[Any]:
    driver = client.driver()
    try:
        target = client.connected(dsn, "jitvault-kept")
        for setting in client.SETTINGS:
            target.execute(setting)
        target.execute(_SET, (list(_SETTINGS),))
    except driver.Error as error:
        raise error_of("no session can be kept at the target", error, dsn) from None
    return target


def _is_held(target: psycopg.Connection[Any]) -> bool:
    from psycopg.pq import TransactionStatus

    return target.info.transaction_status is TransactionStatus.INTRANS


def _hold(target: psycopg.Connection[Any]) -> None:
    """Begin the transaction, and take every lock that a probe needs."""
    target.execute("BEGIN")
    sessions.look(target)
    target.execute(_MEMBERS)
    target.execute(_HOLDERS)
    target.execute(_WAITING)


def _holders(target: psycopg.Connection[Any]) -> dict[int, str]:
    """Return the logins of sessions that leave others too few locks.

    They are keyed by oid, and hold the locks together.
    """
    sessions.clear(target)
    found = target.execute(_HOLDERS).fetchall()
    if not found or sum(row[3] for row in found) * _FULL < found[0][4]:
        return {}
    return {oid: name for _, oid, name, many, room in found if many * _MANY > room}
