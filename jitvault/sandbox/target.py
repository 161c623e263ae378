"""The database `app` that tasks get access to, and Vault's connection to it.

Statement by statement what the comments of the shipped templates tell an administrator to do.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jitvault.domain.secret import Secret
from jitvault.errors import UsageError, VaultUnavailable
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
READONLY = (
    "CREATE ROLE app_readonly NOLOGIN",
    "GRANT USAGE ON SCHEMA public TO app_readonly",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_readonly",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO app_readonly",
)
READWRITE = (
    "CREATE ROLE app_readwrite NOLOGIN",
    "GRANT USAGE ON SCHEMA public TO app_readwrite",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app_readwrite",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app_readwrite",
)
CREATION = (
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';""",
    """GRANT %s TO "{{name}}";""",
)
# what was begun and did not come to its end has to be possible once more
REVOCATION = (
    """DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') """
    """THEN ALTER ROLE "{{name}}" NOLOGIN; END IF; END $$;""",
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = '{{name}}';",
    'DROP ROLE IF EXISTS "{{name}}";',
)


@dataclass(frozen=True, slots=True)
class Logins:
    """The passwords of Vault's login and of the probe's."""

    manager: Secret
    probe: Secret


def create(postgres: Postgres) -> Logins:
    """Make the database with its rows, the groups, and the logins of Vault and of the probe.

    Raises UsageError without psycopg, VaultUnavailable when PostgreSQL refuses a statement.
    """
    try:
        import psycopg
    except ImportError:
        raise UsageError("the sandbox needs psycopg", hint="pip install 'jitvault[sandbox]'") from None
    logins = Logins(Secret(secrets.token_urlsafe(24)), Secret(secrets.token_urlsafe(24)))
    try:
        with psycopg.connect(postgres.dsn(), autocommit=True) as server:
            server.execute(f"CREATE DATABASE {DATABASE} STRATEGY wal_log")
        with psycopg.connect(postgres.dsn(DATABASE)) as database:
            _fill(database)
            _create_logins(database, logins)
    except psycopg.Error as error:
        # not the error's own words: a statement in it can hold a password
        raise VaultUnavailable(
            f"the sandbox's PostgreSQL could not be set up ({type(error).__name__}, {error.sqlstate})",
            hint=f"Its whole log: {postgres.log_file}",
        ) from None
    return logins


def connect(admin: Vault, postgres: Postgres, logins: Logins) -> None:
    """Mount Vault's database engine, and make the connection `app` and its two roles."""
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
            "allowed_roles": ["app-readonly", "app-readwrite"],
        },
    )
    for kind in ("readonly", "readwrite"):
        admin.write(
            f"database/roles/{DATABASE}-{kind}",
            {
                "db_name": DATABASE,
                "default_ttl": "15m",
                "max_ttl": "1h",
                "creation_statements": [CREATION[0], CREATION[1] % f"{DATABASE}_{kind}"],
                "revocation_statements": list(REVOCATION),
            },
        )


def store_probe(admin: Vault, postgres: Postgres, logins: Logins) -> None:
    """Put the probe's own login where the worker reads it; `init` has made the mount."""
    dsn = postgres.dsn(DATABASE, user="jitvault_probe", password=logins.probe.reveal())
    admin.write("jitvault/data/probes/postgres", {"data": {"dsn": dsn}})


def _fill(database: psycopg.Connection[tuple[object, ...]]) -> None:
    database.execute(_TABLE)
    with database.cursor() as cursor:
        cursor.executemany("INSERT INTO orders (customer, item, quantity) VALUES (%s, %s, %s)", ORDERS)
    for statement in (*READONLY, *READWRITE):
        database.execute(statement.encode())


def _create_logins(database: psycopg.Connection[tuple[object, ...]], logins: Logins) -> None:
    from psycopg import sql

    for role, rights, password in (
        ("vault_manager", "LOGIN CREATEROLE", logins.manager),
        ("jitvault_probe", "LOGIN", logins.probe),
    ):
        create_role = sql.SQL("CREATE ROLE {} {} PASSWORD {}")
        database.execute(create_role.format(sql.Identifier(role), sql.SQL(rights), sql.Literal(password.reveal())))
        database.execute(f"GRANT pg_signal_backend TO {role}".encode())
    for group in ("app_readonly", "app_readwrite"):
        # PostgreSQL 16 and newer: it can give the group away and not use it
        grant = f"GRANT {group} TO vault_manager WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        database.execute(grant.encode())
