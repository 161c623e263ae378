"""Vault's database secrets engine, the proof from a PostgreSQL target, and the use of a login for a check.

Why a probe has to look at PostgreSQL itself: docs/vault-facts.md, "Revocation". A no-op revocation statement gives
204 and "invalid lease" while the role still logs in, and `DROP ROLE` leaves its open sessions running.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jitvault.domain.access import Capability
from jitvault.domain.confirmation import Probed
from jitvault.errors import InvalidInput, NotConfirmed, UsageError
from jitvault.ports.engine import Login, Read

if TYPE_CHECKING:
    import psycopg

_PASSES = 40
_CLEAN_PASSES = 2
_TERMINATE_WAIT_MS = 500
CONNECT_S = 5
# all questions together; a server that hangs keeps the connection open and says nothing
ANSWERS_S = 15

# sessions of roles that no longer exist: `usename` is NULL for them, so the role's oid is looked for
_ORPHANED = """
    SELECT pid FROM pg_stat_activity
    WHERE usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles) AND pid <> pg_backend_pid()
"""
_LIVING = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
_RIGHTS = "SELECT pg_has_role(current_user, 'pg_signal_backend', 'USAGE')"
_NEEDED = "pg_signal_backend"
_OWN = """
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
           ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                 WHERE m.member = r.oid ORDER BY 1)
    FROM pg_roles r WHERE rolname = current_user
"""
_ATTRIBUTES = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")
_REVOCATION = "Correct the role's revocation_statements in Vault; the shipped templates' comments have them."
_SESSIONS = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY(%s) GROUP BY usename"


class DatabaseEngine:
    """`jitvault.ports.engine.Engine` for `database/` mounts."""

    name: str = "database"
    capability: Capability = "read"
    non_hmac_response_keys: tuple[str, ...] = ("username",)
    remedies: Mapping[str, str] = {
        "used": "Does the probe look at the server and database that the role's connection has, and may the new role "
        "connect there?",
        "probe_rights": "GRANT pg_signal_backend TO the probe's login.",
        "probe_sees_it": "Point the probe's dsn in jitvault/probes/ at the server that the role's connection has.",
        "revoked": "Vault's login needs pg_signal_backend and ADMIN on every role that it gives away; correct that or "
        "the role's revocation_statements.",
        "session_ended": f"{_REVOCATION} They need pg_terminate_backend before DROP ROLE.",
        "login_refused": f"{_REVOCATION} They need DROP ROLE.",
        "probe_sees_end": _REVOCATION,
    }

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        kind, _, role = path.partition("/")
        if kind != "creds" or not role or "/" in role:
            raise InvalidInput(f"a database template's path is creds/<role>, not {path}")
        answer = read(f"{mount}/roles/{role}")
        if answer is None:
            raise InvalidInput(
                f"Vault has no role {mount}/roles/{role}",
                hint="An administrator creates it: the template's comment has the statements.",
            )
        data: dict[str, Any] = dict(answer["data"])
        connection = read(f"{mount}/config/{data['db_name']}")
        return {"role": data, "connection": _without_moving_parts(connection)}

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return (f"{mount}/roles/{path.partition('/')[2]}", f"{mount}/config/*")

    def probe(self, where: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Probed]:
        with _probing(str(where["dsn"])) as target:
            ended = _end_orphaned(target)
            return _look(target, list(names), ended)

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        with _probing(str(where["dsn"])) as target:
            row = target.execute(_RIGHTS).fetchone()
        return () if row and row[0] else (_NEEDED,)

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        with _probing(str(where["dsn"])) as target:
            row = target.execute(_OWN).fetchone()
        if row is None:
            raise NotConfirmed("the probe's own role is not in pg_roles")
        name, *flags, groups = row
        attributes = [word for word, given in zip(_ATTRIBUTES, flags, strict=True) if given]
        return Login(str(name), (*attributes, *groups), (*attributes, *(g for g in groups if g != _NEEDED)))

    @contextmanager
    def use(self, where: Mapping[str, Any], issued: Mapping[str, Any]) -> Iterator[_Session]:
        session = _Session(str(where["dsn"]), issued)
        try:
            yield session
        finally:
            session.close()


class _Session:
    """`jitvault.ports.engine.Used`: a login of the issued role, where the probe looks."""

    sessions = 1

    def __init__(self, dsn: str, issued: Mapping[str, Any]) -> None:
        """Raises NotConfirmed when the target refuses the login or a statement."""
        self._dsn, self._user, self._password = dsn, str(issued["username"]), str(issued["password"])
        self._open = self._login()
        try:
            self._open.execute("SELECT 1")
        except _driver().Error as error:
            self.close()
            raise NotConfirmed(f"the new login cannot run a statement ({type(error).__name__})") from None

    def still_works(self) -> bool:
        with suppress(_driver().Error):
            self._open.execute("SELECT 1")
        # a session of a dropped role goes on, and some statements fail in it: only its end counts
        return not self._open.closed

    def works_anew(self) -> bool:
        try:
            again = self._login()
        except NotConfirmed:
            # a target that is away lets nobody in either: the probe that asks next finds that out
            return False
        again.close()
        return True

    def close(self) -> None:
        self._open.close()

    def _login(self) -> psycopg.Connection[Any]:
        driver = _driver()
        try:
            # as the probe connects, only as somebody else
            session: psycopg.Connection[Any] = driver.connect(
                self._dsn,
                user=self._user,
                password=self._password,
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="jitvault-check",
            )
        except driver.Error as error:
            raise NotConfirmed(f"the target refuses the new login ({type(error).__name__})") from None
        return session


def _driver() -> ModuleType:
    try:
        import psycopg
    except ImportError:
        raise UsageError("asking PostgreSQL needs psycopg", hint="pip install 'jitvault[postgres]'") from None
    return psycopg


@contextmanager
def _probing(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """The probe's own session. Raises NotConfirmed, whatever the target or the driver says."""
    psycopg = _driver()
    try:
        with (
            psycopg.connect(
                dsn, autocommit=True, connect_timeout=CONNECT_S, application_name="jitvault-probe"
            ) as target,
            _for_so_long(target, ANSWERS_S),
        ):
            yield target
    except psycopg.Error as error:
        # the message can hold the connection string, so only the kind of the failure is told
        raise NotConfirmed(f"the probe could not ask the target ({type(error).__name__})") from None


