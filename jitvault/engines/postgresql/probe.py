"""The probe of PostgreSQL: whether a login is over at the primary and at each standby.

Why PostgreSQL itself has to be asked: docs/vault-facts.md, "Revocation". A no-op revocation statement gives 204 and
"invalid lease" while the role still logs in, and `DROP ROLE` leaves its open sessions running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from jitvault.engines.interface import Login, Probe, ProbeResult
from jitvault.engines.postgresql import login_names, sessions
from jitvault.engines.postgresql.client import probing
from jitvault.engines.postgresql.servers import (
    address_of,
    has_replayed,
    is_behind,
    merged,
    servers_of,
    written_until,
)
from jitvault.engines.postgresql.spare_session import SpareSession
from jitvault.errors import NotConfirmed, ProbeUnusable

_NEEDED = "pg_signal_backend"
# The second role lets the probe in when all ordinary connections are taken.
_ALLOWED = (_NEEDED, "pg_use_reserved_connections")
_RIGHTS = """
    SELECT pg_catalog.pg_has_role(
        CURRENT_USER, 'pg_signal_backend'::pg_catalog.name, 'USAGE'::pg_catalog.text
    )
"""
_OWN = """
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
           ARRAY(SELECT g.rolname::pg_catalog.text FROM pg_catalog.pg_auth_members AS m
                 JOIN pg_catalog.pg_roles AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid
                 WHERE m.member OPERATOR(pg_catalog.=) r.oid ORDER BY 1)
    FROM pg_catalog.pg_roles AS r WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER
"""
_ATTRIBUTES = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")


class PostgresqlProbe(Probe):
    """Asks PostgreSQL about logins, and ends their sessions."""

    credential_key = "username"
    finds_unnamed = True

    def __init__(self) -> None:
        self._known = sessions.KnownLogins()
        self._spare_session = SpareSession()

    def ask(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        primary, *replicas = servers_of(where)
        answers = [(address_of(primary), self._probe_server(primary, names, look_only=look_only))]
        position = written_until(primary) if replicas else ""

        def ask(replica: str) -> tuple[str, Mapping[str, ProbeResult]]:
            caught_up = has_replayed(replica, position)
            # whether or not it has, what is open there is ended
            results = self._probe_server(replica, names, look_only=look_only)
            if not caught_up:
                raise is_behind(replica)
            return address_of(replica), results

        # In parallel: each replica may need a second, and a claim does not last for many of those.
        with ThreadPoolExecutor(max_workers=max(1, len(replicas))) as pool:
            answers += pool.map(ask, replicas)
        return merged(answers)

    def _probe_server(self, dsn: str, names: Sequence[str], *, look_only: bool) -> Mapping[str, ProbeResult]:
        try:
            with probing(dsn) as target:
                return sessions.probe(target, dsn, names, self._known, end=not look_only)
        except NotConfirmed:
            with self._spare_session.session(dsn) as kept:
                if kept is None:
                    raise
                return sessions.probe(kept, dsn, names, self._known, end=not look_only)

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        kept_out: list[str] = []
        failed: NotConfirmed | None = None
        for dsn in servers_of(where):
            try:
                kept_out += self._spare_session.keep(dsn)
            except NotConfirmed as error:
                failed = error
        if failed is not None and not kept_out:
            raise failed
        return kept_out

    def close(self) -> None:
        self._spare_session.close()

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        prefix = login_names.prefix_for(config["connection"], path.partition("/")[2])
        primary, *replicas = servers_of(where)
        position = written_until(primary) if replicas else ""
        names: set[str] = set()
        for server in (primary, *replicas):
            if server != primary and not has_replayed(server, position):
                raise is_behind(server)
            with probing(server) as target:
                names |= {row[0] for row in target.execute(login_names.LIVING, (prefix,)).fetchall()}
        return login_names.made_at(sorted(names), prefix)

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        servers = servers_of(where)
        # in parallel, since a task's claim does not last for several servers that hang
        with ThreadPoolExecutor(max_workers=len(servers)) as pool:
            found = list(pool.map(_rights_at, servers))
        failed = [answer for answer in found if isinstance(answer, NotConfirmed)]
        if failed:
            raise next((error for error in failed if isinstance(error, ProbeUnusable)), failed[0])
        return () if all(found) else (_NEEDED,)

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        # a standby has the primary's roles
        with probing(servers_of(where)[0]) as target:
            row = target.execute(_OWN).fetchone()
        if row is None:
            raise NotConfirmed("the probe's login does not see its own role in pg_roles, so its rights are not known")
        name, *flags, groups = row
        attributes = [word for word, given in zip(_ATTRIBUTES, flags, strict=True) if given]
        return Login(str(name), (*attributes, *groups), (*attributes, *(g for g in groups if g not in _ALLOWED)))


def _rights_at(dsn: str) -> bool | NotConfirmed:
    """Return whether the probe may end sessions, or why nobody knows."""
    try:
        with probing(dsn) as target:
            row = target.execute(_RIGHTS).fetchone()
    except NotConfirmed as error:
        return error
    return bool(row and row[0])
