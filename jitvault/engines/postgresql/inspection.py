"""Read what decides whether a PostgreSQL login can escape its end.

It is read from the target and from Vault's connection to it, by the probe's own login, which may see and end
sessions and nothing else: everything here is open to each login. `hazards` judges the facts. Every name
in a query has its schema, because this module looks for schemas that others may write to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from jitvault.engines.postgresql import client
from jitvault.errors import NotConfirmed

if TYPE_CHECKING:
    import psycopg

_OPTION = re.compile(r"(?:^|\s)(?:-c\s?|--)")
PUBLIC = "public"
"""PostgreSQL's name for everybody where a role is expected."""

# The settings of a role, of a database, or of both; a later row is stronger.
_SETTINGS = """
    SELECT pg_catalog.unnest(s.setconfig) FROM pg_catalog.pg_db_role_setting AS s
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) s.setrole
    WHERE (d.datname IS NULL OR d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    AND (r.rolname IS NULL OR r.rolname OPERATOR(pg_catalog.=) %s::pg_catalog.name)
    ORDER BY r.rolname IS NOT NULL, d.datname IS NOT NULL
"""
_ROLE = """
    SELECT rolsuper, rolconnlimit, rolcreaterole, rolcreatedb, rolreplication,
        ARRAY(SELECT g.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS g
              WHERE pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER'::pg_catalog.text)
              AND g.oid OPERATOR(pg_catalog.<>) r.oid ORDER BY 1),
        ARRAY(SELECT g.rolname::pg_catalog.text FROM pg_catalog.pg_auth_members AS m
              JOIN pg_catalog.pg_roles AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid
              WHERE m.member OPERATOR(pg_catalog.=) r.oid AND m.admin_option AND NOT g.rolcanlogin ORDER BY 1)
    FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) %s::pg_catalog.name
"""
_MAY_BECOME = """
    SELECT g.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS g
    WHERE pg_catalog.pg_has_role(%s::pg_catalog.name, g.oid, 'SET'::pg_catalog.text)
    AND g.rolname OPERATOR(pg_catalog.<>) %s::pg_catalog.name ORDER BY 1
"""
# The roles that the holders are or can become, and everybody.
_HOLDERS = """
    WITH holders AS (
        SELECT DISTINCT g.oid, g.rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles AS r
        JOIN pg_catalog.pg_roles AS g ON pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER'::pg_catalog.text)
        WHERE r.rolname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.name[])
        UNION ALL SELECT 0::pg_catalog.oid, 'public'::pg_catalog.text
    )
"""
_SCHEMAS = f"""{_HOLDERS}
    SELECT n.nspname::pg_catalog.text, h.name FROM pg_catalog.pg_namespace AS n CROSS JOIN holders AS h
    WHERE n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast|temp)'::pg_catalog.text
    AND pg_catalog.has_schema_privilege(h.name::pg_catalog.name, n.oid, 'CREATE'::pg_catalog.text) ORDER BY 1, 2
"""  # noqa: S608 - only the constant above goes in
_DATABASES = f"""{_HOLDERS}
    SELECT d.datname::pg_catalog.text, h.name,
        pg_catalog.has_database_privilege(h.name::pg_catalog.name, d.oid, 'CONNECT'::pg_catalog.text),
        pg_catalog.has_database_privilege(h.name::pg_catalog.name, d.oid, 'CREATE'::pg_catalog.text),
        h.oid OPERATOR(pg_catalog.=) d.datdba, d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    FROM pg_catalog.pg_database AS d CROSS JOIN holders AS h WHERE d.datallowconn ORDER BY 1, 2
"""  # noqa: S608 - only the constant above goes in
_EVENT_TRIGGERS = f"""{_HOLDERS}
    SELECT e.evtname::pg_catalog.text, h.name FROM pg_catalog.pg_event_trigger AS e
    JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) e.evtfoid
    JOIN holders AS h ON h.oid OPERATOR(pg_catalog.=) p.proowner
    WHERE e.evtenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char" ORDER BY 1, 2
"""  # noqa: S608 - only the constant above goes in
_SERVER = """
    SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog./) 10000,
        pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int4,
        pg_catalog.current_setting('max_connections')::pg_catalog.int4,
        coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int4,
        pg_catalog.current_setting('authentication_timeout'), CURRENT_USER::pg_catalog.text,
        pg_catalog.date_part('epoch'::pg_catalog.text, pg_catalog.clock_timestamp())
"""
_LOCKERS = f"""{_HOLDERS}
    SELECT DISTINCT h.name FROM holders AS h CROSS JOIN pg_catalog.pg_proc AS p
    WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
    AND p.proname OPERATOR(pg_catalog.~) '^pg_(try_)?advisory_(xact_)?lock'::pg_catalog.text
    AND pg_catalog.has_function_privilege(h.name::pg_catalog.name, p.oid, 'EXECUTE'::pg_catalog.text) ORDER BY 1
"""  # noqa: S608 - only the constant above goes in
_MAKERS = f"""{_HOLDERS}
    SELECT DISTINCT h.name FROM holders AS h CROSS JOIN pg_catalog.pg_proc AS p
    WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
    AND p.proname OPERATOR(pg_catalog.~) '^lo_(creat|create|from_bytea|import)$'::pg_catalog.text
    AND pg_catalog.has_function_privilege(h.name::pg_catalog.name, p.oid, 'EXECUTE'::pg_catalog.text) ORDER BY 1
"""  # noqa: S608 - only the constant above goes in
LEFTOVER = "jitvault_leftover"
"""The role that the shipped statements give large objects to."""
_LEFTOVER = f"""{_HOLDERS}
    SELECT NOT r.rolcanlogin AND pg_catalog.pg_has_role(%s::pg_catalog.name, r.oid, %s::pg_catalog.text)
        AND NOT EXISTS (SELECT FROM holders AS h WHERE h.oid OPERATOR(pg_catalog.=) r.oid),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata AS m
         WHERE m.lomowner OPERATOR(pg_catalog.=) r.oid),
        ARRAY(SELECT m.oid FROM pg_catalog.pg_largeobject_metadata AS m
              WHERE m.lomowner OPERATOR(pg_catalog.=) r.oid ORDER BY 1 LIMIT 5)
    FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) '{LEFTOVER}'::pg_catalog.name
"""  # noqa: S608 - only constants go in
# Rights that a holder may pass on, and objects of a holder's: nobody but it or a superuser takes back what it grants.
_GIVERS = f"""{_HOLDERS}
    SELECT DISTINCT h.name FROM holders AS h WHERE EXISTS (
        SELECT FROM pg_catalog.pg_shdepend AS d WHERE d.refobjid OPERATOR(pg_catalog.=) h.oid
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
        AND d.deptype OPERATOR(pg_catalog.=) 'o'::pg_catalog."char"
        AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid
    ) OR EXISTS (
        SELECT FROM (
            SELECT relacl FROM pg_catalog.pg_class UNION ALL SELECT attacl FROM pg_catalog.pg_attribute
            UNION ALL SELECT proacl FROM pg_catalog.pg_proc UNION ALL SELECT nspacl FROM pg_catalog.pg_namespace
            UNION ALL SELECT typacl FROM pg_catalog.pg_type UNION ALL SELECT lanacl FROM pg_catalog.pg_language
            UNION ALL SELECT datacl FROM pg_catalog.pg_database UNION ALL SELECT paracl FROM pg_catalog.pg_parameter_acl
            UNION ALL SELECT fdwacl FROM pg_catalog.pg_foreign_data_wrapper
            UNION ALL SELECT srvacl FROM pg_catalog.pg_foreign_server
            UNION ALL SELECT spcacl FROM pg_catalog.pg_tablespace
            UNION ALL SELECT lomacl FROM pg_catalog.pg_largeobject_metadata
        ) AS a (rights) CROSS JOIN LATERAL pg_catalog.aclexplode(a.rights) AS g
        WHERE g.is_grantable AND g.grantee OPERATOR(pg_catalog.=) h.oid
    ) ORDER BY 1
"""  # noqa: S608 - only the constant above goes in
SET_SINCE = 16
"""The first version whose GRANT of a role can forbid SET ROLE, and which reserves connections for a group."""


