"""Judge which of a PostgreSQL target's facts let a login escape its end.

Each rule is about something that was done to the real server (docs/vault-facts.md, "What an agent does at a
PostgreSQL target"). Pure: `inspection` asks, this module decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jitvault.engines.interface import Finding
from jitvault.engines.postgresql.inspection import LEFTOVER, PUBLIC, SET_SINCE, Facts, Role

CODE, BOUNDS = "no_foreign_code", "bounded"
SAFE_PATH = ("pg_catalog", "pg_temp")
LONGEST_LOCK_MS, LONGEST_STATEMENT_MS = 5_000, 30_000
VAULT_DEFAULT_OPEN = 4
LONGEST_LOGIN_MS = 20_000
LARGEST_SKEW_S = 30
OLDEST = 15
"""The oldest PostgreSQL on which the statements and the probe were tried."""
_NEW_CONNECTIONS = "What is set for a role holds for its new connections: then `vault write -f MOUNT/reset/CONNECTION`."
_MAKE = "lo_create(oid), lo_creat(integer), lo_from_bytea(oid, bytea)"
_UNLINK = (
    "SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata "  # noqa: S608 - shown, never run
    f"WHERE lomowner = '{LEFTOVER}'::regrole LIMIT 1000) AS one"
)
_UNITS_MS = {"us": 0.001, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
# Members of these roles end others' sessions, take the connections that are kept for the probe, or leave the database.
POWERFUL = frozenset(
    {
        "pg_signal_backend",
        "pg_use_reserved_connections",
        "pg_execute_server_program",
        "pg_read_server_files",
        "pg_write_server_files",
        "pg_create_subscription",
    }
)


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return what lets a login escape its end, certain findings first."""
    rules = (_version, _code, _waits, _holder, _left, _server, _floods)
    found = [finding for rule in rules for finding in rule(facts)]
    return tuple(sorted(found, key=lambda finding: not finding.certain))


def _version(facts: Facts) -> Iterator[Finding]:
    if facts.version < OLDEST:
        yield Finding(
            BOUNDS,
            "version",
            f"the target is PostgreSQL {facts.version}; it is untested whether a login can be revoked there",
            f"Use PostgreSQL {OLDEST} or newer.",
        )


def _code(facts: Facts) -> Iterator[Finding]:
    """Yield what lets an agent's code be run by a stronger login.

    That is a login with more rights than the agent.
    """
    for role in _stronger(facts):
        path = names_in(role.settings.get("search_path", ""))
        if path != SAFE_PATH:
            yield Finding(
                CODE,
                f"search_path of {role.name}",
                f"{role.name} looks for functions in {', '.join(path) or 'the default search_path'}: what somebody "
                "puts there runs as that login",
                f"ALTER ROLE {role.name} SET search_path = {', '.join(SAFE_PATH)}; nothing in a connection string or "
                f"for the database may set another. {_NEW_CONNECTIONS}",
            )
    for schema in sorted({schema for schema, _ in facts.schemas}):
        who = _who((name for found, name in facts.schemas if found == schema), facts.holder)
        yield Finding(
            CODE,
            f"CREATE in {schema}",
            f"{who} may CREATE in schema {schema} of {facts.connection.database}",
            f"REVOKE CREATE ON SCHEMA {schema} FROM {who}; databases that came from PostgreSQL 14 or before give it to "
            "PUBLIC.",
        )
    if facts.creators:
        who = _who(facts.creators, facts.holder)
        yield Finding(
            CODE,
            "CREATE in the database",
            f"{who} may make schemas in {facts.connection.database}",
            f"REVOKE CREATE ON DATABASE {facts.connection.database} FROM {who}.",
        )
    if facts.owners:
        yield Finding(
            CODE,
            "owner of the database",
            f"{_who(facts.owners, facts.holder)} owns {facts.connection.database}, and may set defaults for new "
            "connections to it",
            "Give the database to a role that no task gets.",
        )
    for trigger, owner in facts.event_triggers:
        yield Finding(
            CODE,
            f"event trigger {trigger}",
            f"the function of event trigger {trigger} belongs to {owner}, and runs with the rights of whoever makes "
            "the change",
            f"Give the function to a role that no task gets, or DROP EVENT TRIGGER {trigger}.",
        )


def _stronger(facts: Facts) -> Sequence[Role]:
    return [role for role in (facts.vault, facts.probe) if role is not None]


