"""What is signed and what no worker has read: shown to whoever may read it, until a worker has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig import Rig

Spec = Callable[..., Path]
HIGH = ("approver-1", "approver-2")
AGENT = ("--agent", "research-agent")
MORE = ("--for", "5m", "--reason", "slow")
LATE = ("--wait", "0", "--json")


def sign(rig: Rig, who: str, *args: str | Path) -> dict[str, Any]:
    """Run a command that signs, where no worker runs; return the error that it exits with."""
    return dict(rig.cli(who, *args, *LATE, code=13, worker=False).error)


def unread(rig: Rig, who: str, task: str, *, worker: bool = False) -> list[tuple[str, str, str]]:
    """Return what `status` shows as signed and not read."""
    found = rig.cli(who, "status", task, "--json", worker=worker, code=None).json["unread"]
    return [(one["kind"], one["by"], one["note"]) for one in found]


@pytest.mark.parametrize("decision", ["approve", "deny"])
def test_a_decision_is_shown_to_its_author_and_to_auditors_until_a_worker_has_read_it(
    rig: Rig, spec: Spec, decision: str
) -> None:
    rig("operator", "submit", file := spec(criticality="medium"))
    task = file.stem
    sign(rig, "approver-1", decision, task, "--yes", "--reason", "as agreed")
    assert unread(rig, "approver-1", task) == [(decision, "you", "as agreed")]
    assert unread(rig, "auditor", task) == [(decision, rig.entity("approver-1"), "as agreed")]
    assert unread(rig, "operator", task) == [], "who may not read it"
    rig.turn(task)
    assert unread(rig, "approver-1", task) == unread(rig, "auditor", task) == []


def test_a_withdrawal_and_more_time_are_shown_until_a_worker_has_read_them(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", file := spec(criticality="medium"))
    task = file.stem
    rig("approver-1", "approve", task, "--yes")
    rig.active(file)
    sign(rig, "operator", "extend", task, *MORE)
    assert unread(rig, "operator", task) == [("extend", "you", "slow")]
    rig.turn(task)
    assert unread(rig, "operator", task) == []
    sign(rig, "approver-1", "approve", task, "--yes")
    sign(rig, "approver-1", "withdraw", task, "--yes", "--reason", "by mistake")
    both = [("approve", "you", ""), ("withdraw", "you", "by mistake")]
    assert unread(rig, "approver-1", task) == both
    assert [one[0] for one in unread(rig, "auditor", task)] == ["approve", "withdraw"]
    rig.turn(task)
    assert rig.state(task) == "confirmed" and unread(rig, "auditor", task) == []


def test_who_waits_for_an_approval_is_told_apart_from_who_waits_for_a_worker(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", file := spec(criticality="high"))
    task = file.stem

    def pending(who: str) -> dict[str, Any]:
        (found,) = [one for one in rig(who, "approvals").json["tasks"] if one["task_id"] == task]
        return dict(found)

    assert [pending(who)["signed_at"] for who in HIGH] == [None, None]
    sign(rig, "approver-1", "approve", task, "--yes")
    assert pending("approver-1")["signed_at"].endswith("Z") and pending("approver-2")["signed_at"] is None
    shown = " ".join(rig.cli("approver-1", "approvals", worker=False).stdout.split())
    assert "signed by you at 20" in shown and "UTC, waits for a worker" in shown
    assert f"next jitvault approve {task}" not in shown
    # it is taken back before a worker has read it
    sign(rig, "approver-1", "deny", task, "--yes", "--reason", "no")
    assert pending("approver-1")["signed_at"] is None


def test_whose_approval_counts_is_told_so_at_once_and_signs_nothing_more(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", file := spec(criticality="medium"))
    task = file.stem
    first = rig("approver-1", "approve", task, "--yes").json
    rig.cli("operator", "freeze", *AGENT, "--reason", "look", "--wait", "0", code=None, worker=False)
    signed = f"decisions/{rig.entity('approver-1')}/{task}"
    before = rig.document(signed)
    again = rig.cli("approver-1", "approve", task, "--yes", "--json", worker=False).json
    assert again == {**first, "expires_at": again["expires_at"]}
    said = rig.cli("approver-1", "approve", task, worker=False).stdout
    assert said == f"You approved task {task} already; it is approved\n"
    assert rig.document(signed) == before
    # a withdrawal that no worker has read takes it back, so the approval is signed anew
    sign(rig, "approver-1", "withdraw", task, "--yes")
    sign(rig, "approver-1", "approve", task, "--yes")
    assert rig.document(signed) != before
    rig("operator", "unfreeze", *AGENT, "--reason", "done")


def test_an_auditor_is_told_that_no_worker_has_admitted_a_request(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", spec())
    sign(rig, "operator", "submit", file := spec())
    for who, whose in (("operator", "you"), ("auditor", rig.entity("operator"))):
        for worker in (True, False):
            late = rig.cli(who, "status", file.stem, "--json", code=9, worker=worker, alone=worker).error
            said = f"there is no task {file.stem} yet: no worker has admitted what {whose} requested at 20"
            assert late["message"].startswith(said), (who, worker)
            assert [one["kind"] for one in late["unread"]] == ["submit"]


def test_an_end_that_no_worker_has_read_is_named_with_what_is_still_live(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    late = sign(rig, "operator", "revoke", file.stem, "--reason", "enough")["message"]
    assert late == (
        f"task {file.stem}: its end is signed, but no worker has done this within 0 s, and its access is still live"
    )
    shown = rig.cli("operator", "status", file.stem, worker=False).stdout
    assert shown.startswith(f"Task {file.stem} is issued (its end is requested, and no worker has acted since)\n")
    assert unread(rig, "operator", file.stem) == [("end", "you", "enough")]
    # whatever is published meanwhile: an end that counts ends the task
    rig.put(f"tasks/{file.stem}", rig.document(f"tasks/{file.stem}"))
    assert unread(rig, "operator", file.stem) == [("end", "you", "enough")]
