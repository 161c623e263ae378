"""Find out why a PostgreSQL server does not let a login in.

Of a connection that failed psycopg has the server's sentence alone, in the server's language. libpq also has the
SQLSTATE, and shows it if it is told so between the first byte sent and the first answer, for which psycopg has no
function. So one more connection is tried, and that one function of libpq is called directly.
"""

from __future__ import annotations

import ctypes
import re
import select
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from jitvault.errors import NotConfirmed, ProbeUnusable

_SQLSTATE_ALONE = 3
"""libpq's PQERRORS_SQLSTATE: of an error its severity and its SQLSTATE are shown."""
_CODE = re.compile(r"^.*: +([0-9A-Z]{5})$", re.MULTILINE)
_PATIENCE_S = 2.0
"""How long the one more connection may take; a server that hangs was waited for already."""
_WORDS = {
    "28P01": "password authentication failed",
    "28000": "it does not let this login in: there is none, it may not log in, or pg_hba.conf has no line for it",
    "3D000": "it has no such database",
    "42501": "this login may not connect to that database",
    "53300": "every connection that this login may use is taken",
    "57P03": "it is starting, stopping or recovering",
}
_REFUSALS = frozenset({"28P01", "28000", "3D000", "42501"})
"""What says something of the login itself. Whoever takes all connections, or all memory, causes none of these."""


def error_of(what: str, error: Exception, conninfo: str) -> NotConfirmed:
    """Return the error for a session of the probe's that failed.

    It is ProbeUnusable if somebody has to correct the probe's login. `error` is psycopg's, `what` begins the message.
    The message never holds what the server said, since that may repeat the connection string.
    """
    is_unusable, cause = why_failed(error, conninfo)
    return (ProbeUnusable if is_unusable else NotConfirmed)(f"{what}: {cause}")


def why_failed(error: Exception, conninfo: str) -> tuple[bool, str]:
    """Return whether the login itself is at fault, and the cause in words.

    False where that is not known.
    """
    from psycopg import ProgrammingError
    from psycopg.errors import ConnectionTimeout

    kind = type(error).__name__
    if getattr(error, "sqlstate", None):
        return False, f"it does not do what it is asked to ({kind})"
    if isinstance(error, ConnectionTimeout):
        return False, f"it does not answer in time ({kind})"
    if isinstance(error, ProgrammingError):
        return True, "its connection string cannot be read"
    code = sqlstate_at_login(conninfo)
    other = f"it ends every login with SQLSTATE {code}" if code else f"there is no connection to it ({kind})"
    return code in _REFUSALS, _WORDS.get(code, other)


def sqlstate_at_login(conninfo: str) -> str:
    """Return the SQLSTATE with which a server ends a login.

    Empty if the server lets it in now, if nothing answers, and where libpq cannot be told.
    """
    from psycopg import OperationalError, pq

    show_codes = _verbosity_of()
    if show_codes is None:
        return ""
    connection: Any = pq.PGconn.connect_start(conninfo.encode())
    try:
        show_codes(connection.pgconn_ptr, _SQLSTATE_ALONE)
        _await(connection)
        return code_in(connection.error_message.decode(errors="replace"))
    except (OperationalError, OSError):
        return ""
    finally:
        connection.finish()


def code_in(message: str) -> str:
    """Return the SQLSTATE that counts in a message of libpq, if any.

    libpq tries each address of a host, and one with TLS and without it. Where one of these was busy, that the next one
    refused the login says nothing of it: a server that has no line for logins without TLS refuses each of them.
    """
    found = _CODE.findall(message)
    return next((code for code in found if code not in _REFUSALS), found[-1] if found else "")


def _await(connection: Any) -> None:
    """Wait until a connection is made or has failed, for some seconds at most."""
    from psycopg.pq import PollingStatus

    deadline = time.monotonic() + _PATIENCE_S
    state = PollingStatus.WRITING
    while state in (PollingStatus.READING, PollingStatus.WRITING) and (left := deadline - time.monotonic()) > 0:
        # not `select`, which takes no file whose number is over 1,023
        ready = select.poll()
        ready.register(connection.socket, select.POLLIN if state == PollingStatus.READING else select.POLLOUT)
        ready.poll(left * 1000)
        state = connection.connect_poll()


@cache
def _verbosity_of() -> Callable[[int, int], int] | None:
    """Return PQsetErrorVerbosity of the libpq that psycopg is linked with.

    None where psycopg is no compiled module: then no login is known to be refused.
    """
    from psycopg import pq

    try:
        function = ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__).PQsetErrorVerbosity
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    return function
