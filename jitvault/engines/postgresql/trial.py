"""What a template check tries with a PostgreSQL login."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from jitvault.engines.interface import Finding, Trial
from jitvault.engines.postgresql import hazards, resistance, standbys
from jitvault.engines.postgresql.inspection import read_facts
from jitvault.engines.postgresql.servers import LoginEverywhere, servers_of
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

_REVOCATION = "Correct the role's revocation_statements in Vault; the shipped templates' comments have them."


class PostgresqlTrial(Trial):
    """Uses a login, resists its end, and looks for what else lets it escape."""

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
    resistances = resistance.RESISTANCES

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

    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        login = name.replace('"', '""')
        literal = name.replace("'", "''")
        return (
            f'ALTER ROLE "{login}" NOLOGIN;',
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{literal}';",  # noqa: S608 - shown, never run
            f'DROP OWNED BY "{login}"; DROP ROLE "{login}";',
        )

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

    def inspect(self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None) -> Sequence[Finding]:
        facts = read_facts(servers_of(where)[0], snapshot.get("connection") or {}, name)
        return (*hazards.findings(facts), *standbys.unnamed(where))

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any], other: Mapping[str, Any] | None
    ) -> AbstractContextManager[resistance.Sessions | resistance.Sleeper]:
        return resistance.resist(step, servers_of(where)[0], issued, other)
