"""The names that Vault's database engine gives its logins at PostgreSQL.

Vault's default is `v-<display name>-<role>-<20 random characters>-<unix second>`, the first two cut to 8 characters
(docs/vault-facts.md, "Login names"). A task's token has the display name `token`. So a login that no audit line
names can be found by its role and the second in which it was made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jitvault.errors import NotConfirmed

_DISPLAY_NAME = "token"
_CUT = 8
_RANDOM = 20
_SECOND = re.compile(r"[0-9]{10}")
PLUGIN = "postgresql-database-plugin"
"""The one plugin whose logins this engine can name, ask for and see refused."""

LIVING = """
    SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
    WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, %s)
"""
"""Every login whose name begins with a prefix; any login may ask."""


def prefix_for(connection: Mapping[str, Any], role: str) -> str:
    """Return the prefix of the logins that a task's token gets by `role`.

    Raises NotConfirmed if the connection names its logins in its own way.
    """
    details = connection.get("connection_details") or {}
    plugin = connection.get("plugin_name")
    if plugin != PLUGIN:
        raise NotConfirmed(f"how {plugin} names its logins is not known, so one that no line names cannot be found")
    if connection.get("username_template") or details.get("username_template"):
        raise NotConfirmed(
            "the connection has a username_template of its own, so a login that no line names cannot be found"
        )
    return f"v-{_DISPLAY_NAME}-{role[:_CUT]}-"


def made_at(names: Iterable[str], prefix: str) -> dict[str, datetime]:
    """Return for each name of the role the second in which Vault made it.

    A role whose name continues after this one's has an equal prefix; its logins are left out. Raises NotConfirmed
    for a name that does not end as Vault's names do: then Vault may name its logins in a way that this module does
    not know.
    """
    found: dict[str, datetime] = {}
    for name in names:
        head, random, second = ["", "", *name.rsplit("-", 2)][-3:]
        if len(random) != _RANDOM or not random.isalnum() or not _SECOND.fullmatch(second):
            raise NotConfirmed(f"the login {name} is not named as Vault names them, so when it was made is not known")
        if f"{head}-" == prefix:
            found[name] = datetime.fromtimestamp(int(second), UTC)
    return found
