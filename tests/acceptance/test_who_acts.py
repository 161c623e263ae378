"""Who acts: people only write and sign; a worker does the work that lies there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import SERVER, Cli

from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents


@pytest.fixture
def documents(world: World) -> Documents:
    return Documents(Vault(Connection(world.address), world.admin_token))


def started(cli: Cli, *args: str | Path) -> subprocess.Popen[str]:
    """A command of the operator's, on a machine without the worker's identity, that goes on in the background."""
    argv = [sys.executable, "-m", "jitvault", *map(str, args)]
    environment = cli.environment("operator", worker=False)
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def written(documents: Documents, path: str, *, within_s: float = 20) -> None:
    """Wait until somebody has written `path`."""
    deadline = time.monotonic() + within_s
    while documents.get(path) is None:
        assert time.monotonic() < deadline, f"nobody wrote {path}"
        time.sleep(0.02)


def test_without_a_worker_grant_writes_the_request_and_gives_up_after_wait(
    quick: Cli, spec: Callable[..., Path], documents: Documents, world: World
) -> None:
    file = spec()
    began = time.monotonic()
    waited = quick("operator", "grant", file, "--wait", "1", "--json", code=13, worker=False)
    assert 1 <= time.monotonic() - began < 5
    assert waited.stdout == "" and "What you signed is stored" in waited.error["hint"]
    own = f"requests/{world.entity_ids['operator']}/{file.stem}"
    assert documents.get(f"{own}/submit") and documents.get(f"{own}/grant")
    assert documents.get(f"tasks/{file.stem}") is None, "nobody acted"


def test_a_worker_does_the_work_that_lies_there(quick: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    quick("operator", "grant", file, "--wait", "0", code=13, worker=False)
    quick.turn(file.stem)
    assert quick("auditor", "status", file.stem, "--json").json["state"] == "issued"
    assert quick("operator", "grant", file.stem, "--json", worker=False).json["wrapping"], "it waits in the inbox"


def test_a_waiting_grant_prints_the_token_when_a_worker_has_issued_it(
    cli: Cli, spec: Callable[..., Path], documents: Documents, world: World
) -> None:
    file = spec()
    waiting = started(cli, "grant", file, "--wait", "20", "--json")
    written(documents, f"requests/{world.entity_ids['operator']}/{file.stem}/grant")
    cli.turn(file.stem)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, err) == (0, "")
    assert json.loads(out)["wrapping"][0]["token"]


def test_complete_without_the_workers_identity_waits_for_the_proof(
    cli: Cli, quick: Cli, spec: Callable[..., Path], documents: Documents, world: World
) -> None:
    file = spec()
    quick("operator", "grant", file)
    assert quick("operator", "complete", file.stem, "--wait", "0", code=13, worker=False).stdout == ""
    waiting = started(cli, "complete", file.stem, "--wait", "20", "--json")
    written(documents, f"requests/{world.entity_ids['operator']}/{file.stem}/end")
    quick.turn(file.stem)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, err) == (0, "")
    proof = json.loads(out)
    assert (proof["state"], proof["end_reason"], proof["confirmed"]) == ("confirmed", "completed", True)
    assert quick("operator", "complete", file.stem, "--json", worker=False).json == proof


def test_approve_without_the_workers_identity_counts_when_a_worker_saw_it(
    quick: Cli, spec: Callable[..., Path]
) -> None:
    file = spec(criticality="medium")
    quick("operator", "submit", file)
    quick("approver-1", "approve", file.stem, "--yes", "--wait", "0", code=13, worker=False)
    quick.turn(file.stem)
    assert quick(None, "status", file.stem, "--json").json["state"] == "approved"


def test_what_a_worker_refuses_reaches_whoever_waits_with_its_exit_code(quick: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    file.write_text(file.read_text().replace("agent: research-agent", "agent: nobody-knows-it"))
    quick("operator", "grant", file, "--wait", "0", code=13, worker=False)
    refused = quick("operator", "grant", file, code=8).stderr
    told = quick("operator", "grant", file.stem, "--wait", "1", code=8, worker=False).stderr
    assert told == refused and "spec.agent: there is no enabled Vault entity named nobody-knows-it" in told


def test_status_and_list_fall_back_to_what_is_published(quick: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    granted = quick("operator", "grant", file, "--json").json
    shown = quick("agent", "status", file.stem, "--json", worker=False).json
    assert (shown["state"], shown["digest"], shown["grant_id"]) == ("issued", granted["digest"], granted["grant_id"])
    tasks = quick("auditor", "list", "--json", worker=False).json["tasks"]
    assert [task["state"] for task in tasks if task["task_id"] == file.stem] == ["issued"]
    assert f"Task {file.stem} is issued" in quick("agent", "status", file.stem, worker=False).stdout


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_an_issued_task_says_until_when_it_has_to_be_unwrapped(
    quick: Cli, spec: Callable[..., Path], *, worker: bool
) -> None:
    file = spec(more="  deliver: agent\n")
    quick("operator", "grant", file)
    until = quick("operator", "status", file.stem, "--json", worker=worker).json["unwrap_until"]
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(seconds=90) < left <= timedelta(minutes=2), "as long as the wrapping lives"
    shown = " ".join(quick("operator", "status", file.stem, worker=worker).stdout.split())
    assert f"unwrap until {until[:10]} {until[11:19]} UTC, or the task ends" in shown
    quick("agent", "unwrap", file.stem)
    quick.turn(file.stem)
    assert "or the task ends" not in quick("operator", "status", file.stem, worker=worker).stdout
    quick("operator", "complete", file.stem)


def test_what_was_just_typed_is_no_next_step(quick: Cli, spec: Callable[..., Path]) -> None:
    width = "80"
    file, wide = spec(), {"COLUMNS": width}
    quick("operator", "grant", file)
    held = quick("operator", "status", file.stem, worker=False, extra=wide).stdout
    assert f"next jitvault complete {file.stem}, when the work is done" in " ".join(held.split())
    quick("operator", "complete", file.stem)
    over = quick("operator", "status", file.stem, worker=False, extra=wide).stdout
    assert "jitvault status" not in held + over and "next" not in over


@pytest.mark.parametrize("command", [("status", "no-such-task"), ("list",), ("freezes",)], ids=" ".join)
def test_whoever_has_no_token_is_told_that_and_nothing_of_a_worker(quick: Cli, command: tuple[str, ...]) -> None:
    refused = quick(None, *command, "--json", code=2, worker=False).error
    assert refused["message"] == "no Vault token: VAULT_TOKEN is not set" and f"{SERVER} login" in refused["hint"]


def test_whose_workers_identity_is_refused_reads_how_to_do_without_and_status_still_shows_what_is_known(
    quick: Cli, spec: Callable[..., Path]
) -> None:
    file, refused = spec(), {"JITVAULT_WORKER_TOKEN": "s.expired"}
    quick("operator", "grant", file)
    assert quick("operator", "status", file.stem, "--json", alone=True, extra=refused).json["state"] == "issued"
    assert "`unset` it" in quick("operator", "complete", file.stem, "--json", code=10, extra=refused).error["hint"]
    unset = quick("operator", "complete", file.stem, "--wait", "0", "--json", code=13, worker=False)
    assert "What you signed is stored" in unset.error["hint"]


@pytest.mark.parametrize("command", ["grant", "grant again"])
def test_a_hint_names_the_task_that_it_is_about(quick: Cli, spec: Callable[..., Path], command: str) -> None:
    file = spec(criticality="medium")
    quick("operator", "submit", file)
    what = file.stem if command == "grant again" else file
    hint = quick("operator", command.split(maxsplit=1)[0], what, "--json", code=4).error["hint"]
    assert f"`jitvault approve {file.stem}`" in hint and f"`jitvault grant {file.stem} --wait 30m`" in hint
    early = quick("approver-1", "withdraw", file.stem, "--json", code=9)
    assert f"`jitvault status {file.stem}`" in early.error["hint"] and "TASK" not in early.error["hint"]


def test_whoever_named_a_ledger_that_is_not_there_is_told(quick: Cli, tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "ledger.db"
    missing = {"JITVAULT_LEDGER": f"sqlite:///{place}"}
    said = quick("auditor", "list", "--json", extra=missing)
    assert said.json["tasks"] and f"there is no ledger at {place}" in said.stderr
    assert "there is no ledger" not in quick("auditor", "list", worker=False).stderr


def test_a_command_without_the_workers_identity_makes_no_ledger(
    quick: Cli, spec: Callable[..., Path], tmp_path: Path
) -> None:
    ledger = {"JITVAULT_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}"}
    quick("operator", "grant", spec(), "--wait", "0", code=13, worker=False, extra=ledger)
    quick("auditor", "list", worker=False, extra=ledger)
    assert "there is no ledger" in quick("auditor", "report", code=11, worker=False, extra=ledger).stderr
    assert not list(tmp_path.glob("ledger*"))


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_an_unknown_task_is_9(quick: Cli, worker: bool) -> None:
    for command in ("status", "complete", "revoke", "cancel", "approve", "deny", "grant"):
        who = "approver-1" if command in ("approve", "deny") else "operator"
        refused = quick(who, command, "no-such-task", "--json", code=9, worker=worker)
        assert refused.stdout == "" and "no-such-task" in refused.error["message"], command
        assert "jitvault list" in refused.error["hint"], command
