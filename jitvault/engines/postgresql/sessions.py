"""End what ended logins left open at a PostgreSQL server.

Then see that nothing is left. A login can be used in three ways after its end, and each has to be looked for:

- an open session. `DROP ROLE` ends none; afterwards the session has the oid of a role that is gone, and no name;
- a connection that sleeps (`options='-c post_auth_delay=…'`). It is past authentication, and until it wakes it has no
  user in `pg_stat_activity`, or no row there at all (PostgreSQL 15). It holds RowExclusiveLock on its database as an
  object, which neither a stranger before authentication nor an autovacuum worker nor a standby's startup process does;
- a new login, if the role is still there and may log in.

What was measured: docs/vault-facts.md, "What an agent does at a PostgreSQL target".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jitvault.engines.interface import ProbeResult
from jitvault.engines.postgresql import client

if TYPE_CHECKING:
    import psycopg

# An ordinary login has a user within milliseconds.
HONEST_S = 1.0
END_S = 4.0
"""How long sessions that were told to end are waited for."""
_PAUSE_S = 0.05
_CLEAN_PASSES = 2
_LOGINS_KNOWN = 20_000

_CLEAR = "SELECT pg_catalog.pg_stat_clear_snapshot()"
_ROLES = """
    SELECT rolname, oid, rolcanlogin FROM pg_catalog.pg_roles
    WHERE rolcanlogin OR rolname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[])
"""
_SESSIONS = """
    SELECT a.pid, a.usesysid, r.rolname FROM pg_catalog.pg_stat_activity AS a
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.usesysid
    WHERE a.usesysid IS NOT NULL AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
    AND (r.oid IS NULL OR r.rolname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[]))
"""
_END_SESSION = """
    SELECT pg_catalog.pg_terminate_backend(pid, 0::pg_catalog.int8) FROM pg_catalog.pg_stat_activity
    WHERE pid OPERATOR(pg_catalog.=) %s::pg_catalog.int4 AND usesysid OPERATOR(pg_catalog.=) %s::pg_catalog.oid
"""
NAMELESS = """
    SELECT DISTINCT l.pid, l.virtualtransaction FROM pg_catalog.pg_locks AS l
    WHERE l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text AND l.pid IS NOT NULL
    AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'::pg_catalog.text
    AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass::pg_catalog.oid
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity AS a
        WHERE a.pid OPERATOR(pg_catalog.=) l.pid AND a.usesysid IS NOT NULL
    )
"""
_END_NAMELESS = """
    SELECT pg_catalog.pg_terminate_backend(pid, 0::pg_catalog.int8) FROM pg_catalog.pg_locks
    WHERE pid OPERATOR(pg_catalog.=) %s::pg_catalog.int4
    AND virtualtransaction OPERATOR(pg_catalog.=) %s::pg_catalog.text LIMIT 1
"""

Nameless = tuple[int, str]
"""A backend without a user: its process id and virtual transaction, since process ids are used again."""


class KnownLogins:
    """The oid that each login had while it lived.

    A session of a login that is gone shows the oid alone. With the oid known, a session that does not end counts
    against its own login and against no other. The oids are kept in memory: another process has to suspect each
    such session.
    """

    def __init__(self) -> None:
        self._oids: dict[tuple[str, str], int] = {}

    def note(self, server: str, oids: Mapping[str, int]) -> None:
        self._oids.update({(server, name): oid for name, oid in oids.items()})
        for key in list(self._oids)[: max(0, len(self._oids) - _LOGINS_KNOWN)]:
            self._oids.pop(key, None)

    def of(self, server: str, name: str) -> int | None:
        return self._oids.get((server, name))


@dataclass(frozen=True, slots=True)
class _Roles:
    """The logins of a server by oid, and the requested names among them."""

    oids: Mapping[str, int]
    living: Mapping[str, bool]
    """Whether each of the names that still exist may log in."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A session of one of the names, or of a role that is gone.

    `name` is None if the role is gone.
    """

    pid: int
    oid: int
    name: str | None


@dataclass(slots=True)
class _Found:
    """What the passes over the server found."""

    terminated: set[object] = field(default_factory=set)
    """The backends that were told to end."""
    noted: set[Nameless] = field(default_factory=set)
    sessions: tuple[_Open, ...] = ()
    nameless: frozenset[Nameless] = frozenset()


def probe(
    target: psycopg.Connection[Any], server: str, names: Sequence[str], known: KnownLogins, *, end: bool
) -> dict[str, ProbeResult]:
    """Return for each login whether it is refused and has no session.

    With `end`, what is left of the logins is ended. `server` is the key of this server in `known`. Raises
    psycopg.Error.
    """
    roles = _roles(target, names)
    known.note(server, roles.oids)
    oids = {name: known.of(server, name) for name in names}
    found = _Found()
    if end:
        _end_all(target, names, roles, oids, found)
    else:
        clear(target)
        found.sessions = _sessions(target, names)
    return {name: _judged(name, roles, oids[name], found) for name in names}


def _end_all(
    target: psycopg.Connection[Any],
    names: Sequence[str],
    roles: _Roles,
    oids: Mapping[str, int | None],
    found: _Found,
) -> None:
    """End the logins' sessions and those of roles that are gone.

    All are told to end at once, and waited for once. A client that reconnects gets in again if its login still may:
    then it is enough that the session was told to end. Otherwise two passes in a row have to find nothing. One is
    not enough, for a login that was let in just before its end may have neither lock nor user yet.
    """
    begun = time.monotonic()
    clean = 0
    for looks in range(1, 10_000):
        now = time.monotonic() - begun
        clear(target)
        nameless = _nameless(target)
        if looks <= _CLEAN_PASSES:
            # these came after the end of their logins; a backend that comes later cannot be theirs
            found.noted |= nameless
        found.nameless = frozenset(nameless & found.noted)
        found.sessions = _sessions(target, names)
        _terminate_found(target, found, also_nameless=now > HONEST_S)
        clean = 0 if _waited_for(found, roles, oids) else clean + 1
        if clean >= _CLEAN_PASSES or now > END_S:
            return
        time.sleep(_PAUSE_S)


def _terminate_found(target: psycopg.Connection[Any], found: _Found, *, also_nameless: bool) -> None:
    for session in found.sessions:
        if _terminate(target, _END_SESSION, (session.pid, session.oid)):
            found.terminated.add((session.pid, session.oid))
    for backend in found.nameless if also_nameless else ():
        if _terminate(target, _END_NAMELESS, backend):
            found.terminated.add(backend)


def _terminate(target: psycopg.Connection[Any], query: str, which: tuple[object, ...]) -> bool:
    """Tell one backend to end; False if it is gone or not the probe's to end."""
    try:
        # in an open transaction the refusal rolls back this statement alone
        with target.transaction():
            row = target.execute(query, which).fetchone()
    except client.driver().errors.InsufficientPrivilege:
        return False
    return bool(row and row[0])