def _waits(facts: Facts) -> Iterator[Finding]:
    """Yield what keeps a revocation waiting.

    It may wait for an agent, or for other revocations that wait for one.
    """
    if facts.vault is None:
        yield Finding(
            BOUNDS,
            "Vault's login",
            f"{facts.connection.username}, which Vault's connection logs in as, is not at the probe's server",
            "Point the probe's dsn at the server that the role's connection has.",
        )
        return
    for name, longest_ms in (("lock_timeout", LONGEST_LOCK_MS), ("statement_timeout", LONGEST_STATEMENT_MS)):
        value = facts.vault.settings.get(name, "0")
        if not 0 < milliseconds(value) <= longest_ms:
            yield Finding(
                BOUNDS,
                f"{name} of {facts.vault.name}",
                f"{facts.vault.name} has {name} = {value}: a lock of an agent delays its revocations",
                f"ALTER ROLE {facts.vault.name} SET {name} = '{'1s' if name == 'lock_timeout' else '10s'}'; at most "
                f"{longest_ms // 1000}s.",
            )
    if facts.connection.max_open <= VAULT_DEFAULT_OPEN:
        yield Finding(
            BOUNDS,
            "Vault's connections",
            f"Vault has {facts.connection.max_open or VAULT_DEFAULT_OPEN} connections to the target: that "
            "many waiting revocations block all others",
            "Set max_open_connections=20 in the connection's configuration.",
        )
    if facts.vault.superuser:
        yield Finding(
            BOUNDS,
            "rights of Vault's login",
            f"{facts.vault.name} is a superuser: its statements may do everything",
            f"ALTER ROLE {facts.vault.name} NOSUPERUSER CREATEROLE, with ADMIN on the groups that it grants.",
            certain=False,
        )


def _holder(facts: Facts) -> Iterator[Finding]:
    """Yield rights that the credential does not need and that hinder its end."""
    holder = facts.holder
    if holder is None:
        return
    statements = "Correct the role's creation_statements in Vault; the shipped templates' comments have them."
    if holder.connection_limit < 1:
        yield Finding(
            BOUNDS,
            "CONNECTION LIMIT",
            f"{holder.name} may open every connection that the target has",
            f"CREATE ROLE … CONNECTION LIMIT 20. {statements}",
        )
    if holder.becomes and facts.version >= SET_SINCE:
        yield Finding(
            BOUNDS,
            "SET ROLE",
            f"{holder.name} may SET ROLE to {', '.join(holder.becomes)}, and its sessions keep those rights when it "
            "is gone",
            f"GRANT … WITH INHERIT TRUE, SET FALSE. {statements}",
        )
    too_much = [*(("SUPERUSER",) if holder.superuser else ()), *holder.attributes]
    too_much += sorted(POWERFUL & set(holder.groups))
    if too_much:
        yield Finding(
            BOUNDS,
            "rights of the login",
            f"{holder.name} has {', '.join(too_much)}",
            f"Revoke that from the login and from its groups. {statements}",
        )
    if holder.gives:
        yield Finding(
            BOUNDS,
            "ADMIN",
            f"{holder.name} may grant {', '.join(holder.gives)} to other logins",
            f"Grant the group without ADMIN OPTION. {statements}",
        )


def _left(facts: Facts) -> Iterator[Finding]:
    """Yield what lets a login leave something that keeps it.

    Or other logins, to which it grants a right.
    """
    where = facts.connection.database
    if facts.makers:
        who = _who(facts.makers, facts.holder)
        yield Finding(
            BOUNDS,
            "large objects",
            f"{who} may make large objects in {where}, "
            + (
                f"which are given to {LEFTOVER} at a login's end"
                if facts.leftover.ready
                else f"and Vault's login cannot give them to {LEFTOVER}: one that is large enough keeps its owner "
                "from being dropped"
            ),
            f"As their owner (others get a warning only): REVOKE EXECUTE ON FUNCTION {_MAKE} FROM {who}. If tasks need "
            f"large objects: CREATE ROLE {LEFTOVER} NOLOGIN, and GRANT it to Vault's login alone.",
            certain=not facts.leftover.ready,
        )
    if facts.givers:
        who = _who(facts.givers, facts.holder)
        yield Finding(
            BOUNDS,
            "rights to pass on",
            f"{who} owns something, or has a right WITH GRANT OPTION: what a task grants to another task's login keeps "
            "that login from being dropped",
            f"REVOKE GRANT OPTION FOR … FROM {who}, and give what it owns to a role that no task gets.",
        )
    if facts.leftover.count:
        some = ", ".join(map(str, facts.leftover.some))
        more = " and others" if facts.leftover.count > len(facts.leftover.some) else ""
        yield Finding(
            BOUNDS,
            "large objects that are left",
            f"{facts.leftover.count} large objects in {where} are left of logins that are gone: {some}{more}",
            f"As a superuser, until none is left: {_UNLINK}",
            certain=False,
        )


