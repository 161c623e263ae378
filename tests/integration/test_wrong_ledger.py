"""A ledger that is missing, new, or another installation's: nothing is read from it, and no empty answer is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import new_file
from rig import Rig
from worker_process import WorkerProcess

from jitvault.sandbox.world import World

pytestmark = pytest.mark.usefixtures("lab", "in_this_process")
Spec = Callable[..., Path]
ANOTHER = "0" * 32
ASKING = ["grant", "submit", "approve", "extend"]
READING = [("list",), ("report",), ("audit", "status"), ("freezes",), ("ledger", "check"), ("status", "no-such-task")]


def at(file: Path) -> dict[str, str]:
    return {"JITVAULT_LEDGER": f"sqlite:///{file}"}


def of_another(rig: Rig, file: Path) -> Path:
    """The rig's ledger as it would be if another installation had made it."""
    rig("operator", "audit", "status")
    rig.snapshot(file)
    elsewhere = Rig(rig.world, rig.cli, file)
    assert elsewhere.sql("UPDATE installation SET id = ?", ANOTHER) == 1
    return file


def arguments(command: str, file: Path) -> list[str | Path]:
    more = {"extend": ["--for", "5m", "--reason", "It is slow."], "approve": ["--yes"]}.get(command, [])
    return [command, file if command in ("grant", "submit") else file.stem, *more]


def requests_of(rig: Rig, task: str) -> list[str]:
    return rig.admin.list(f"jitvault/metadata/requests/{rig.entity('operator')}/{task}")


def test_a_missing_ledger_is_an_error_and_no_empty_list(lab: World, rig: Rig, spec: Spec) -> None:
    """First, since no task is in this Vault yet: an empty answer is right here."""
    refused = spec()
    refused.write_text(refused.read_text().replace("research-agent", "nobody-knows-it"))
    rig("operator", "submit", refused, code=8)
    # a refused request is in no ledger, and anybody may write one: it makes no ledger look wrong
    assert rig("auditor", "list").json == {"tasks": [], "published": False}
    assert rig("auditor", "report").json == {"leases": []}

    file = spec()
    rig("operator", "grant", file)
    other = Rig(lab, rig.cli, new_file(rig.cli.home / "other.db"))
    assert other.sql("INSERT INTO installation (one, id, generation) VALUES (1, ?, 0)", lab.installation) == 1
    for command in ("list", "report"):
        wrong = rig("auditor", command, code=11, extra=at(rig.cli.home / "other.db")).error
        assert f"the ledger at {rig.cli.home / 'other.db'} knows no task, but Vault knows of" in wrong["message"]
        assert "ledger recover" in wrong["hint"]


def test_a_task_that_was_deleted_from_the_ledger_is_missed_where_tasks_are_shown(rig: Rig, spec: Spec) -> None:
    kept, open_, closed = spec(), spec(), spec()
    for file in (kept, open_, closed):
        rig("operator", "grant", file)
    rig("operator", "complete", closed.stem)
    for file in (open_, closed):
        rig.forget(file.stem)
    both = sorted([open_.stem, closed.stem])
    for command, key in (("list", "tasks"), ("report", "leases")):
        shown = rig("auditor", command, code=12)
        assert [row["task_id"] for row in shown.json[key]] == [kept.stem]
        assert f"2 tasks that Vault knows of: {', '.join(both)}" in shown.error["message"]
        assert "ledger recover" in shown.error["hint"]
        # one of them may have the name that no other task has
        assert "2 tasks" in rig("auditor", command, "--agent", "nobody", code=12).error["message"]
    reader = {"JITVAULT_WORKER_TOKEN": ""}
    for command in ("status", "report"):
        for extra in ({}, reader):
            gone = rig("auditor", command, open_.stem, code=12, extra=extra).error
            assert "missing in the ledger" in gone["message"] and "ledger recover" in gone["hint"]
        # what the deleted tasks left in the audit stream is a stranger's by now, and freezes everything
        assert kept.stem in rig("auditor", command, kept.stem, code=None, extra=reader).stdout


def test_a_command_whose_ledger_is_not_set_makes_none(rig: Rig) -> None:
    del rig.cli.variables["JITVAULT_LEDGER"]
    place = rig.cli.home / ".local" / "share" / "jitvault" / "ledger.db"
    refused = rig.cli("auditor", "report", code=11, extra={"COLUMNS": "80"})
    first, second = refused.stderr.splitlines()
    assert (refused.stdout, first) == ("", f"error: there is no ledger at {place}")
    assert second.startswith(
        "  JITVAULT_LEDGER is not set, and this is the default. Auditors and workers have the ledger"
    )
    assert second.endswith("Only `jitvault worker` and `jitvault ledger upgrade` make a new ledger.")
    assert not place.parent.exists()