@contextmanager
def _for_so_long(target: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """End the connection after so many seconds: neither the client nor the kernel notices a server that hangs."""

    def hang_up() -> None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    # a descriptor of its own: the connection's may be closed, and be another file's by then
    with socket.socket(fileno=os.dup(target.fileno())) as line:
        timer = threading.Timer(seconds, hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _end_orphaned(target: psycopg.Connection[Any]) -> int:
    """End the sessions of dropped roles until two passes in a row find none; how many were ended.

    One pass is not enough: a client that reconnects in a loop can get in between `pg_terminate_backend` and
    `DROP ROLE`.
    """
    ended, clean = 0, 0
    for _ in range(_PASSES):
        pids = [row[0] for row in target.execute(_ORPHANED).fetchall()]
        clean = 0 if pids else clean + 1
        if clean == _CLEAN_PASSES:
            return ended
        for pid in pids:
            done = target.execute("SELECT pg_terminate_backend(%s, %s)", (pid, _TERMINATE_WAIT_MS)).fetchone()
            ended += 1 if done and done[0] else 0
    raise NotConfirmed("sessions of dropped roles keep appearing at the target")


def _look(target: psycopg.Connection[Any], usernames: list[str], ended: int) -> dict[str, Probed]:
    living = {row[0] for row in target.execute(_LIVING, (usernames,)).fetchall()}
    sessions = dict(target.execute(_SESSIONS, (usernames,)).fetchall())
    return {
        name: Probed(
            refused=name not in living,
            open_sessions=sessions.get(name, 0),
            evidence=(
                f"role {name} {'still exists' if name in living else 'does not exist'}, "
                f"{sessions.get(name, 0)} of its sessions open; {ended} sessions of dropped roles ended, "
                f"then {_CLEAN_PASSES} passes found none"
            ),
        )
        for name in usernames
    }


def _without_moving_parts(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The connection's configuration; Vault leaves the password out of it."""
    if connection is None:
        return {}
    data = dict(connection["data"])
    details = dict(data.get("connection_details") or {})
    for secret in ("password", "private_key", "tls_certificate_key"):
        details.pop(secret, None)
    return {**data, "connection_details": details}
