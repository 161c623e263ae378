"""The main story, by the commands that people type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from conftest import Cli

from jitvault.sandbox.world import World


def test_one_task_goes_from_spec_to_sealed_proof(cli: Cli, spec: Callable[..., Path], world: World) -> None:
    file = spec(criticality="medium")
    task = file.stem
    pending = cli("operator", "grant", file, "--json", code=4).json
    assert pending["state"] == "pending_approval"
    assert pending["missing"] == [{"group": "jitvault-approvers", "count": 1}]
    voted = cli("approver-1", "approve", task, "--yes", "--digest", pending["digest"], "--json").json
    assert (voted["state"], voted["missing"]) == ("approved", [])
    granted = cli("operator", "grant", task, "--json").json
    assert granted["digest"] == pending["digest"]
    (wrapping,) = granted["wrapping"]
    assert wrapping["creation_path"] == "auth/token/create/jitvault-15m"
    assert wrapping["reads"] == ["database/creds/app-readonly"]

    read = cli("agent", "unwrap", "-", "--read", "--json", given=wrapping["token"]).json
    (secret,) = read["secrets"]
    login = {"user": secret["fields"]["username"], "password": secret["fields"]["password"]}
    dsn = world.servers.postgres.dsn("app", **login)
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone()

        ended = cli("operator", "complete", task, "--json").json
        assert (ended["state"], ended["end_reason"], ended["confirmed"]) == ("confirmed", "completed", True)
        (lease,) = ended["leases"]
        assert (lease["lease_id"], lease["verdict"]) == (secret["lease_id"], "target_confirmed")
        assert [c["n"] for c in lease["checks"] if c["ok"]] == [1, 2, 3, 4, 5, 6]
        assert ended["token"]["verdict"] == "audit_confirmed"
        assert [c["n"] for c in ended["token"]["checks"] if c["ok"]] == [1, 2, 3, 4, 5, 7]

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)

    again = cli("operator", "complete", task, "--json").json
    assert again == ended


def test_a_second_unwrap_gets_nothing(cli: Cli, spec: Callable[..., Path]) -> None:
    granted = cli("operator", "grant", spec(), "--json")
    assert cli("agent", "unwrap", "-", "--json", given=granted.stdout).json["token"]
    assert "somebody unwrapped it" in cli("agent", "unwrap", "-", code=9, given=granted.stdout).stderr
