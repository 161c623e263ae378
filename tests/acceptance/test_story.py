"""The main story, by the commands that people type."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from commands import Cli

from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.transit import Transit

VERIFY = Path(__file__).parent.parent.parent / "docs" / "examples" / "verify_receipt.py"


@pytest.fixture(scope="module")
def variables(
    variables: dict[str, str], world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Each command that does the worker's acts logs in for it, by the AppRole that `init` makes, and nothing more."""
    admin, home = Vault(Connection(world.address), world.admin_token), tmp_path_factory.mktemp("home")
    where = ("--worker-approle", "--worker-cidr", "127.0.0.0/8")
    Cli(variables, home)("admin", "init", "--yes", *where)
    role, secret = "auth/approle/role/jitvault-worker", home / "secret-id"
    secret.write_text(admin.write(f"{role}/secret-id")["data"]["secret_id"])
    login = {
        "JITVAULT_WORKER_LOGIN": "approle",
        "JITVAULT_WORKER_ROLE_ID": (admin.read(f"{role}/role-id") or {})["data"]["role_id"],
        "JITVAULT_WORKER_SECRET_ID_FILE": str(secret),
    }
    yield {**{name: value for name, value in variables.items() if name != "JITVAULT_WORKER_TOKEN"}, **login}
    # every command ended its own token
    assert admin.list("sys/leases/lookup/auth/approle/login/") == []
    admin.close()


def test_one_task_goes_from_spec_to_sealed_proof(cli: Cli, spec: Callable[..., Path], world: World) -> None:
    file = spec(criticality="medium")
    task = file.stem
    pending = cli("operator", "grant", file, "--json", code=4).json
    assert pending["state"] == "pending_approval"
    assert pending["missing"] == [{"group": "jitvault-approvers", "count": 1}]
    approved = cli("approver-1", "approve", task, "--yes", "--digest", pending["digest"], "--json").json
    assert (approved["state"], approved["missing"]) == ("approved", [])
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


