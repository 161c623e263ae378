"""`jitvault report` limited to an agent, an owner, a template, states or a time; and its two files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Rig

Spec = Callable[..., Path]


@pytest.fixture
def tasks(rig: Rig, spec: Spec) -> dict[str, str]:
    """A task that holds a lease, one that was cancelled, and one that waits for approval."""
    held, cancelled, waits = spec(), spec(), spec(criticality="medium")
    rig.active(held)
    # a command with the worker's identity sees that it was unwrapped
    assert rig("operator", "status", held.stem).json["state"] == "active"
    rig("operator", "submit", cancelled)
    rig("operator", "cancel", cancelled.stem)
    rig("operator", "submit", waits, code=None)
    return {"held": held.stem, "cancelled": cancelled.stem, "waits": waits.stem}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


def reported(rig: Rig, *options: str) -> set[str]:
    return {row["task_id"] for row in rig("auditor", "report", *options).json["leases"]}


def test_each_option_limits_the_report_and_nothing_left_is_an_empty_one(rig: Rig, tasks: dict[str, str]) -> None:
    """What each limit leaves is `tests/unit/lifecycle/record/test_report_filter.py`'s."""
    every = set(tasks.values())
    assert reported(rig) == every
    assert reported(rig, "--agent", rig.entity("research-agent"), "--owner", "data-owner", "--since", "1h") == every
    assert reported(rig, "--template", "postgres-readonly", "--state", "active", "--until", "0s") == {tasks["held"]}
    assert reported(rig, "--state", "active", "--state", "cancelled") == {tasks["held"], tasks["cancelled"]}
    none = rig("auditor", "report", "--until", "1h")
    assert none.json == {"leases": []} and none.stderr.startswith("No task matches: until 20")
    # a template that nobody used is no mistake
    assert rig("auditor", "report", "--template", "postgres-readwrite").json == {"leases": []}
    table = rig.cli("auditor", "report", "--state", "sealed", "-o", "csv")
    assert table.stdout.startswith("task_id,") and table.stdout.count("\n") == 1
    assert table.stderr == "No task matches: state sealed.\n"