@pytest.mark.parametrize("how", ["missing", "another's"])
def test_what_a_command_signs_is_signed_whatever_ledger_it_would_open(
    rig: Rig, spec: Spec, tmp_path: Path, how: str
) -> None:
    ledger = tmp_path / "misspelt.db" if how == "missing" else of_another(rig, tmp_path / "another.db")
    made = ledger.read_bytes() if ledger.exists() else None
    for command in ASKING:
        file, who = spec(), "operator"
        if command == "approve":
            file, who = spec(criticality="medium"), "approver-1"
            rig("operator", "submit", file)
        if command == "extend":
            rig("operator", "grant", file)
        signed = rig(who, *arguments(command, file), "--wait", "0", code=13, alone=True, extra=at(ledger)).error
        assert "waiting" in signed, command
        assert (ledger.read_bytes() if ledger.exists() else None) == made, command
    # a worker with its own ledger does it
    shown = rig("operator", "status", file.stem).json
    assert "extended" in {event["event"] for event in shown["timeline"]}


def test_nothing_is_read_from_a_ledger_of_another_installation(rig: Rig, tmp_path: Path) -> None:
    ledger = of_another(rig, tmp_path / "another.db")
    said = f"the ledger at {ledger} belongs to another installation of jitvault than that of the Vault at "
    for command in READING:
        for worker in (True, False):
            wrong = rig.cli("auditor", *command, "--json", code=11, worker=worker, extra=at(ledger))
            assert wrong.stdout == "", command
            assert wrong.error["message"] == said + rig.world.address, command
            assert "JITVAULT_LEDGER and VAULT_ADDR do not belong together" in wrong.error["hint"], command


def test_an_upgrade_and_a_copy_look_whose_the_ledger_is_and_say_where_it_is(rig: Rig, tmp_path: Path) -> None:
    ledger = of_another(rig, tmp_path / "another.db")
    for command in (("upgrade",), ("copy", "--to", str(tmp_path / "copy.db"))):
        assert str(ledger) in rig("operator", "ledger", *command, code=11, extra=at(ledger)).error["message"]
    assert not (tmp_path / "copy.db").exists()
    made = rig.cli("operator", "ledger", "upgrade", extra=at(tmp_path / "new.db"))
    assert made.stdout.startswith(f"The ledger at {tmp_path / 'new.db'} was created: version ")
    assert rig("operator", "ledger", "check", code=None).json["ledger"] == str(rig.ledger_path)


def test_a_ledger_that_no_worker_has_used_is_not_taken_for_an_empty_one(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, new = spec(), at(new_file(tmp_path / "new.db"))
    rig("operator", "grant", file)
    shown = rig("auditor", "list", extra=new)
    assert shown.json["published"] and file.stem in {task["task_id"] for task in shown.json["tasks"]}
    assert f"the ledger at {tmp_path / 'new.db'} is new: no worker has used it yet" in shown.stderr
    assert "is new" in rig("auditor", "report", code=11, extra=new).error["message"]
    (usable,) = (c for c in rig("admin", "doctor", code=11, extra=new).json["checks"] if c["name"] == "usable")
    assert usable["status"] == "fail" and "Vault knows of" in usable["seen"] and str(tmp_path) in usable["seen"]


def test_an_auditor_without_vault_reads_the_ledger_and_is_told_what_was_not_checked(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "grant", file)
    place = {"JITVAULT_LEDGER": rig.cli.variables["JITVAULT_LEDGER"]}
    shown = rig.cli(None, "report", "--json", worker=False, extra=place)
    assert [row["task_id"] for row in shown.json["leases"]] == [file.stem]
    why = f"Not checked whether the ledger at {rig.ledger_path} is this Vault's: there is no Vault token"
    assert shown.stderr.strip() == why


def test_a_worker_makes_the_ledger_where_there_is_none_and_says_so(rig: Rig) -> None:
    rig.ledger_path.unlink()
    with WorkerProcess(rig) as worker:
        assert [entry["ledger"] for entry in worker.said("made a new ledger")] == [str(rig.ledger_path)]
        assert [entry["ledger"] for entry in worker.said("working")] == [str(rig.ledger_path)]
    with WorkerProcess(rig) as worker:
        assert worker.said("made a new ledger") == []


def test_a_revocation_is_signed_whatever_the_ledger_and_says_that_a_worker_has_to_do_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "grant", file)
    wrong = rig("operator", "revoke", file.stem, code=11, extra=at(rig.cli.home / "misspelt.db")).error
    assert "there is no ledger at" in wrong["message"]
    assert "end" in requests_of(rig, file.stem)
    rig("operator", "status", file.stem)
    assert rig.state(file.stem) in ("confirmed", "sealed")
