"""Connections to a PostgreSQL target, with a bounded duration.

They are the probe's own.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jitvault.engines.postgresql.refusal import error_of, why_failed
from jitvault.errors import NotConfirmed, UsageError

if TYPE_CHECKING:
    import psycopg

VAULTS_LOGINS = "^v-.*-[A-Za-z0-9]{20}-[0-9]{10}$"
"""What the names of Vault's logins match, where the connection has no `username_template` of its own."""
CHECK = "jitvault-check"
"""The name under which the sessions of a template check show themselves at the target."""
CONNECT_S = 5
# For all queries together; a server that hangs keeps the connection open and does not answer.
ANSWERS_S = 15

# Whoever may CREATE in a schema of the search path could put a function there that matches better than the intended
# one, and the probe may end sessions. Each query also names its schemas.
SETTINGS = (
    "SET search_path = pg_catalog, pg_temp",
    "SET lock_timeout = '1s'",
    "SET statement_timeout = '10s'",
)


def driver() -> ModuleType:
    """Return psycopg. Raises UsageError if it is not installed."""
    try:
        import psycopg
    except ImportError:
        raise UsageError(
            "the PostgreSQL probe needs psycopg",
            hint="Install jitvault with its extra `postgres`: docs/install.md says how.",
        ) from None
    return psycopg


def connected(dsn: str, application: str, **login: str) -> psycopg.Connection[Any]:
    """Open a session, by another login than the one of `dsn` where one is given. Raises psycopg.Error."""
    session: psycopg.Connection[Any] = driver().connect(
        dsn, **login, autocommit=True, connect_timeout=CONNECT_S, application_name=application, prepare_threshold=None
    )
    return session


def checked_login(dsn: str, **login: str) -> psycopg.Connection[Any]:
    """Open the first session of a login that is under check.

    Raises NotConfirmed if the target refuses the login.
    """
    psycopg = driver()
    try:
        return connected(dsn, CHECK, **login)
    except psycopg.Error as error:
        _, cause = why_failed(error, psycopg.conninfo.make_conninfo(dsn, **login))
        raise NotConfirmed(f"the target refuses the new login: {cause}") from None


@contextmanager
def probing(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Open the probe's own session.

    Raises NotConfirmed for any error of target or driver, ProbeUnusable where it refuses the login.
    """
    psycopg = driver()
    try:
        with connected(dsn, "jitvault-probe") as target, for_so_long(target, ANSWERS_S):
            for setting in SETTINGS:
                target.execute(setting)
            yield target
    except psycopg.Error as error:
        raise error_of("the probe could not ask the target", error, dsn) from None


@contextmanager
def for_so_long(target: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """End the connection after `seconds`.

    Neither the client nor the kernel notices a server that hangs.
    """

    def hang_up() -> None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    # A descriptor of its own: the connection's may be closed, and be another file's by then.
    with socket.socket(fileno=os.dup(target.fileno())) as line:
        timer = threading.Timer(seconds, hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