@dataclass(frozen=True, slots=True)
class VaultConnection:
    """Vault's connection to the target: login, database and parameters."""

    username: str
    database: str
    parameters: Mapping[str, str]
    max_open: int
    closes: str = ""
    """Why Vault does not keep its connections open; empty if it does."""


@dataclass(frozen=True, slots=True)
class Role:
    """A login with its rights, its groups and its settings.

    `gives` are the groups that it may grant, and `becomes` those that it can become.
    """

    name: str
    superuser: bool = False
    connection_limit: int = -1
    attributes: Sequence[str] = ()
    groups: Sequence[str] = ()
    gives: Sequence[str] = ()
    becomes: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leftover:
    """The role that large objects are given to, if Vault can do that.

    `count` are those that it has, and `some` are the first of them.
    """

    ready: bool = False
    count: int = 0
    some: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a target shows about itself.

    Each pair is a thing and who may use it. `holders` in the queries are the credential, or the groups that
    credentials are put in.
    """

    version: int
    vault: Role | None
    probe: Role
    holder: Role | None
    connection: VaultConnection
    schemas: Sequence[tuple[str, str]]
    creators: Sequence[str]
    owners: Sequence[str]
    let_in: Sequence[tuple[str, str]]
    event_triggers: Sequence[tuple[str, str]]
    max_prepared_transactions: int
    reserved_connections: int
    authentication_timeout: str = "10s"
    lockers: Sequence[str] = ()
    """Who may take advisory locks."""
    makers: Sequence[str] = ()
    """Who may make large objects."""
    givers: Sequence[str] = ()
    """Who may grant others a right on something."""
    leftover: Leftover = Leftover()
    ahead_s: int = 0
    """By how many seconds the target's clock is ahead of this host's."""


def connection_of(configuration: Mapping[str, Any]) -> VaultConnection:
    """Return Vault's connection from the engine's configuration.

    Raises NotConfirmed if the configuration says too little.
    """
    details = configuration.get("connection_details") or {}
    user, database, parameters = _parts(str(details.get("connection_url") or ""))
    username = str(details.get("username") or "") or user
    if not username or not database:
        raise NotConfirmed("Vault's connection names no login or no database, so its statements cannot be checked")
    return VaultConnection(
        username, database, parameters, int(details.get("max_open_connections") or 0), _closes(details)
    )


def _closes(details: Mapping[str, Any]) -> str:
    lifetime = str(details.get("max_connection_lifetime") or "0s")
    if lifetime.strip("0hms."):
        return f"max_connection_lifetime = {lifetime}"
    idle = int(details.get("max_idle_connections") or 0)
    return f"max_idle_connections = {idle}" if idle < 0 else ""


def _parts(url: str) -> tuple[str, str, dict[str, str]]:
    """Return login, database and parameters of a connection.

    The connection is a URL, or `key=value` pairs.
    """
    if url.startswith(("postgres://", "postgresql://")):
        # Vault's placeholders are no part of a URL, and a colon between them begins no port
        parts = urlsplit(url.replace("{{username}}", "").replace("{{password}}", ""))
        user = unquote(parts.netloc.rpartition("@")[0].partition(":")[0])
        query = dict(parse_qsl(parts.query))
        return user, unquote(parts.path.lstrip("/")) or query.get("dbname", ""), query
    pairs = [word.partition("=") for word in url.split()]
    fields = {key: value.strip("'") for key, _, value in pairs}
    user = fields.get("user", "")
    return "" if user.startswith("{{") else user, fields.get("dbname") or fields.get("database", ""), fields


def read_facts(dsn: str, configuration: Mapping[str, Any], name: str | None) -> Facts:
    """Ask the server at `dsn`, in the database of Vault's connection.

    Raises NotConfirmed.
    """
    from psycopg.conninfo import make_conninfo

    connection = connection_of(configuration)
    with client.probing(make_conninfo(dsn, dbname=connection.database)) as target:
        row = target.execute(_SERVER).fetchone()
        if row is None:
            raise NotConfirmed("the target returned nothing about itself")
        version, prepared, _, reserved, patience, probe, clock = row
        ahead_s = round(clock - time.time())
        vault = _role(target, connection.username, connection.parameters)
        holder = _role(target, name, {}, version=version) if name else None
        if name and holder is None:
            raise NotConfirmed(f"{name} is not at the target")
        holders = [name] if name else list(vault.gives if vault else ())
        become = "SET" if version >= SET_SINCE else "MEMBER"
        left = target.execute(_LEFTOVER, (holders, connection.username, become)).fetchone() if vault else None
        databases = target.execute(_DATABASES, (holders,)).fetchall()
        here = [entry for entry in databases if entry[5]]
        own = _role(target, probe, _parameters_of(dsn))
        return Facts(
            version=version,
            vault=vault,
            probe=own or Role(probe),
            holder=holder,
            connection=connection,
            schemas=_pairs(target.execute(_SCHEMAS, (holders,)).fetchall()),
            creators=[entry[1] for entry in here if entry[3]],
            owners=[entry[1] for entry in here if entry[4]],
            let_in=[(entry[0], entry[1]) for entry in databases if entry[2] and (not entry[5] or entry[1] == PUBLIC)],
            event_triggers=_pairs(target.execute(_EVENT_TRIGGERS, (holders,)).fetchall()),
            max_prepared_transactions=prepared,
            reserved_connections=reserved,
            authentication_timeout=patience,
            lockers=_names(target.execute(_LOCKERS, (holders,)).fetchall()),
            makers=_names(target.execute(_MAKERS, (holders,)).fetchall()),
            givers=_names(target.execute(_GIVERS, (holders,)).fetchall()),
            leftover=Leftover(*left) if left else Leftover(),
            ahead_s=ahead_s,
        )


def _parameters_of(dsn: str) -> dict[str, str]:
    from psycopg.conninfo import conninfo_to_dict

    return {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}


def _role(
    target: psycopg.Connection[Any], name: str, parameters: Mapping[str, str], *, version: int = 0
) -> Role | None:
    row = target.execute(_ROLE, (name,)).fetchone()
    if row is None:
        return None
    superuser, limit, *flags, groups, gives = row
    words = ("CREATEROLE", "CREATEDB", "REPLICATION")
    becomes = target.execute(_MAY_BECOME, (name, name)).fetchall() if version >= SET_SINCE else ()
    return Role(
        name=name,
        superuser=superuser,
        connection_limit=limit,
        attributes=[word for word, given in zip(words, flags, strict=True) if given],
        groups=groups,
        gives=gives,
        becomes=[group[0] for group in becomes],
        settings=effective(target.execute(_SETTINGS, (name,)).fetchall(), parameters),
    )


def effective(rows: Iterable[Sequence[str]], parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a new connection.

    Its own parameters beat those that are set at the server. `rows` hold `name=value`, the weakest first. A
    parameter of a connection URL is `name=value` too, or one of the server's command line in `options`.
    """
    found = dict(_split(row[0]) for row in rows)
    words = _OPTION.split(parameters.get("options", ""))
    found |= dict(_split(word.strip().replace("\\ ", " ")) for word in words if "=" in word)
    return found | {key.lower(): value for key, value in parameters.items() if key != "options"}


def _split(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().replace("-", "_").lower(), value.strip()


def _names(rows: Iterable[Sequence[Any]]) -> list[str]:
    return [str(row[0]) for row in rows]


def _pairs(rows: Iterable[Sequence[Any]]) -> list[tuple[str, str]]:
    return [(str(row[0]), str(row[1])) for row in rows]