def test_a_denied_task_has_its_request_in_the_report(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", intent="Count them again.")
    rig("operator", "submit", file, code=None)
    (waits,) = rig("auditor", "report", file.stem).json["leases"]
    assert waits["over_at"] is None
    rig("approver-1", "deny", file.stem, "--yes", "--reason", "not today")
    (row,) = rig("auditor", "report", file.stem).json["leases"]
    assert (row["state"], row["intent"]) == ("denied", "Count them again.")
    assert waits["requested_at"] == row["requested_at"] < row["over_at"]
    assert (row["denied_by"], row["denied_reason"], row["template"]) == ("approver-1", "not today", "postgres-readonly")
    # the requester tries again, and the denial is as old as before
    rig("operator", "grant", file.stem, code=3)
    assert rig("auditor", "report", file.stem).json["leases"] == [row]


def test_a_denial_of_an_earlier_revision_is_told_as_such(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file, code=None)
    rig("approver-1", "deny", file.stem, "--yes", "--reason", "not today")
    rig("operator", "submit", spec(task=file.stem, criticality="medium", intent="Again."), "--revise", code=None)
    assert [one["why"] for one in rig("auditor", "status", file.stem).json["refused"]] == ["denied revision 1"]
    (row,) = rig("auditor", "report", file.stem).json["leases"]
    assert (row["state"], row["denied_by"], row["over_at"]) == ("pending_approval", None, None)


def test_what_nobody_is_called_says_who_there_is(rig: Rig, tasks: dict[str, str]) -> None:
    agent = rig("auditor", "report", "--agent", "reserch-agent", code=9).error
    assert agent == {
        **{"exit_code": 9, "message": "no task has the agent 'reserch-agent' (did you mean research-agent?)"},
        "hint": "Tasks have: research-agent.",
    }
    assert "data-owner" in rig("auditor", "report", "--owner", "nobody", code=9).error["hint"]
    template = rig("auditor", "report", "--template", "postgres", code=9).error
    assert "there is no template 'postgres'" in template["message"] and "postgres-readonly" in template["hint"]
    # a list answers the same, also by what is published
    for option, wrong in (("--agent", "reserch-agent"), ("--owner", "nobody"), ("--template", "postgres")):
        refused = rig("auditor", "report", option, wrong, code=9).error
        assert rig("auditor", "list", option, wrong, code=9).error == refused
        without = {"worker": False, "extra": {"JITVAULT_LEDGER": ""}, "code": None}
        there = rig.cli("auditor", "list", option, wrong, "--json", **without)
        if there.code == 0:
            # what nobody can read is in every list
            assert {task["agent_name"] for task in there.json["tasks"]} == {None}
        else:
            assert there.error["message"] == refused["message"]
    assert rig("auditor", "list", "--agent", "Research-Agent", "--state", "sealed").json["tasks"] == []
    assert rig("auditor", "list", "--template", "postgres-readwrite").json["tasks"] == []
    state = rig("auditor", "report", "--state", "seald", code=2).error
    assert "there is no state 'seald'" in state["message"] and "sealed" in state["hint"]


def test_options_that_contradict_each_other_are_refused(rig: Rig, tasks: dict[str, str], here: Path) -> None:
    held = tasks["held"]
    assert reported(rig, held, "--agent", "research-agent", "--state", "active") == {held}
    refused = rig("auditor", "report", held, "--agent", "operator", code=2).error["message"]
    assert refused == f"task {held} is not in a report of agent operator: its agent is research-agent"
    late = rig("auditor", "report", "--since", "1h", "--until", "2h", code=2).error
    assert late["message"] == "--since 1h is after --until 2h"
    receipt, out = str(here / "receipt.json"), str(here / "report.json")
    assert "needs a TASK" in rig("auditor", "report", "--receipt", receipt, code=2).error["message"]
    whole = rig("auditor", "report", held, "--since", "1d", "--receipt", receipt, code=2).error["message"]
    assert "takes no filter" in whole
    same = rig("auditor", "report", held, "--receipt", receipt, "--out", receipt, code=2).error["message"]
    assert same == "--out and --receipt name the same file"
    both = rig.cli("auditor", "report", "-o", "csv", "--json", code=2).stderr
    assert "name two formats" in both
    # before the seal there is no receipt, and then there is no report either
    assert (
        "its receipt is written when it is sealed"
        in (rig("auditor", "report", held, "--receipt", receipt, "--out", out, code=9).error["message"])
    )
    assert list(here.iterdir()) == []


def test_both_files_are_written_or_none(rig: Rig, spec: Spec, here: Path) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
    receipt, out = here / "receipt.json", here / "report.json"
    files = ("report", file.stem, "--receipt", str(receipt), "--out")
    for wrong in (here / "nowhere" / "report.json", here):
        assert "cannot be written" in rig("auditor", *files, str(wrong), code=2).error["message"]
        assert list(here.iterdir()) == []
    if Path("/dev/full").exists():
        out.write_text("mine")
        assert "File exists" in rig("auditor", *files, str(out), code=2).error["message"]
        assert out.read_text() == "mine" and not receipt.exists()
        out.unlink()
    told = rig.cli("auditor", *files, str(out))
    assert told.stdout == "" and told.stderr == f"written to {out}\nreceipt written to {receipt}\n"
    assert json.loads(receipt.read_text())["signatures"] and json.loads(out.read_text())["leases"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (receipt, out))
    # the name says a new file: the old one stays as it is
    before = receipt.read_text()
    out.unlink()
    assert "File exists" in rig("auditor", *files, str(out), code=2).error["message"]
    assert receipt.read_text() == before and not out.exists()


def test_a_task_that_cannot_be_read_is_told_whatever_the_filter(rig: Rig, tasks: dict[str, str]) -> None:
    rig.drop_triggers()
    rig.sql("UPDATE revisions SET body = 'x' WHERE task_id = ?", tasks["cancelled"])
    for options in (("--state", "active"), ("--agent", "research-agent")):
        shown = rig("auditor", "report", *options, code=12)
        assert tasks["held"] in {row["task_id"] for row in json.loads(shown.stdout)["leases"]}
        assert "not in the report, because they cannot be read: 1 task: " in shown.error["message"]
