"""The database `app` that tasks get access to.

Vault's connection to it is here as well. The statements are those of the shipped templates' comments, which tell an
administrator how to set up a target.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jitvault.engines.postgresql.client import SETTINGS, VAULTS_LOGINS
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
# What a login makes with these is its own, and one object can be so large that nothing removes it in time.
NO_LARGE_OBJECTS = (
    "REVOKE EXECUTE ON FUNCTION pg_catalog.lo_create(oid), pg_catalog.lo_creat(integer), "
    "pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC"
)
LEFTOVER = (
    "CREATE ROLE jitvault_leftover NOLOGIN",
    "GRANT jitvault_leftover TO vault_manager",
)
# a login without a group may not even connect, so that a login whose groups were revoked cannot connect again
CLOSED = (
    "REVOKE CONNECT, TEMPORARY ON DATABASE app FROM PUBLIC",
    "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC",
    "GRANT CONNECT ON DATABASE app TO vault_manager, jitvault_probe",
    NO_ADVISORY_LOCKS,
    NO_LARGE_OBJECTS,
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
_SAFE = "SET LOCAL search_path = pg_catalog, pg_temp;"
_LIMITS = f"{_SAFE} SET LOCAL statement_timeout = '5s';"
_EXISTS = "EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}')"
_TERMINATE = (
    "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
    "PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
    "WHERE usename OPERATOR(pg_catalog.=) '{{name}}';"
)
_MADE_BY_VAULT = f"o.rolname OPERATOR(pg_catalog.~) '{VAULTS_LOGINS}'::pg_catalog.text"
# Sessions that hold a lock on the login, as a GRANT to it does; and those of other logins of Vault's that have changed
# something in an open transaction and share a large object or default privileges with the login, whose rows they may
# hold. Never one of Vault's own revocations.
_HOLDERS = (
    "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
    "PERFORM pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l "
    "JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid "
    "JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid "
    "JOIN pg_catalog.pg_roles AS r ON r.rolname OPERATOR(pg_catalog.=) '{{name}}' "
    "WHERE NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER "
    "AND (l.locktype OPERATOR(pg_catalog.=) 'object' AND l.objid OPERATOR(pg_catalog.=) r.oid "
    "AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid "
    "OR l.locktype OPERATOR(pg_catalog.=) 'transactionid' AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock' "
    f"AND {_MADE_BY_VAULT} AND EXISTS ("
    "SELECT FROM pg_catalog.pg_shdepend AS d JOIN pg_catalog.pg_shdepend AS s "
    "ON s.dbid OPERATOR(pg_catalog.=) d.dbid AND s.classid OPERATOR(pg_catalog.=) d.classid "
    "AND s.objid OPERATOR(pg_catalog.=) d.objid "
    "WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid "
    "AND d.refobjid OPERATOR(pg_catalog.=) r.oid "
    "AND d.classid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid, "
    "'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid]) "
    "AND pg_catalog.pg_has_role(o.oid, s.refobjid, 'USAGE')));"
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
# Before PostgreSQL 18 a login may give itself a password of hundreds of megabytes, which every later statement reads.
_CLOSE_LOGIN = (
    f"{_LIMITS} SET LOCAL lock_timeout = '50ms'; "
    f"DO $$ BEGIN FOR turn IN 1..15 LOOP {_TERMINATE} "
    f"""BEGIN IF {_EXISTS} THEN ALTER ROLE "{{{{name}}}}" NOLOGIN PASSWORD NULL; END IF; EXIT; """
    "EXCEPTION WHEN OTHERS THEN IF turn OPERATOR(pg_catalog.=) 15 THEN RAISE; END IF; END; "
    "END LOOP; END $$; COMMIT AND CHAIN;"
)
_END_SESSIONS = (
    f"{_LIMITS} "
    f"DO $$ BEGIN FOR turn IN 1..20 LOOP {_TERMINATE} EXIT WHEN NOT FOUND; "
    "IF turn OPERATOR(pg_catalog.=) 20 THEN RAISE EXCEPTION 'sessions of {{name}} do not end'; END IF; "
    "PERFORM pg_catalog.pg_sleep(0.025); END LOOP; END $$; COMMIT AND CHAIN;"
)
_ENOUGH = (
    "EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) "
    "(pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) '2s'::pg_catalog.interval); "
)
# A setting can have a gigabyte in each database, and DROP ROLE removes all of them in one statement. So each is removed
# by itself before.
_RESET = (
    "FOR one IN SELECT CASE WHEN d.oid IS NULL THEN '' "  # noqa: S608 - Vault fills in the name
    "ELSE pg_catalog.format('IN DATABASE %I', d.datname) END AS place "
    "FROM pg_catalog.pg_db_role_setting AS s "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) s.setrole "
    "LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase "
    "WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}' LOOP "
    f"{_ENOUGH}"
    "EXECUTE pg_catalog.format('ALTER ROLE %I %s RESET ALL', '{{name}}', one.place); "
    "END LOOP; "
)
# A large object is given away, whatever its size: to unlink it takes as long as it has pages. Those on which another
# login of Vault's gave this one a right are given away as well, since nobody else may take back what their owner gave;
# and those of a role whose rights Vault's login has, as before PostgreSQL 16 those of the groups, to which a login can
# give what it made. Where nobody is there to take them, the login's own are unlinked.
_GIVE_AWAY = (
    "FOR turn IN 1..5 LOOP FOR few IN SELECT pg_catalog.array_agg(s.objid) FROM ("  # noqa: S608
    "SELECT d.objid, pg_catalog.row_number() OVER () AS n FROM pg_catalog.pg_shdepend AS d "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) d.refobjid "
    "JOIN pg_catalog.pg_database AS c ON c.oid OPERATOR(pg_catalog.=) d.dbid "
    "JOIN pg_catalog.pg_largeobject_metadata AS m ON m.oid OPERATOR(pg_catalog.=) d.objid "
    "JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) m.lomowner "
    "WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}' "
    "AND c.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() "
    "AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid "
    "AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid "
    f"AND (o.oid OPERATOR(pg_catalog.=) r.oid OR {_MADE_BY_VAULT} "
    "OR pg_catalog.pg_has_role(o.oid, 'USAGE')) LIMIT 10000"
    ") AS s GROUP BY s.n OPERATOR(pg_catalog./) 100 LOOP "
    f"{_ENOUGH}"
    "BEGIN FOR one IN SELECT m.oid, m.lomowner, o.rolname, "
    "(SELECT pg_catalog.string_agg(DISTINCT CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' "
    "ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, ', ') "
    "FROM pg_catalog.aclexplode(m.lomacl) AS g) AS grantees, "
    "EXISTS (SELECT FROM pg_catalog.pg_roles AS t WHERE t.rolname OPERATOR(pg_catalog.=) 'jitvault_leftover' "
    "AND pg_catalog.pg_has_role(t.oid, 'MEMBER')) AS kept "
    "FROM pg_catalog.pg_largeobject_metadata AS m "
    "JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) m.lomowner "
    "WHERE m.oid OPERATOR(pg_catalog.=) ANY (few) LOOP "
    "IF NOT pg_catalog.pg_has_role(one.lomowner, 'USAGE') "
    "THEN EXECUTE pg_catalog.format('GRANT %I TO CURRENT_USER', one.rolname); END IF; "
    "IF one.grantees IS NOT NULL THEN "
    "EXECUTE pg_catalog.format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE', one.oid, one.grantees); END IF; "
    "IF one.kept THEN EXECUTE pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO jitvault_leftover', one.oid); "
    "ELSIF one.rolname OPERATOR(pg_catalog.=) '{{name}}' THEN PERFORM pg_catalog.lo_unlink(one.oid); END IF; "
    "END LOOP; "
    f"EXCEPTION WHEN lock_not_available THEN {_HOLDERS} "
    "WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; EXIT; END; "
    "END LOOP; EXIT WHEN NOT FOUND; END LOOP; "
)
# Each object takes an entry of the server's lock table until the end of the transaction. So there are no more at a time
# than the table has room for: a run that fails has given some of them away.
_LEAVE_LITTLE = (
    f"{_SAFE} SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '100ms'; "
    "DO $$ DECLARE few pg_catalog.oid[]; one pg_catalog.record; BEGIN "
    f"""IF NOT {_EXISTS} THEN RETURN; END IF; GRANT "{{{{name}}}}" TO CURRENT_USER; """
    f"{_RESET}{_GIVE_AWAY}"
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END $$; COMMIT AND CHAIN;"
)
_DROP_OWNED = (
    f"{_LIMITS} SET LOCAL lock_timeout = '500ms'; "
    "DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata AS m "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.lomowner "
    "WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}') "
    "THEN RAISE EXCEPTION 'large objects of {{name}} are not given away yet'; END IF; "
    f"FOR turn IN 1..3 LOOP EXIT WHEN NOT {_EXISTS}; "
    """BEGIN GRANT "{{name}}" TO CURRENT_USER; DROP OWNED BY "{{name}}"; EXIT; """
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END; "
    f"{_HOLDERS} END LOOP; END $$; COMMIT AND CHAIN;"
)
_DROP_LOGIN = (
    f"{_LIMITS} SET LOCAL lock_timeout = '250ms'; "
    "DO $$ BEGIN FOR turn IN 1..4 LOOP "
    """BEGIN DROP ROLE IF EXISTS "{{name}}"; EXIT; """
    "EXCEPTION WHEN internal_error OR lock_not_available THEN "
    "IF turn OPERATOR(pg_catalog.=) 4 THEN RAISE; END IF; END; "
    f"{_HOLDERS} END LOOP; END $$;"
)
REVOCATION = (_LEAVE_GROUPS, _CLOSE_LOGIN, _END_SESSIONS, _LEAVE_LITTLE, _DROP_OWNED, _DROP_LOGIN)

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
        # they find nothing in a schema that others may write to, and wait for other sessions only for a short time
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
    for statement in (*LEFTOVER, *CLOSED):
        database.execute(statement.encode())
