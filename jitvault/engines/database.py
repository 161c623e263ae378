"""Vault's database secrets engine, with PostgreSQL as its target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.engines.interface import Engine, Read
from jitvault.engines.postgresql.login_names import PLUGIN
from jitvault.engines.postgresql.probe import PostgresqlProbe
from jitvault.engines.postgresql.trial import PostgresqlTrial
from jitvault.errors import InvalidInput
from jitvault.model.template import TemplateBody


class DatabaseEngine(Engine):
    """The engine of `database/` mounts."""

    name = "database"
    probe: PostgresqlProbe
    trial = PostgresqlTrial()

    def __init__(self) -> None:
        self.probe = PostgresqlProbe()

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
        if snapshot is not None:
            _check_plugin(snapshot)

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return (f"{mount}/roles/{path.partition('/')[2]}", f"{mount}/config/*")


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
    if plugin != PLUGIN:
        raise InvalidInput(
            f"the connection {name} has the plugin {plugin:.80}, and jitvault has no engine for its database: whether "
            "a login there ends with its revocation cannot be found out",
            hint=f"Only connections with {PLUGIN} can be granted. Remove the template.",
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
