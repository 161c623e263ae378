"""`jitvault list`, as typed: at 80 and 120 columns, in a pipe and as JSON, with a ledger and without."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Quick, at_terminal

Spec = Callable[..., Path]
PLACES = pytest.mark.parametrize("with_ledger", [True, False], ids=["ledger", "published"])


@pytest.fixture
def tasks(quick: Quick, spec: Spec) -> tuple[str, str]:
    """A task that waits for an approver, and one whose wrapping the operator has."""
    waiting = spec(criticality="medium")
    quick("operator", "submit", waiting)
    issued = spec()
    quick("operator", "grant", issued)
    return waiting.stem, issued.stem


def seen(quick: Quick, with_ledger: bool, *options: str) -> dict[str, dict[str, Any]]:
    listed = quick("operator", "list", "-o", "json", *options, worker=with_ledger)
    return {row["task_id"]: row for row in listed.json["tasks"]}


def row_of(task: str, shown: str) -> str:
    """Return a task's row as one line, with what was folded below it."""
    found = re.search(rf"^{re.escape(task)} .*(?:\n .*)*", shown, re.MULTILINE)
    assert found is not None
    return " ".join(line.rstrip() for line in found[0].splitlines())


@PLACES
def test_a_terminal_of_80_columns_says_whose_it_is_and_who_is_waited_for(
    quick: Quick, tasks: tuple[str, str], with_ledger: bool
) -> None:
    own = {} if with_ledger else {"JITVAULT_WORKER_TOKEN": "", "JITVAULT_LEDGER": ""}
    for width in (80, 120, 200):
        shown = at_terminal(quick, "operator", "list", "--open", "--owner", "data-owner", width=width, **own).stdout
        waiting, issued = (row_of(task, shown) for task in tasks)
        # folded at 80 columns where the open tasks of other tests make the columns before it wider
        assert re.search(r" pending_approval .* 1\b.* of\b", waiting)
        assert re.search(r" issued .* in 1\dm .* operator:( .*)?\bhand\b", issued), "it holds the wrapping"
        if width == 200:
            # at 120 the open tasks of other tests may have pushed a column out
            assert " operator: hand it to" in issued
            assert re.search(r" research-agent +postgres-readonly +medium ", waiting)
        listed = shown.split("This is what")[0]
        assert max(map(len, listed.splitlines())) <= width


@PLACES
def test_a_pipe_gets_one_line_a_task(quick: Quick, tasks: tuple[str, str], with_ledger: bool) -> None:
    listed = quick("operator", "list", worker=with_ledger)
    head, *lines = listed.stdout.splitlines()
    assert re.split(" {2,}", head)[:3] == ["task", "state", "ended"]
    assert [line.split()[0] for line in lines] == [*seen(quick, with_ledger)]
    (waiting,) = (line for line in lines if line.startswith(tasks[0]))
    assert re.split(" {2,}", waiting)[1:7] == [
        "pending_approval",
        "-",
        "-",
        "research-agent",
        "postgres-readonly",
        "medium",
    ]
    assert waiting.endswith("  1 of jitvault-approvers")
    notes = listed.stderr.splitlines()
    assert (
        notes == [] if with_ledger else notes[0].startswith("This is what a worker last published") and len(notes) == 1
    )
    assert quick("operator", "list", "-q", worker=with_ledger).stderr == ""


@PLACES
def test_json_has_names_beside_the_ids(quick: Quick, tasks: tuple[str, str], with_ledger: bool) -> None:
    row = seen(quick, with_ledger)[tasks[0]]
    assert (row["requester_name"], row["agent_name"], row["owner_name"]) == ("operator", "research-agent", "data-owner")
    assert (row["risk"], row["templates"]) == ("medium", ["postgres-readonly"])
    assert row["missing"] == [{"group": "jitvault-approvers", "count": 1}]


@PLACES
def test_filters_take_names_ids_and_states(quick: Quick, tasks: tuple[str, str], with_ledger: bool) -> None:
    waiting, issued = tasks
    agent = seen(quick, with_ledger)[issued]["agent"]
    for options in (("--agent", "Research-Agent"), ("--agent", agent), ("--template", "postgres-readonly")):
        assert {*tasks} <= seen(quick, with_ledger, *options).keys()
    assert not {*tasks} & seen(quick, with_ledger, "--template", "pki-service").keys()
    assert not {*tasks} & seen(quick, with_ledger, "--agent", "research-agent", "--template", "pki-service").keys()
    in_state = seen(quick, with_ledger, "--state", "pending_approval")
    assert waiting in in_state and {row["state"] for row in in_state.values()} == {"pending_approval"}
    assert {*tasks} <= seen(quick, with_ledger, "--state", "issued", "--state", "pending_approval").keys()
    nobodys = quick("operator", "list", "--owner", "nobody", "--open", worker=with_ledger, code=9)
    assert nobodys.stdout == "" and "no task has the owner 'nobody'" in nobodys.stderr


def test_a_state_that_there_is_not_is_refused_with_those_that_there_are(quick: Quick) -> None:
    refused = quick("operator", "list", "--state", "pending", code=2)
    assert "--state: expected one of pending_approval, approved, " in refused.stderr and "'pending'" in refused.stderr


def test_a_task_that_has_ended_says_why(quick: Quick, tasks: tuple[str, str]) -> None:
    quick("operator", "complete", tasks[1])
    shown = at_terminal(quick, "operator", "list", "--state", "confirmed", "--state", "sealed").stdout
    assert re.search(rf"^{tasks[1]} +(confirmed|sealed) \(completed\) ", shown, re.MULTILINE)
    piped = quick("operator", "list").stdout
    assert re.search(rf"^{tasks[1]} +(confirmed|sealed) +completed ", piped, re.MULTILINE)


def test_what_waits_for_an_approver_is_folded_and_marked_wherever_it_goes(quick: Quick, spec: Spec) -> None:
    intent = "Count the orders of each region for the weekly report, and compare them with those of the week before."
    waiting = spec(criticality="medium", intent=intent)
    quick("operator", "submit", waiting, code=None)
    # a pager behind a pipe would fold where a line of ours begins
    piped = quick("approver-1", "approvals", extra={"COLUMNS": "80"}).stdout
    for shown in (piped, at_terminal(quick, "approver-1", "approvals").stdout):
        assert max(map(len, shown.splitlines())) <= 80
        assert intent in re.sub(r" *\r?\n +\| ", " ", shown)


def test_other_lists_have_one_line_a_row_in_a_pipe(quick: Quick) -> None:
    templates = quick("operator", "templates", "list").stdout.splitlines()
    assert [line.split()[0] for line in templates] == [
        "template",
        "pki-service",
        "postgres-readonly",
        "postgres-readwrite",
    ]
    approvers = quick("admin", "approvers", "list").stdout.splitlines()
    assert [line.split()[0] for line in approvers] == ["person", "approver-1", "approver-2"]
    narrow = at_terminal(quick, "operator", "templates", "list").stdout.splitlines()
    assert max(map(len, narrow)) <= 80 and len(narrow) > 6