def _server(facts: Facts) -> Iterator[Finding]:
    """Yield what helps to make a revocation slow.

    It is no defect of the template.
    """
    if abs(facts.ahead_s) > LARGEST_SKEW_S:
        yield Finding(
            BOUNDS,
            "clock",
            f"the target's clock is {abs(facts.ahead_s)} s {'ahead of' if facts.ahead_s > 0 else 'behind'} this "
            "host's: so a login that nobody revokes works for longer, or a new one not at all",
            "Set both by NTP.",
            certain=False,
        )
    let_in = sorted({database for database, _ in facts.let_in})
    if let_in:
        who = _who((name for _, name in facts.let_in), facts.holder)
        yield Finding(
            BOUNDS,
            "other databases",
            f"{who} may connect to {', '.join(let_in)}: objects of a login there prevent that its role is dropped",
            f"REVOKE CONNECT ON DATABASE {', '.join(let_in)} FROM {who}, and GRANT it to the groups that need it.",
            certain=False,
        )
    if facts.max_prepared_transactions:
        yield Finding(
            BOUNDS,
            "prepared transactions",
            f"max_prepared_transactions = {facts.max_prepared_transactions}: a prepared "
            "transaction that holds a login's row prevents everybody, even a superuser, from revoking that login",
            "Set it to 0 if nothing needs it. Otherwise look at pg_prepared_xacts when an end is not proven: "
            "ROLLBACK PREPARED, as the login's owner or a superuser, releases it.",
            certain=False,
        )
    if facts.version >= SET_SINCE:
        lacking = [role.name for role in _stronger(facts) if "pg_use_reserved_connections" not in role.groups]
        if not facts.reserved_connections or lacking:
            yield Finding(
                BOUNDS,
                "reserved connections",
                f"reserved_connections = {facts.reserved_connections}"
                + (f", and {', '.join(lacking)} may not use them" if lacking else "")
                + ": agents that take every connection prevent their own revocation",
                "Set reserved_connections = 10, and GRANT pg_use_reserved_connections TO both logins.",
                certain=False,
            )


def _floods(facts: Facts) -> Iterator[Finding]:
    """Yield what lets one party keep everybody out of the server.

    The party is a login, or a stranger.
    """
    if facts.lockers:
        who = _who(facts.lockers, facts.holder)
        yield Finding(
            BOUNDS,
            "advisory locks",
            f"{who} may take advisory locks, and if one login takes all of them nobody else can log in",
            f"REVOKE EXECUTE on them FROM {who}, if nothing needs them: the shipped templates' comments have the "
            "statement. Keep a worker running: it ends such a session.",
            certain=False,
        )
    if milliseconds(facts.authentication_timeout) > LONGEST_LOGIN_MS:
        yield Finding(
            BOUNDS,
            "authentication_timeout",
            f"authentication_timeout = {facts.authentication_timeout}: anybody who reaches the port can take every "
            "connection for that long, the reserved ones too, without a password",
            "Set authentication_timeout = 10s, and let nobody but agents, Vault and jitvault reach the port.",
            certain=False,
        )
    if facts.connection.closes:
        yield Finding(
            BOUNDS,
            "Vault's open connections",
            f"{facts.connection.closes}: Vault has no connection left if others take all of the target's",
            "Set max_connection_lifetime=0s and leave max_idle_connections out of the connection's configuration.",
            certain=False,
        )


def names_in(search_path: str) -> tuple[str, ...]:
    """Return the schemas of a search_path in their order."""
    return tuple(name.strip().strip('"') for name in search_path.split(",") if name.strip())


def milliseconds(value: str) -> float:
    """Return the milliseconds of a setting such as `1s`, `500ms` or `1000`.

    The result is 0 for a value that is no duration.
    """
    text = value.strip().strip("'").lower()
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(digits) :].strip() or "ms"
    try:
        return float(digits) * _UNITS_MS[unit]
    except (ValueError, KeyError):
        return 0


def _who(names: Iterable[str], holder: Role | None) -> str:
    """Return the roles that may do something.

    The login itself is named only if it may not do so through one of the other roles.
    """
    found = set(names)
    if PUBLIC in found:
        return "PUBLIC"
    if holder is not None and len(found) > 1:
        found.discard(holder.name)
    return ", ".join(sorted(found))
