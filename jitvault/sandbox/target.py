"""The database `app` that tasks get access to.

Vault's connection to it is here as well. The statements are those of the shipped templates' comments, which tell an
administrator how to set up a target.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jitvault.errors import UsageError, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.sandbox.postgres import Postgres
from jitvault.vault.client import Vault

if TYPE_CHECKING:
    import psycopg

DATABASE = "app"
ORDERS = (("Ada", "ledger paper", 12), ("Grace", "relay, 12 V", 3), ("Edsger", "fountain pen", 1))

_TABLE = """
    CREATE TABLE orders (
        id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, customer text, item text, quantity integer
    )
"""
# one login that takes all locks that the server has room for would keep every other login out
NO_ADVISORY_LOCKS = """
    DO $$ DECLARE lock pg_catalog.regprocedure; BEGIN
    FOR lock IN SELECT oid FROM pg_catalog.pg_proc WHERE proname ~ '^pg_(try_)?advisory_(xact_)?lock'
    AND pronamespace = 'pg_catalog'::pg_catalog.regnamespace LOOP
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', lock); END LOOP; END $$
"""
# a login without a group may not even connect, so that a login whose groups were revoked cannot connect again
CLOSED = (
    "REVOKE CONNECT, TEMPORARY ON DATABASE app FROM PUBLIC",
    "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC",
    "GRANT CONNECT ON DATABASE app TO vault_manager, jitvault_probe",
    NO_ADVISORY_LOCKS,
)
READONLY = (
    "CREATE ROLE app_readonly NOLOGIN",
    "GRANT CONNECT ON DATABASE app TO app_readonly",
    "GRANT USAGE ON SCHEMA public TO app_readonly",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_readonly",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO app_readonly",
)
READWRITE = (
    "CREATE ROLE app_readwrite NOLOGIN",
    "GRANT CONNECT ON DATABASE app TO app_readwrite",
    "GRANT USAGE ON SCHEMA public TO app_readwrite",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app_readwrite",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app_readwrite",
)
CREATION = (
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 10;""",
    """GRANT %s TO "{{name}}" WITH INHERIT TRUE, SET FALSE;""",
)
# before PostgreSQL 16, a member cannot be kept from SET ROLE
CREATION_15 = (CREATION[0], """GRANT %s TO "{{name}}";""")

