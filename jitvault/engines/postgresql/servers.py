"""The PostgreSQL servers of a probe: a primary and its standbys.

They let the same logins in. A login that is dropped at the primary disappears from a standby, and its sessions
there live on. So every server on which a credential works has to be named, is asked, and has to say that the
credential is dead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jitvault.engines.interface import After, ProbeResult
from jitvault.engines.postgresql import client
from jitvault.errors import NotConfirmed, ProbeUnusable

_KEYS = frozenset({"dsn", "replicas"})
MAX_REPLICAS = 16
_CAUGHT_UP_S = 3.0
_PAUSE_S = 0.02
_WRITTEN = "SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text"
_REPLAYED = "SELECT pg_catalog.pg_last_wal_replay_lsn() OPERATOR(pg_catalog.>=) %s::pg_catalog.pg_lsn"


def servers_of(where: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the connection strings of a probe, the primary's first.

    `where` is the probe's document.

    Raises ProbeUnusable for a document that is not exactly `dsn`, or `dsn` and `replicas`: with a misspelt key, a
    server would never be asked. The message never holds what is in the document.
    """
    unknown = sorted(set(where) - _KEYS)
    if unknown:
        raise ProbeUnusable(f"the probe's document has the unknown keys {', '.join(unknown):.200}")
    primary = where.get("dsn")
    replicas = where.get("replicas", [])
    if not isinstance(primary, str) or not primary:
        raise ProbeUnusable("the probe's document has no dsn")
    if not isinstance(replicas, list) or not all(isinstance(dsn, str) and dsn for dsn in replicas):
        raise ProbeUnusable("`replicas` in the probe's document is no list of connection strings")
    if len(replicas) > MAX_REPLICAS:
        raise ProbeUnusable(f"the probe's document names more than {MAX_REPLICAS} replicas")
    return (primary, *replicas)


def address_of(dsn: str) -> str:
    """Return the host and port of a connection string, which are no secret.

    Raises ProbeUnusable.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        fields = conninfo_to_dict(dsn)
    except ProgrammingError:
        raise ProbeUnusable("a connection string in the probe's document cannot be read") from None
    return f"{fields.get('host') or fields.get('hostaddr') or 'localhost'}:{fields.get('port') or 5432}"


def written_until(primary: str) -> str:
    """Return the position up to which the primary wrote its log.

    Raises NotConfirmed.
    """
    with client.probing(primary) as target:
        row = target.execute(_WRITTEN).fetchone()
    return str(row[0]) if row else "0/0"


def has_replayed(replica: str, position: str) -> bool:
    """Wait for a standby to replay the primary's log up to `position`.

    Return whether it did within a few seconds. What a standby says before that does not count: it does not know of
    a login that it will still let in. A login can make it wait, by a lock at the primary and an open transaction at
    the standby. Raises NotConfirmed if the standby cannot be asked.
    """
    deadline = time.monotonic() + _CAUGHT_UP_S
    with client.probing(replica) as target:
        while True:
            row = target.execute(_REPLAYED, (position,)).fetchone()
            # a server that is no standby replays nothing, and answers with NULL
            if row is None or row[0] is not False:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)


def is_behind(replica: str) -> NotConfirmed:
    """Return the error for a standby that is too far behind to be believed."""
    return NotConfirmed(
        f"the standby {address_of(replica)} has not replayed within {_CAUGHT_UP_S:.0f} s what the primary wrote: "
        "it may still let in a login that it does not know of yet"
    )


def merged(answers: Sequence[tuple[str, Mapping[str, ProbeResult]]]) -> dict[str, ProbeResult]:
    """Combine the servers' answers.

    A credential is refused only if all servers refuse it. `answers` are the servers' addresses with their results,
    the primary's first.
    """
    (_, first), *others = answers
    if not others:
        return dict(first)
    found = {}
    for name, result in first.items():
        each = [(address, answer[name]) for address, answer in answers]
        found[name] = replace(
            result,
            refused=all(probed.refused for _, probed in each),
            open_sessions=sum(probed.open_sessions or 0 for _, probed in each),
            seen=all(probed.seen for _, probed in each),
            evidence="; ".join(f"at {address}: {probed.evidence}" for address, probed in each),
        )
    return found


class LoginInUse:
    """A session of the issued login at one server."""

    def __init__(self, dsn: str, issued: Mapping[str, Any]) -> None:
        """Log in.

        Raises NotConfirmed if the target refuses the login or a statement.
        """
        self._dsn = dsn
        self._login = {"user": str(issued["username"]), "password": str(issued["password"])}
        self._open = client.checked_login(dsn, **self._login)
        try:
            self._open.execute("SELECT 1")
        except client.driver().Error as error:
            self.close()
            raise NotConfirmed(f"the new login cannot run a statement ({type(error).__name__})") from None

    def still_works(self) -> bool:
        with suppress(client.driver().Error):
            self._open.execute("SELECT 1")
        # A session of a dropped role goes on, and some statements fail in it: only its end counts.
        return not self._open.closed

    def works_anew(self) -> bool:
        try:
            again = client.connected(self._dsn, client.CHECK, **self._login)
        except client.driver().Error:
            # an unreachable target lets nobody in either: the probe that asks next notices that
            return False
        again.close()
        return True

    def close(self) -> None:
        self._open.close()


class LoginEverywhere:
    """A session of the issued login on each server.

    Implements `jitvault.engines.interface.CredentialInUse`.
    """

    def __init__(self, servers: Sequence[str], issued: Mapping[str, Any]) -> None:
        """Log in everywhere.

        Raises NotConfirmed if one of the servers does not let the login in.
        """
        self.sessions: int | None = len(servers)
        self.seen = f"{issued['username']} works at the target"
        self._servers = tuple(servers)
        self._logins: list[LoginInUse] = []
        try:
            for dsn in servers:
                self._await(dsn)
                self._logins.append(LoginInUse(dsn, issued))
        except BaseException:
            self.close()
            raise

    def still_works(self) -> After:
        """Return whether the session at the primary is open.

        No revocation ends those at standbys: the probe does.
        """
        works = self._logins[0].still_works()
        return After(works, f"what was opened before is {'still open' if works else 'over'}")

    def works_anew(self) -> After:
        """Return whether any of the servers lets the login in once more."""
        for dsn, login in zip(self._servers, self._logins, strict=True):
            self._await(dsn)
            if login.works_anew():
                return After(True, "the target lets it in again")
        return After(False, "the target does not let it in again")

    def close(self) -> None:
        for login in self._logins:
            login.close()

    def _await(self, dsn: str) -> None:
        """Wait for a standby, which learns late of a login and of its end."""
        if dsn != self._servers[0] and not has_replayed(dsn, written_until(self._servers[0])):
            raise is_behind(dsn)
