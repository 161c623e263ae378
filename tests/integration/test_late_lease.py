"""A lease that shows up after everything was over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Cli

from jitvault.sandbox.world import World


def test_a_lease_that_appears_after_the_seal_is_a_finding_and_is_ended(
    cli: Cli, spec: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    """It cannot come from Vault while the settle window is right, so the line is copied from an earlier read."""
    cli.variables = {**cli.variables, "JITVAULT_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}"}
    file = spec()
    granted = cli("operator", "grant", file, "--json")
    read = cli("agent", "unwrap", "-", "--read", "--json", given=granted.stdout).json
    lease_id = read["secrets"][0]["lease_id"]
    cli("operator", "complete", file.stem)
    sealed = cli("operator", "status", file.stem, "--json").json
    while sealed["state"] != "sealed":
        sealed = cli("operator", "status", file.stem, "--json").json

    (line,) = [
        line
        for line in world.audit_file.read_text().splitlines()
        if json.loads(line).get("response", {}).get("secret", {}).get("lease_id") == lease_id
    ]
    with world.audit_file.open("a") as audit:
        audit.write(line.replace(lease_id, lease_id + "x") + "\n")

    found = cli("operator", "status", file.stem, "--json", code=12)
    assert found.json["state"] == "sealed"
    assert "settle window" in found.error["message"]
    late = next(lease for lease in found.json["leases"] if lease["lease_id"] == lease_id + "x")
    assert late["verdict"] != "live"