# A revocation has six parts. Each part is committed before the next one begins, so that a later part that fails undoes
# nothing. Each part has to work where the role is gone, and when it is run again. The templates' comments give reasons.
_LIMITS = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '5s';"
_EXISTS = "EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}')"
_TERMINATE = (
    "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
    "PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
    "WHERE usename OPERATOR(pg_catalog.=) '{{name}}';"
)
_LEAVE_GROUPS = (
    f"{_LIMITS} SET LOCAL lock_timeout = '500ms'; "  # noqa: S608 - Vault fills in the name
    "DO $$ DECLARE held pg_catalog.name; BEGIN "
    "FOR held IN SELECT g.rolname FROM pg_catalog.pg_auth_members AS m "
    "JOIN pg_catalog.pg_roles AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.member "
    "WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}' LOOP "
    "BEGIN EXECUTE pg_catalog.format('REVOKE %I FROM %I', held, '{{name}}'); "
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END; "
    "END LOOP; END $$; COMMIT AND CHAIN;"
)
_CLOSE_LOGIN = (
    f"{_LIMITS} SET LOCAL lock_timeout = '50ms'; "
    f"DO $$ BEGIN FOR turn IN 1..15 LOOP {_TERMINATE} "
    f"""BEGIN IF {_EXISTS} THEN ALTER ROLE "{{{{name}}}}" NOLOGIN; END IF; EXIT; """
    "EXCEPTION WHEN OTHERS THEN IF turn OPERATOR(pg_catalog.=) 15 THEN RAISE; END IF; END; "
    "END LOOP; END $$; COMMIT AND CHAIN;"
)
_END_SESSIONS = (
    f"{_LIMITS} "
    f"DO $$ BEGIN FOR turn IN 1..20 LOOP {_TERMINATE} EXIT WHEN NOT FOUND; "
    "IF turn OPERATOR(pg_catalog.=) 20 THEN RAISE EXCEPTION 'sessions of {{name}} do not end'; END IF; "
    "PERFORM pg_catalog.pg_sleep(0.025); END LOOP; END $$; COMMIT AND CHAIN;"
)
# Each object that is dropped takes an entry of the server's lock table until the end of the transaction. Therefore a
# login's large objects are removed first, no more at a time than the table has room for: a run that fails has removed
# some of them.
_UNLINK = (
    f"{_LIMITS} SET LOCAL lock_timeout = '500ms'; "  # noqa: S608 - Vault fills in the name
    "DO $$ DECLARE few pg_catalog.oid[]; BEGIN "
    f"""IF NOT {_EXISTS} THEN RETURN; END IF; GRANT "{{{{name}}}}" TO CURRENT_USER; """
    "FOR few IN SELECT pg_catalog.array_agg(s.oid) FROM ("
    "SELECT m.oid, pg_catalog.row_number() OVER () AS n FROM pg_catalog.pg_largeobject_metadata AS m "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.lomowner "
    "WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}' LIMIT 10000"
    ") AS s GROUP BY s.n OPERATOR(pg_catalog./) 100 LOOP "
    "EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) "
    "(pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) '2s'::pg_catalog.interval); "
    "BEGIN PERFORM pg_catalog.lo_unlink(o) FROM pg_catalog.unnest(few) AS o; "
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; EXIT; END; "
    "END LOOP; "
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END $$; COMMIT AND CHAIN;"
)
_DROP_OWNED = (
    f"{_LIMITS} SET LOCAL lock_timeout = '500ms'; "
    f"DO $$ BEGIN FOR turn IN 1..3 LOOP EXIT WHEN NOT {_EXISTS}; "
    """BEGIN GRANT "{{name}}" TO CURRENT_USER; DROP OWNED BY "{{name}}"; EXIT; """
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END; "
    "END LOOP; END $$; COMMIT AND CHAIN;"
)
# sessions whose transaction holds a lock on the login, as a GRANT to it does; never one of Vault's own revocations
_HOLDERS = (
    "PERFORM pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) l.objid "
    "JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid "
    "JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid "
    "WHERE l.locktype OPERATOR(pg_catalog.=) 'object' "
    "AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid "
    "AND r.rolname OPERATOR(pg_catalog.=) '{{name}}' "
    "AND NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER;"
)
_DROP_LOGIN = (
    f"{_LIMITS} SET LOCAL lock_timeout = '250ms'; "
    "DO $$ BEGIN FOR turn IN 1..4 LOOP "
    """BEGIN DROP ROLE IF EXISTS "{{name}}"; EXIT; """
    "EXCEPTION WHEN internal_error OR lock_not_available THEN "
    "IF turn OPERATOR(pg_catalog.=) 4 THEN RAISE; END IF; END; "
    f"PERFORM pg_catalog.pg_stat_clear_snapshot(); {_HOLDERS} END LOOP; END $$;"
)
REVOCATION = (_LEAVE_GROUPS, _CLOSE_LOGIN, _END_SESSIONS, _UNLINK, _DROP_OWNED, _DROP_LOGIN)

# of Vault's login and the probe's: they find nothing in a schema that others may write to, and wait for other sessions
# only for a short time
SETTINGS = (
    "SET search_path = pg_catalog, pg_temp",
    "SET lock_timeout = '1s'",
    "SET statement_timeout = '10s'",
)
# each revocation that waits for the target holds one connection; Vault's default is four
MAX_OPEN_CONNECTIONS = 20
_SET_FALSE_SINCE = 16
"""The first version of PostgreSQL whose GRANT of a role has `INHERIT` and `SET`."""


@dataclass(frozen=True, slots=True)
class Logins:
    """The passwords of Vault's login and of the probe's."""

    manager: Secret
    probe: Secret