def test_a_second_unwrap_by_somebody_else_gets_nothing(
    cli: Cli, spec: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    granted = cli("operator", "grant", file := spec(), "--json")
    assert cli("agent", "unwrap", "-", "--json", given=granted.stdout).json["token"]
    elsewhere = {"XDG_STATE_HOME": str(tmp_path / "another-users")}
    refused = cli("agent", "unwrap", "-", code=9, given=granted.stdout, extra=elsewhere)
    assert "somebody opened it before you" in refused.stderr
    # whoever of the two was not the agent, the task is over
    ended = cli("operator", "status", file.stem, "--json", code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("intercepted", True)
    assert [found["rule"] for found in ended["findings"]] == ["unwrap_refused"]

    # until somebody has looked into it, the agent gets nothing more
    more = spec()
    denied = cli("operator", "grant", more, "--json", code=3).error
    assert "forbidden by no-access-with-an-open-finding" in denied["message"]
    assert "whoever runs the worker for `jitvault findings close --agent research-agent --reason WHY`" in denied["hint"]
    told = cli("operator", "policy", "explain", more, "--json").json
    assert told["decision"]["rules"] == ["no-access-with-an-open-finding"]
    assert any("findings close --agent research-agent" in way for way in told["instead"])
    closing = (
        "operator",
        "findings",
        "close",
        "--agent",
        "research-agent",
        "--reason",
        "the agent tried twice",
        "--json",
    )
    assert cli(*closing).json == {
        "agent": "research-agent",
        "findings": [],
        "rules": [],
        "closed": 1,
        "reason": "the agent tried twice",
        "by": "operator",
        "by_entity": world.entity_ids["operator"],
    }
    cli(*closing, code=9)
    cli("operator", "findings", "close", "--agent", "nobody-of-that-name", "--reason", "x", code=9)
    assert cli("operator", "grant", more, "--json").json["state"] == "issued"
    assert cli("operator", "status", file.stem, "--json").json["findings"], "it stays to be seen"


def test_an_auditor_verifies_the_receipt_without_any_code_of_ours(
    cli: Cli, spec: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    file = spec()
    granted = cli("operator", "grant", file, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    receipt, key = sealed_receipt(cli, file.stem, tmp_path)

    def verify(log: Path) -> subprocess.CompletedProcess[str]:
        return checked(receipt, key, log)

    verified = verify(world.audit_file)
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count("found") == 6
    assert "  access: postgres-readonly {'database': 'app'} at database/creds/app-readonly\n" in verified.stdout
    assert " by operator: completed\n" in verified.stdout

    shortened = tmp_path / "shortened.log"
    shortened.write_text("".join(line for line in world.audit_file.open() if "sys/leases/revoke/" not in line))
    assert verify(shortened).returncode == 1
    forged = json.loads(receipt.read_text())
    forged["payload"] = base64.b64encode(
        base64.b64decode(forged["payload"]).replace(b"completed", b"operator_")
    ).decode()
    receipt.write_text(json.dumps(forged))
    assert "NOT a receipt" in verify(world.audit_file).stdout


def test_the_receipt_of_a_task_with_two_tokens_passes_though_the_second_one_was_never_used(
    cli: Cli, spec: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    file = spec()
    granted = cli("operator", "grant", file, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    more = cli("operator", "extend", file.stem, "--for", "10m", "--reason", "it is slow", "--json").json
    assert more["replaces"]
    receipt, key = sealed_receipt(cli, file.stem, tmp_path)
    assert "\n  old token   audit_confirmed " in cli("operator", "status", file.stem).stdout
    verified = checked(receipt, key, world.audit_file)
    assert verified.returncode == 0, verified.stdout
    assert "earlier token 1, check 1" in verified.stdout


def checked(receipt: Path, trust: Path, log: Path) -> subprocess.CompletedProcess[str]:
    """What the receipt's checker says of it, run as the page has it."""
    argv = [sys.executable, str(VERIFY), str(receipt), str(trust), str(log)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def sealed_receipt(cli: Cli, task: str, directory: Path) -> tuple[Path, Path]:
    """Complete the task; its receipt when it is sealed, and by what it is verified."""
    cli("operator", "complete", task)
    while cli("operator", "status", task, "--json").json["state"] != "sealed":
        pass
    receipt, trust = directory / "receipt.json", directory / "trust.json"
    cli("auditor", "report", task, "--receipt", receipt)
    cli("auditor", "export-keys", "--worker", "jitvault-worker", "--out", trust)
    return receipt, trust


def test_a_receipt_that_a_thief_signed_does_not_pass(
    cli: Cli, spec: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    """Whoever has the worker's token can sign anything, and the log has lines enough of other tasks."""
    file = spec()
    granted = cli("operator", "grant", file, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    receipt, key = sealed_receipt(cli, file.stem, tmp_path)
    vault = Vault(Connection(world.address), world.worker_token)
    true = base64.b64decode(json.loads(receipt.read_text())["payload"])
    lease = json.loads(true)["predicate"]["proof"]["leases"][0]["lease_id"]

    def verified(payload: bytes, kind: str = RECEIPT_TYPE) -> str:
        envelope = Transit(vault).sign(json.loads(payload), kind, key=RECEIPT_KEY)
        receipt.write_text(json.dumps(envelope))
        result = checked(receipt, key, world.audit_file)
        assert result.returncode == (0 if payload == true and kind == RECEIPT_TYPE else 1), result
        return result.stdout

    assert "6 lines are in the log" in verified(true)
    assert "NOT a receipt" in verified(true, "application/vnd.jitvault.document+json")
    another = true.replace(file.stem.encode(), b"task-that-never-was")
    assert "Vault gave a token of it to another task" in verified(another)
    assert "NOT ITS" in verified(true.replace(lease.encode(), lease[:-4].encode() + b"0000"))
    bare = json.loads(true)
    bare["predicate"]["proof"]["leases"] = bare["predicate"]["proof"]["token"]["checks"] = []
    assert "no line shows how task token was issued" in verified(json.dumps(bare).encode())
    never = json.loads(true)
    said = never["predicate"]
    said["grants"][0]["verdict"] = said["proof"]["token"]["verdict"] = "never_issued"
    assert "called never_issued, and Vault issued it" in verified(json.dumps(never).encode())
