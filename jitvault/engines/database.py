"""Vault's database secrets engine, with PostgreSQL as its target.

Why a probe has to look at PostgreSQL itself: docs/vault-facts.md, "Revocation". A no-op revocation statement gives
204 and "invalid lease" while the role still logs in, and `DROP ROLE` leaves its open sessions running.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from jitvault.engines.interface import Limits, Login, ProbeResult, Read, TargetFinding, Upkeep
from jitvault.engines.postgresql import hazards, login_names, resistance, sessions, spare_session, standbys
from jitvault.engines.postgresql.client import probing
from jitvault.engines.postgresql.inspection import read_facts
from jitvault.engines.postgresql.servers import (
    LoginEverywhere,
    address_of,
    has_replayed,
    is_behind,
    merged,
    servers_of,
    written_until,
)
from jitvault.errors import InvalidInput, NotConfirmed, ProbeUnusable
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

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
_REVOCATION = "Correct the role's revocation_statements in Vault; the shipped templates' comments have them."


class DatabaseEngine:
    """The engine of `database/` mounts.

    Implements `jitvault.engines.interface.Engine`.
    """

    name: str = "database"
    capability: Capability = "read"
    non_hmac_response_keys: tuple[str, ...] = ("username",)
    remedies: Mapping[str, str] = {
        "leased": "Read what the database said. Create there what the role's creation_statements name, such as the "
        "group role (step 1 in the comment of the shipped template), or correct these statements; then check again.",
        "used": "Does the probe look at the server and database that the role's connection has, and may the new role "
        "connect there?",
        "probe_rights": "GRANT pg_signal_backend TO the probe's login.",
        "probe_sees_it": "Point the probe's dsn in jitvault/probes/ at the server that the role's connection has.",
        "revoked": "Vault's login needs pg_signal_backend and ADMIN on every role that it gives away; correct that or "
        "the role's revocation_statements.",
        "session_ended": f"{_REVOCATION} They need pg_terminate_backend before DROP ROLE.",
        "login_refused": f"{_REVOCATION} They need DROP ROLE.",
        "probe_sees_end": _REVOCATION,
        "sleeper_ended": "The probe ends such a connection where it has pg_signal_backend on every server; is its "
        "dsn the server that the role's connection has?",
        "lock_outlasted": f"{_REVOCATION} They take the groups away first, end sessions before NOLOGIN, and Vault's "
        "login has a lock_timeout.",
        "owner_dropped": f"{_REVOCATION} They give large objects away, end sessions of others that hold what the login "
        "shares with them, and commit NOLOGIN before DROP OWNED BY and DROP ROLE.",
        "many_ended": "CREATE ROLE … CONNECTION LIMIT 20 in the role's creation_statements, and revocation_statements "
        "that end all sessions before they wait.",
    }

    def __init__(self) -> None:
        self._known = sessions.KnownLogins()
        self._spare_session = spare_session.SpareSession()

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        kind, _, role = path.partition("/")
        if kind != "creds" or not role or "/" in role:
            raise InvalidInput(f"a database template's path is creds/<role>, not {path}")
        answer = read(f"{mount}/roles/{role}")
        if answer is None:
            raise InvalidInput(
                f"Vault has no role {mount}/roles/{role}",
                hint="An administrator creates it. A template that ships has the statements in its comment; for one of "
                "your own, adapt those in docs/examples/postgresql.",
            )
        data: dict[str, Any] = dict(answer["data"])
        connection = read(f"{mount}/config/{data['db_name']}")
        return {"role": data, "connection": _without_moving_parts(connection)}

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        if spec.accepted_after_end is not None:
            raise InvalidInput(
                "a database template has no accepted_after_end: nothing accepts a login that is gone",
                hint="Remove spec.accepted_after_end.",
            )
        if snapshot is not None:
            _check_plugin(snapshot)

    def why_no_credential(self, path: str, snapshot: Mapping[str, Any]) -> str | None:
        role = path.partition("/")[2]
        connection = snapshot.get("connection") or {}
        allowed = connection.get("allowed_roles")
        if allowed is None or any(fnmatchcase(role, pattern) for pattern in allowed):
            return None
        listed = ", ".join(allowed) or "none"
        database = snapshot["role"]["db_name"]
        return (
            f"The connection {database} does not allow the role {role}: add it to its allowed_roles, now {listed}. "
            "Do it while no task holds access through this connection, since a change of it ends them; then check its "
            "other templates again."
        )

    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        login = name.replace('"', '""')
        literal = name.replace("'", "''")
        return (
            f'ALTER ROLE "{login}" NOLOGIN;',
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{literal}';",  # noqa: S608 - shown, never run
            f'DROP OWNED BY "{login}"; DROP ROLE "{login}";',
        )

    def limits(self, spec: TemplateBody) -> Limits | None:
        return None

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        return None

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        return "a login is what its role makes: nothing is asked for"

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return (f"{mount}/roles/{path.partition('/')[2]}", f"{mount}/config/*")

    def probe(
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

    def inspect(
        self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None
    ) -> Sequence[TargetFinding]:
        facts = read_facts(servers_of(where)[0], snapshot.get("connection") or {}, name)
        return (*hazards.findings(facts), *standbys.unnamed(where))

    finds_unnamed = True
    resistances: Mapping[str, str] = resistance.RESISTANCES

    @contextmanager
    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any], other: Mapping[str, Any] | None
    ) -> Iterator[resistance.Sessions | resistance.Sleeper]:
        with resistance.resist(step, servers_of(where)[0], issued, other) as resisting:
            yield resisting

    @contextmanager
    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> Iterator[LoginEverywhere]:
        # a template of this engine names no verifiers
        session = LoginEverywhere(servers_of(where), issued)
        try:
            yield session
        finally:
            session.close()


def _rights_at(dsn: str) -> bool | NotConfirmed:
    """Return whether the probe may end sessions, or why nobody knows."""
    try:
        with probing(dsn) as target:
            row = target.execute(_RIGHTS).fetchone()
    except NotConfirmed as error:
        return error
    return bool(row and row[0])


def _check_plugin(snapshot: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a connection to something other than PostgreSQL.

    Whether another database lets a login in after its revocation is not known to this engine, so nothing is granted
    there, whatever the template says of its proof.
    """
    name, plugin = snapshot["role"]["db_name"], snapshot["connection"].get("plugin_name")
    if plugin is None:
        raise InvalidInput(
            f"Vault has no connection {name}", hint="An administrator makes it, or corrects the role's db_name."
        )
    if plugin != login_names.PLUGIN:
        raise InvalidInput(
            f"the connection {name} has the plugin {plugin:.80}, and jitvault has no engine for its database: whether "
            "a login there ends with its revocation cannot be found out",
            hint=f"Only connections with {login_names.PLUGIN} can be granted. Remove the template.",
        )


def _without_moving_parts(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the connection's configuration.

    Vault leaves the password out of it.
    """
    if connection is None:
        return {}
    data = dict(connection["data"])
    details = dict(data.get("connection_details") or {})
    for secret in ("password", "private_key", "tls_certificate_key"):
        details.pop(secret, None)
    return {**data, "connection_details": details}
