"""A sweep in a namespace: its own tokens and leases are judged, what stands at the same paths elsewhere is not.

Audit devices, and so the canaries, belong to the root namespace: the worker has a token of that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLE, Cli
from ledgers import new_file
from psycopg.conninfo import conninfo_to_dict
from rig import Rig

from jitvault.formats.secret import Secret
from jitvault.model.vault_access import access_policy
from jitvault.provision import init
from jitvault.sandbox import target
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned, shipped_want
from jitvault.vault.client import Connection, Vault

pytestmark = pytest.mark.needs("namespaces")

ROLE, PREFIX = "auth/token/create/jitvault-15m", "database/creds/app-readonly"
TEAM = "team"


@dataclass
class Team:
    """A world whose namespace `team` is provisioned, too; `rig` works there, with a ledger of its own."""

    rig: Rig
    here: Vault
    above: Vault


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    with running_servers() as servers:
        world = provisioned(servers)
        Vault(Connection(world.address), world.admin_token).write(f"sys/namespaces/{TEAM}")
        here = Vault(Connection(world.address, TEAM), world.admin_token)
        # the same mounts and roles as above it
        for name in ("database", "pki"):
            here.write(f"sys/mounts/{name}", {"type": name})
        init.apply(here, init.plan(here, shipped_want()))
        _connect(here, servers.postgres)
        yield world


def _connect(here: Vault, postgres: Any) -> None:
    """The namespace's own connection to the same database, and its role."""
    login = conninfo_to_dict(postgres.dsn("app"))
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}/app?sslmode=disable"
    here.write(
        "database/config/app",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": url,
            **{"username": login["user"], "password": login["password"]},
            "allowed_roles": ["app-readonly"],
        },
    )
    statements = [target.CREATION[0], target.CREATION[1] % "app_readonly"]
    revocation = list(target.REVOCATION)
    role = {"db_name": "app", "creation_statements": statements, "revocation_statements": revocation}
    here.write("database/roles/app-readonly", {**role, "default_ttl": "15m", "max_ttl": "1h"})


@pytest.fixture
def team(lab: World, tmp_path: Path) -> Team:
    ledger = new_file(tmp_path / "ledger.db")
    variables = {**env(lab, f"sqlite:///{ledger}", EXAMPLE), "VAULT_NAMESPACE": TEAM}
    variables["JITVAULT_WORKER_TOKEN"] = lab.admin_token.reveal()
    rig = Rig(lab, Cli(variables, tmp_path), ledger)
    rig("admin", "audit", "status")
    above = Vault(Connection(lab.address), lab.admin_token)
    return Team(rig, Vault(Connection(lab.address, TEAM), lab.admin_token), above)


def made_outside(vault: Vault) -> tuple[str, str]:
    """A token that an administrator makes through our role there, and the lease that it read."""
    body = {"policies": [access_policy(PREFIX).name], "ttl": "300s"}
    wrapping = vault.write(ROLE, body, wrap_ttl_s=60)["wrap_info"]["token"]
    token = str(vault.write("sys/wrapping/unwrap", {"token": wrapping})["auth"]["client_token"])
    read = vault.with_token(Secret(token)).read(PREFIX)
    assert read is not None
    return token, str(read["lease_id"])


def test_a_sweep_judges_its_own_namespace_and_no_other(team: Team) -> None:
    assert team.rig("admin", "sweep").json["orphans"] == []
    _, other = made_outside(team.above)
    team.rig.settle()
    found = team.rig("admin", "sweep").json
    assert (found["orphans"], found["unlinked"], found["looked_at"]["tokens"]) == ([], [], 0)

    _, lease = made_outside(team.here)
    # namespaces name what is theirs
    assert lease.rpartition("/")[2].count(".") == 1
    team.rig.settle()
    found = team.rig("admin", "sweep", code=12).json
    assert {one["kind"] for one in found["orphans"]} == {"token", "lease"}
    assert lease in {one["lease_id"] for one in found["orphans"]}
    assert all(one["line"] for one in found["orphans"])
    fixed = team.rig("admin", "sweep", "--fix").json
    assert {one["kind"]: one["verdict"] for one in fixed["orphans"]} == {
        "token": "audit_confirmed",
        "lease": "audit_confirmed",
    }, fixed
    assert team.here.list(f"sys/leases/lookup/{ROLE}/") == team.here.list(f"sys/leases/lookup/{PREFIX}/") == []
    # what is above stays
    assert team.above.write("sys/leases/lookup", {"lease_id": other})["data"]["id"] == other
    team.rig.settle()
    assert team.rig("admin", "sweep").json["orphans"] == []
