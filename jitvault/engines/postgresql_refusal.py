"""Find out why a PostgreSQL server lets a login not in.

Of a connection that failed psycopg has the server's sentence alone, in the server's language. libpq also has the
SQLSTATE, and shows it where it is told so between the first byte sent and the first answer, which psycopg has no word
for. So one more connection is tried, with that one function of libpq called directly.
"""

from __future__ import annotations

import ctypes
import re
import select
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jitvault.errors import NotConfirmed, ProbeUnusable

_SQLSTATE_ALONE = 3
"""libpq's PQERRORS_SQLSTATE: of an error its severity and its SQLSTATE are shown."""
_CODE = re.compile(r"^.*: +([0-9A-Z]{5})$", re.MULTILINE)
_PATIENCE_S = 2.0
"""How long the one more connection may take; a server that hangs was waited for already."""
_MAPS = Path("/proc/self/maps")
_WORDS = {
    "28P01": "password authentication failed",
    "28000": "it lets this login not in: there is none, it may not log in, or pg_hba.conf has no line for it",
    "3D000": "it has no such database",
    "42501": "this login may not connect to that database",
    "53300": "every connection that this login may use is taken",
    "57P03": "it is starting, stopping or recovering",
}
_REFUSALS = frozenset({"28P01", "28000", "3D000", "42501"})
"""What says something of the login itself. Whoever takes all connections, or all memory, causes none of these."""


def error_of(what: str, error: Exception, conninfo: str) -> NotConfirmed:
    """Return the error for a session of the probe's that failed.

    It is ProbeUnusable if the server refuses the login itself. `error` is psycopg's, `what` begins the message. The
    message never holds what the server said, since that may repeat the connection string.
    """
    code, cause = why_failed(error, conninfo)
    return (ProbeUnusable if code in _REFUSALS else NotConfirmed)(f"{what}: {cause}")


def why_failed(error: Exception, conninfo: str) -> tuple[str, str]:
    """Return the SQLSTATE that ended a login, and the cause of the failure.

    The SQLSTATE is empty where the login did not fail, but a statement did, or where none is known.
    """
    from psycopg.errors import ConnectionTimeout

    kind = type(error).__name__
    if getattr(error, "sqlstate", None):
        return "", f"it does not do what it is asked to ({kind})"
    if isinstance(error, ConnectionTimeout):
        return "", f"it does not answer in time ({kind})"
    code = sqlstate_at_login(conninfo)
    other = f"it ends every login with SQLSTATE {code}" if code else f"there is no connection to it ({kind})"
    return code, _WORDS.get(code, other)


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
        if connection.pgconn_ptr is None:
            return ""
        show_codes(connection.pgconn_ptr, _SQLSTATE_ALONE)
        _await(connection)
        found = _CODE.findall(connection.error_message.decode(errors="replace"))
    except (OperationalError, OSError):
        return ""
    finally:
        connection.finish()
    # of several hosts the last one that was tried
    return found[-1] if found else ""


def _await(connection: Any) -> None:
    """Wait until a connection is made or has failed, for some seconds at most."""
    from psycopg.pq import PollingStatus

    deadline = time.monotonic() + _PATIENCE_S
    state = PollingStatus.WRITING
    while state in (PollingStatus.READING, PollingStatus.WRITING) and (left := deadline - time.monotonic()) > 0:
        read = [connection.socket] if state == PollingStatus.READING else []
        written = [] if read else [connection.socket]
        select.select(read, written, [], left)
        state = connection.connect_poll()


@cache
def _verbosity_of() -> Callable[[int, int], int] | None:
    """Return libpq's PQsetErrorVerbosity, of the library that psycopg loaded.

    None where it cannot be found: then no login is known to be refused.
    """
    try:
        paths = {line.split()[-1] for line in _MAPS.read_text().splitlines() if "libpq" in line}
        function = ctypes.CDLL(sorted(paths)[0]).PQsetErrorVerbosity
    except (OSError, IndexError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    return function
