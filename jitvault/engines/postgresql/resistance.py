"""Resist the end of a PostgreSQL login as an agent could.

This is part of a template check. Each way is one that kept a login alive on the real server (docs/vault-facts.md,
"What an agent does at a PostgreSQL target"). The check of an administrator revokes the login meanwhile and looks
what remains. Leaving the context undoes what the login made.
"""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from jitvault.engines.postgresql import client
from jitvault.engines.postgresql.sessions import NAMELESS
from jitvault.errors import NotConfirmed

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGconn

SLEEPER, LOCK, OWNER, MANY = "sleeper_ended", "lock_outlasted", "owner_dropped", "many_ended"
RESISTANCES = {
    SLEEPER: "a connection that sleeps before it has a user",
    LOCK: "a transaction that holds a lock on the login's own role",
    OWNER: "default privileges of the login, and others that another login shares with it and holds",
    MANY: "as many sessions as the login may open",
}
SLEEP_S = 20
"""How long the sleeping connection sleeps: longer than any check, and not for ever should this process be killed."""
_PAUSE_S = 0.02
_LOGIN_S = 5.0
_HANG_UP_S = 2.0
"""How long a connection that was told to end is waited for: its locks are gone before its connection is."""
MOST_SESSIONS = 21
"""How many sessions are tried. A login that may open so many has no useful limit."""


class Sessions:
    """Sessions of the login, one of which does what hinders the revocation.

    Implements `jitvault.engines.interface.Resisting`.
    """

    def __init__(self, seen: str, sessions: list[psycopg.Connection[Any]], unlimited: str = "") -> None:
        self.seen = seen
        self._sessions = sessions
        self._unlimited = unlimited

    def remaining(self) -> str:
        error = client.driver().Error
        for session in self._sessions:
            with suppress(error):
                session.execute("SELECT 1")
        # A statement can fail in a session that lives on: only its end counts.
        alive = sum(not session.closed for session in self._sessions)
        return self._unlimited or (f"{alive} of {len(self._sessions)} sessions are open" if alive else "")


class Sleeper:
    """A connection that passed authentication and sleeps before it has a user.

    Implements `jitvault.engines.interface.Resisting`.
    """

    seen = RESISTANCES[SLEEPER]

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection

    def remaining(self) -> str:
        from psycopg.pq import ExecStatus

        if _poll(self._connection, _HANG_UP_S):
            return "the connection still sleeps: whoever waits for it to wake reads and writes again"
        # a connection that is told to end in its sleep wakes once more before it ends
        try:
            answer = ExecStatus(self._connection.exec_(b"SELECT 1").status)
        except client.driver().Error:
            # the connection is gone
            return ""
        return "the connection woke and can be used" if answer is ExecStatus.TUPLES_OK else ""


@contextmanager
def resist(
    step: str, dsn: str, issued: Mapping[str, Any], other: Mapping[str, Any] | None
) -> Iterator[Sessions | Sleeper]:
    """Resist with the login in the way of `step`.

    `other` is the login of another credential, which is revoked later. Raises NotConfirmed if one cannot log in.
    """
    ways: Mapping[str, Callable[[_Login], Any]] = {SLEEPER: _sleep, LOCK: _lock, MANY: _crowd}
    with ExitStack() as stack:
        login, helper = (
            stack.enter_context(closing(_Login(dsn, str(one["username"]), str(one["password"]))))
            for one in (issued, other or issued)
        )
        yield _own(login, helper) if step == OWNER else ways[step](login)


class _Login:
    """The login under check, with everything that is open with it.

    `undo` are the statements that undo what it made.
    """

    def __init__(self, dsn: str, user: str, password: str) -> None:
        self.user = user
        self._login = {"user": user, "password": password}
        self.dsn = dsn
        self.sessions: list[psycopg.Connection[Any]] = []
        self.sleeping: PGconn | None = None
        self.undo: list[str] = []

    def connect(self) -> psycopg.Connection[Any]:
        """Open a session. Raises psycopg.Error."""
        self.sessions.append(client.connected(self.dsn, client.CHECK, **self._login))
        return self.sessions[-1]

    def first(self) -> psycopg.Connection[Any]:
        """Open the first session.

        Raises NotConfirmed if the target refuses the login.
        """
        self.sessions.append(client.checked_login(self.dsn, **self._login))
        return self.sessions[-1]

    def fall_asleep(self) -> PGconn:
        """Begin to connect, and sleep before the connection has a user."""
        from psycopg.conninfo import make_conninfo
        from psycopg.pq import PGconn

        sleep = f"-c post_auth_delay={SLEEP_S}"
        conninfo = make_conninfo(self.dsn, **self._login, application_name=client.CHECK, options=sleep)
        self.sleeping = PGconn.connect_start(conninfo.encode())
        return self.sleeping

    def close(self) -> None:
        """Close everything, and undo what was made if the login still lives.

        Otherwise what it made was dropped with it.
        """
        error = client.driver().Error
        for session in self.sessions:
            session.close()
        if self.undo:
            with suppress(error), self.connect() as session:
                for statement in self.undo:
                    session.execute(statement)
        if self.sleeping is not None:
            self.sleeping.finish()


