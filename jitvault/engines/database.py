"""Vault's database secrets engine, and the proof from a PostgreSQL target.

Why a probe has to look at PostgreSQL itself: docs/vault-facts.md, "Revocation". A no-op revocation statement gives
204 and "invalid lease" while the role still logs in, and `DROP ROLE` leaves its open sessions running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jitvault.domain.access import Capability
from jitvault.domain.confirmation import Probed
from jitvault.errors import InvalidInput, NotConfirmed, UsageError
from jitvault.ports.engine import Read

if TYPE_CHECKING:
    import psycopg

_PASSES = 40
_CLEAN_PASSES = 2
_TERMINATE_WAIT_MS = 500

# sessions of roles that no longer exist: `usename` is NULL for them, so the role's oid is looked for
_ORPHANED = """
    SELECT pid FROM pg_stat_activity
    WHERE usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles) AND pid <> pg_backend_pid()
"""
_LIVING = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
_SESSIONS = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY(%s) GROUP BY usename"


class DatabaseEngine:
    """`jitvault.ports.engine.Engine` for `database/` mounts."""

    name: str = "database"
    capability: Capability = "read"
    non_hmac_response_keys: tuple[str, ...] = ("username",)

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

    def probe(self, where: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Probed]:
        try:
            import psycopg
        except ImportError:
            raise UsageError("probing PostgreSQL needs psycopg", hint="pip install 'jitvault[postgres]'") from None
        try:
            dsn = str(where["dsn"])
            with psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name="jitvault-probe") as target:
                ended = _end_orphaned(target)
                return _look(target, list(names), ended)
        except psycopg.Error as error:
            # the message can hold the connection string, so only the kind of the failure is told
            raise NotConfirmed(f"the probe could not ask the target ({type(error).__name__})") from None


def _end_orphaned(target: psycopg.Connection[Any]) -> int:
    """End the sessions of dropped roles until two passes in a row find none; how many were ended.

    One pass is not enough: a client that reconnects in a loop can get in between `pg_terminate_backend` and
    `DROP ROLE`.
    """
    ended, clean = 0, 0
    for _ in range(_PASSES):
        pids = [row[0] for row in target.execute(_ORPHANED).fetchall()]
        clean = 0 if pids else clean + 1
        if clean == _CLEAN_PASSES:
            return ended
        for pid in pids:
            done = target.execute("SELECT pg_terminate_backend(%s, %s)", (pid, _TERMINATE_WAIT_MS)).fetchone()
            ended += 1 if done and done[0] else 0
    raise NotConfirmed("sessions of dropped roles keep appearing at the target")


def _look(target: psycopg.Connection[Any], usernames: list[str], ended: int) -> dict[str, Probed]:
    living = {row[0] for row in target.execute(_LIVING, (usernames,)).fetchall()}
    sessions = dict(target.execute(_SESSIONS, (usernames,)).fetchall())
    return {
        name: Probed(
            refused=name not in living,
            open_sessions=sessions.get(name, 0),
            evidence=(
                f"role {name} {'still exists' if name in living else 'does not exist'}, "
                f"{sessions.get(name, 0)} of its sessions open; {ended} sessions of dropped roles ended, "
                f"then {_CLEAN_PASSES} passes found none"
            ),
        )
        for name in usernames
    }


def _without_moving_parts(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The connection's configuration; Vault leaves the password out of it."""
    if connection is None:
        return {}
    data = dict(connection["data"])
    details = dict(data.get("connection_details") or {})
    for secret in ("password", "private_key", "tls_certificate_key"):
        details.pop(secret, None)
    return {**data, "connection_details": details}
