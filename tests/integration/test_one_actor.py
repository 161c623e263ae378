"""Commands sign and wait; a worker acts. Without a worker only what takes access away is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hands import Mirror
from rig import Rig

Spec = Callable[..., Path]
MORE = ("--for", "5m", "--reason", "slow")


def alone(rig: Rig, who: str, *args: str) -> None:
    """The command has the worker's identity, and no worker runs."""
    late = rig(who, *args, "--wait", "1s", code=13, alone=True).error
    assert "no worker has done this within 1 s" in late["message"]
    assert "`jitvault worker`" in late["hint"] and "`jitvault worker --once`" in late["hint"]
    waiting = late["waiting"]
    assert waiting["written"] and all(rig.document(path) for path in waiting["written"])
    assert (waiting["begun"], waiting["start"]) == (False, ["jitvault worker", "jitvault worker --once"])


@pytest.mark.parametrize(
    ("command", "state"), [(("approve", "--yes"), "approved"), (("deny", "--yes", "--reason", "no"), "denied")]
)
def test_a_decision_is_counted_by_a_worker_and_not_by_the_approvers_command(
    rig: Rig, spec: Spec, command: tuple[str, ...], state: str
) -> None:
    rig("operator", "submit", file := spec(criticality="medium"))
    task = file.stem
    alone(rig, "approver-1", command[0], task, *command[1:])
    assert rig.state(task) == "pending_approval"
    rig.turn(task)
    assert rig.state(task) == state


def test_more_time_is_given_by_a_worker_and_not_by_the_command_that_asks(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    before = rig.record(file.stem).task.ends_at
    alone(rig, "operator", "extend", file.stem, *MORE)
    assert rig.record(file.stem).task.ends_at == before
    rig.turn(file.stem)
    assert rig.record(file.stem).task.ends_at != before


def test_a_request_is_cancelled_by_a_worker_and_not_by_the_command(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", file := spec(criticality="medium"))
    alone(rig, "operator", "cancel", file.stem)
    assert rig.state(file.stem) == "pending_approval"
    rig.turn(file.stem)
    assert rig.state(file.stem) == "cancelled"


def test_a_command_with_the_workers_identity_decides_and_issues_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    late = rig("operator", "grant", file, "--wait", "4s", code=13, alone=True).error
    assert "no worker has done this within 4 s" in late["message"]
    assert rig.state(file.stem) is None and rig.task_tokens(file.stem) == []


def test_the_status_of_a_task_does_nothing_for_it(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    rig.cli("operator", "revoke", file.stem, "--wait", "0", worker=False, code=13)
    before = rig.record(file.stem).task.seq
    shown = rig("operator", "status", file.stem, alone=True).json
    assert [one["reason"] for one in shown["unread"]] == ["operator"]
    assert rig.record(file.stem).task.seq == before and rig.is_live(held.token)
    rig.turn(file.stem)
    assert rig.state(file.stem) == "confirmed" and not rig.is_live(held.token)


@pytest.mark.parametrize("command", ["complete", "revoke"])
def test_an_end_that_no_worker_begins_is_done_with_the_workers_identity(rig: Rig, spec: Spec, command: str) -> None:
    held = rig.active(file := spec())
    assert rig("operator", command, file.stem, alone=True).json["confirmed"]
    assert not rig.is_live(held.token)


def test_an_end_that_waits_for_a_worker_without_its_identity_is_signed_and_nothing_more(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    rig.cli("operator", "revoke", file.stem, "--wait", "5s", worker=False, code=13)
    assert rig.is_live(held.token)
    rig.turn(file.stem)
    assert not rig.is_live(held.token)


def test_a_wait_ends_with_the_code_of_what_kept_the_worker_from_it(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    Mirror(rig.world.audit_file, tmp_path / "mirror.log").close()
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(tmp_path / "mirror.log")}
    late = rig("operator", "grant", file := spec(), code=7).error
    assert "no worker has done this within 30 s" in late["message"] and file.stem in late["message"]


def test_a_finding_that_keeps_the_worker_from_it_is_told_where_the_ledger_is(rig: Rig, spec: Spec) -> None:
    """A worker publishes nothing of a task whose record cannot be believed."""
    rig.active(file := spec())
    rig.sql("UPDATE tasks SET ends_at = '2100-01-01 00:00:00.000000' WHERE task_id = ?", file.stem)
    found = rig("operator", "extend", file.stem, *MORE, code=12).error
    assert "no worker" not in found["message"] and file.stem in found["message"]


def test_a_task_that_the_ledger_lost_is_told_as_lost(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig.forget(file.stem)
    assert "missing in the ledger" in rig("operator", "extend", file.stem, *MORE, code=12).error["message"]