def _sleep(login: _Login) -> Sleeper:
    with client.probing(login.dsn) as target:
        before = set(target.execute(NAMELESS).fetchall())
        connection = login.fall_asleep()
        deadline = time.monotonic() + _LOGIN_S
        # the server sends nothing until the connection wakes, so the probe looks whether it is past authentication
        while _poll(connection, _PAUSE_S) and time.monotonic() < deadline:
            if set(target.execute(NAMELESS).fetchall()) - before:
                return Sleeper(connection)
    raise NotConfirmed("no connection that sleeps before it has a user was seen at the target")


def _poll(connection: PGconn, quiet_s: float) -> bool:
    """Continue a connection until nothing came for `quiet_s`.

    Return whether it is still being made.
    """
    from psycopg.pq import PollingStatus

    deadline = time.monotonic() + _LOGIN_S
    while time.monotonic() < deadline:
        status = PollingStatus(connection.connect_poll())
        if status in (PollingStatus.FAILED, PollingStatus.OK):
            return False
        reading = status is PollingStatus.READING
        waits = ([connection.socket], []) if reading else ([], [connection.socket])
        if not any(select.select(*waits, [], quiet_s)):
            return True
    return True


def _lock(login: _Login) -> Sessions:
    session = login.first()
    session.execute("BEGIN")
    return Sessions(_tried(session, RESISTANCES[LOCK], _new_password()), [session])


def _new_password() -> str:
    return f"ALTER ROLE CURRENT_USER PASSWORD '{secrets.token_urlsafe(16)}'"


def _own(login: _Login, other: _Login) -> Sessions:
    """Own what another login has rights on.

    That one changes these things in an open transaction, below a savepoint that is over, so that no lock names them.
    """
    session = login.first()
    helper = other.first()
    number = 1_000_000_000 + secrets.randbelow(1_000_000_000)
    forbidden = _refused(
        session,
        f"SELECT pg_catalog.lo_create({number}::pg_catalog.oid)",
        f'GRANT SELECT, UPDATE ON LARGE OBJECT {number} TO "{other.user}" WITH GRANT OPTION',
        f"GRANT SELECT ON LARGE OBJECT {number} TO PUBLIC",
    )
    login.undo += [
        "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC",
        f"SELECT pg_catalog.lo_unlink({number}::pg_catalog.oid)",
    ]
    holds_object = (
        f"SELECT pg_catalog.lo_put({number}::pg_catalog.oid, 0::pg_catalog.int8, 'x'::pg_catalog.bytea)",
        f'GRANT SELECT ON LARGE OBJECT {number} TO "{login.user}"',
    )
    seen = _tried(session, RESISTANCES[OWNER], "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    taken_back = f'ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM "{login.user}"'  # noqa: S608 - Vault's name
    other.undo.append(taken_back)
    held = _refused(
        helper,
        f'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "{login.user}"',
        "BEGIN",
        "SAVEPOINT shared",
        f'ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO "{login.user}"',
        *(() if forbidden else holds_object),
        "RELEASE SAVEPOINT shared",
    )
    large = f"the target forbids a large object ({forbidden})" if forbidden else "a large object that is shared, too"
    refused = f"the target forbids to hold them ({held})" if held else ""
    # the other login lives on: only its session is to end
    return Sessions("; ".join(filter(None, (seen, refused, large))), [session])


def _crowd(login: _Login) -> Sessions:
    login.first()
    with suppress(client.driver().Error):
        while len(login.sessions) < MOST_SESSIONS:
            login.connect()
    many = len(login.sessions)
    unlimited = f"it opened {many} sessions and could have opened more" if many == MOST_SESSIONS else ""
    return Sessions(f"{many} sessions, and no more were let in", login.sessions, unlimited)


def _tried(session: psycopg.Connection[Any], what: str, *statements: str) -> str:
    """Run the statements, and return what was tried.

    If the target does not let the login run them, it cannot resist in this way.
    """
    refused = _refused(session, *statements)
    return f"the target forbids {what} ({refused})" if refused else what


def _refused(session: psycopg.Connection[Any], *statements: str) -> str:
    """Run the statements; return the kind of error that ended that, if any."""
    try:
        for statement in statements:
            session.execute(statement.encode())
    except client.driver().Error as error:
        return type(error).__name__
    return ""
