"""Vault's database secrets engine, with PostgreSQL as its target.

Why a probe has to look at PostgreSQL itself: docs/vault-facts.md, "Revocation". A no-op revocation statement gives
204 and "invalid lease" while the role still logs in, and `DROP ROLE` leaves its open sessions running.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from jitvault.domain.access import Capability
from jitvault.domain.confirmation import Probed
from jitvault.engines import postgresql_names, postgresql_probe
from jitvault.engines.postgresql import probing
from jitvault.engines.postgresql_login import LoginInUse
from jitvault.errors import InvalidInput, NotConfirmed
from jitvault.ports.engine import Login, Read

_NEEDED = "pg_signal_backend"
# the second lets it in where the connections of everybody are taken
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
_REVOCATION = "Correct the role's revocation_statements in Vault; the shipped templates' comments have them."


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

    def __init__(self) -> None:
        self._known = postgresql_probe.KnownLogins()

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

    def probe(self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False) -> Mapping[str, Probed]:
        dsn = str(where["dsn"])
        with probing(dsn) as target:
            return postgresql_probe.probe(target, dsn, names, self._known, end=not look_only)

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        prefix = postgresql_names.prefix_for(config["connection"], path.partition("/")[2])
        with probing(str(where["dsn"])) as target:
            names = [row[0] for row in target.execute(postgresql_names.LIVING, (prefix,)).fetchall()]
        return postgresql_names.made_at(names, prefix)

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        with probing(str(where["dsn"])) as target:
            row = target.execute(_RIGHTS).fetchone()
        return () if row and row[0] else (_NEEDED,)

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        with probing(str(where["dsn"])) as target:
            row = target.execute(_OWN).fetchone()
        if row is None:
            raise NotConfirmed("the probe's own role is not in pg_roles")
        name, *flags, groups = row
        attributes = [word for word, given in zip(_ATTRIBUTES, flags, strict=True) if given]
        return Login(str(name), (*attributes, *groups), (*attributes, *(g for g in groups if g not in _ALLOWED)))

    @contextmanager
    def use(self, where: Mapping[str, Any], issued: Mapping[str, Any]) -> Iterator[LoginInUse]:
        session = LoginInUse(str(where["dsn"]), issued)
        try:
            yield session
        finally:
            session.close()


def _without_moving_parts(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The connection's configuration; Vault leaves the password out of it."""
    if connection is None:
        return {}
    data = dict(connection["data"])
    details = dict(data.get("connection_details") or {})
    for secret in ("password", "private_key", "tls_certificate_key"):
        details.pop(secret, None)
    return {**data, "connection_details": details}