def create(postgres: Postgres) -> Logins:
    """Create the database, its groups and logins, and return the passwords.

    The database has some rows. The logins are those of Vault and of the probe. Raises UsageError without psycopg,
    VaultUnavailable when PostgreSQL refuses a statement.
    """
    try:
        import psycopg
    except ImportError:
        raise UsageError(
            "the sandbox needs psycopg", hint="Install jitvault with its extra `sandbox`: docs/install.md says how."
        ) from None
    logins = Logins(Secret(secrets.token_urlsafe(24)), Secret(secrets.token_urlsafe(24)))
    try:
        with psycopg.connect(postgres.dsn(), autocommit=True) as server:
            server.execute(f"CREATE DATABASE {DATABASE} STRATEGY wal_log")
        with psycopg.connect(postgres.dsn(DATABASE)) as database:
            _fill(database)
            _create_logins(database, logins, modern=postgres.major >= _SET_FALSE_SINCE)
    except psycopg.Error as error:
        # without the error's own text: a statement in it can contain a password
        raise VaultUnavailable(
            f"the sandbox's PostgreSQL could not be set up ({type(error).__name__}, {error.sqlstate})",
            hint=f"See its log: {postgres.log_file}",
        ) from None
    return logins


def connect(admin: Vault, postgres: Postgres, logins: Logins) -> None:
    """Mount the database engine; create the connection `app`, two roles."""
    admin.write("sys/mounts/database", {"type": "database"})
    admin.write(
        f"database/config/{DATABASE}",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": (
                f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}/{DATABASE}"
                "?sslmode=disable"
            ),
            "username": "vault_manager",
            "password": logins.manager.reveal(),
            "max_open_connections": MAX_OPEN_CONNECTIONS,
            "allowed_roles": ["app-readonly", "app-readwrite"],
        },
    )
    creation = CREATION if postgres.major >= _SET_FALSE_SINCE else CREATION_15
    for kind in ("readonly", "readwrite"):
        admin.write(
            f"database/roles/{DATABASE}-{kind}",
            {
                "db_name": DATABASE,
                "default_ttl": "15m",
                "max_ttl": "15m",
                "creation_statements": [creation[0], creation[1] % f"{DATABASE}_{kind}"],
                "revocation_statements": list(REVOCATION),
            },
        )


def store_probe(admin: Vault, postgres: Postgres, logins: Logins) -> None:
    """Store the probe's own login where the worker reads it.

    `init` has created the mount.
    """
    dsn = postgres.dsn(DATABASE, user="jitvault_probe", password=logins.probe.reveal())
    admin.write("jitvault/data/probes/postgres", {"data": {"dsn": dsn}})


def _fill(database: psycopg.Connection[tuple[object, ...]]) -> None:
    database.execute(_TABLE)
    with database.cursor() as cursor:
        cursor.executemany("INSERT INTO orders (customer, item, quantity) VALUES (%s, %s, %s)", ORDERS)
    for statement in (*READONLY, *READWRITE):
        database.execute(statement.encode())


def _create_logins(database: psycopg.Connection[tuple[object, ...]], logins: Logins, *, modern: bool) -> None:
    from psycopg import sql

    for role, rights, password in (
        ("vault_manager", "LOGIN CREATEROLE", logins.manager),
        ("jitvault_probe", "LOGIN", logins.probe),
    ):
        create_role = sql.SQL("CREATE ROLE {} {} PASSWORD {}")
        database.execute(create_role.format(sql.Identifier(role), sql.SQL(rights), sql.Literal(password.reveal())))
        for setting in SETTINGS:
            database.execute(f"ALTER ROLE {role} {setting}".encode())
        database.execute(f"GRANT pg_signal_backend TO {role}".encode())
        if modern:
            # so that they can connect where agents have taken all other connections
            database.execute(f"GRANT pg_use_reserved_connections TO {role}".encode())
    for group in ("app_readonly", "app_readwrite"):
        # Vault can grant the group, but not use it
        how = "ADMIN TRUE, INHERIT FALSE, SET FALSE" if modern else "ADMIN OPTION"
        database.execute(f"GRANT {group} TO vault_manager WITH {how}".encode())
    for statement in CLOSED:
        database.execute(statement.encode())