def _waited_for(found: _Found, roles: _Roles, oids: Mapping[str, int | None]) -> bool:
    """Return whether anything is left that is worth waiting for.

    Such a backend could belong to a login that cannot come back.
    """
    if found.nameless:
        return True
    suspects = [name for name in oids if not roles.living.get(name, False)]
    return any(_is_of(session, name, oids[name]) for session in found.sessions for name in suspects)


def _is_of(session: _Open, name: str, oid: int | None) -> bool:
    """Return whether a session can belong to the login.

    If the login's oid is unknown, each session without a name can.
    """
    if session.name is not None:
        return session.name == name
    return oid is None or oid == session.oid


def _judged(name: str, roles: _Roles, oid: int | None, found: _Found) -> ProbeResult:
    sessions = [session for session in found.sessions if _is_of(session, name, oid)]
    own = sum(session.name is not None or oid is not None for session in sessions)
    evidence = [f"role {name} {_role_state(name, roles)}", f"{own} of its sessions open"]
    if len(sessions) > own:
        evidence.append(f"{len(sessions) - own} sessions of roles that are gone do not end and may be its own")
    if found.nameless:
        evidence.append(f"{len(found.nameless)} connections that have no user yet do not end and may be its own")
    if found.terminated:
        evidence.append(f"{len(found.terminated)} sessions were ended")
    return ProbeResult(
        refused=name not in roles.living,
        open_sessions=len(sessions) + len(found.nameless),
        evidence="; ".join(evidence),
    )


def _role_state(name: str, roles: _Roles) -> str:
    if name not in roles.living:
        return "does not exist"
    return "still exists and may log in" if roles.living[name] else "cannot log in, but still exists"


def _roles(target: psycopg.Connection[Any], names: Sequence[str]) -> _Roles:
    rows = target.execute(_ROLES, (list(names),)).fetchall()
    asked = set(names)
    living = {str(name): bool(may_log_in) for name, _, may_log_in in rows if name in asked}
    return _Roles({str(name): int(oid) for name, oid, _ in rows}, living)


def look(target: psycopg.Connection[Any]) -> None:
    """Run all queries of a probe, about no login.

    In a transaction, the locks for them stay.
    """
    _roles(target, ())
    _sessions(target, ())
    _nameless(target)


def clear(target: psycopg.Connection[Any]) -> None:
    """Have the server show its present sessions.

    In a transaction, it otherwise repeats those of its first look.
    """
    target.execute(_CLEAR)


def end_session(target: psycopg.Connection[Any], pid: int, oid: int) -> bool:
    """Tell one session to end, if it still belongs to that login."""
    return _terminate(target, _END_SESSION, (pid, oid))


def _sessions(target: psycopg.Connection[Any], names: Iterable[str]) -> tuple[_Open, ...]:
    rows = target.execute(_SESSIONS, (list(names),)).fetchall()
    return tuple(_Open(int(pid), int(oid), name) for pid, oid, name in rows)


def _nameless(target: psycopg.Connection[Any]) -> set[Nameless]:
    return {(int(pid), str(virtual)) for pid, virtual in target.execute(NAMELESS).fetchall()}
