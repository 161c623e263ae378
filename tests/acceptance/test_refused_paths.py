"""Whoever is in no group for a path learns which group it takes: in the hint, at two widths, in a pipe and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SERVER, Quick, at_terminal

LISTING = (
    "Only operators, approvers and auditors can. That takes a member of jitvault-operators, jitvault-approvers, "
    "jitvault-auditors or jitvault-security: an administrator adds an entity to a group (docs/install.md). "
    f"`{SERVER} token lookup` shows who you are."
)


def test_who_may_not_list_is_told_the_groups_that_may(quick: Quick) -> None:
    refused = quick("agent", "list", "--json", worker=False, code=10).error
    assert refused["hint"] == LISTING
    assert LISTING in quick("agent", "list", worker=False, code=10).stderr


@pytest.mark.parametrize(
    ("who", "command", "groups"),
    [
        ("auditor", ["grant"], "jitvault-operators or jitvault-agents"),
        ("approver-1", ["grant"], "jitvault-operators or jitvault-agents"),
        ("auditor", ["freeze", "--agent", "research-agent", "--unseen", "--reason", "no"], "jitvault-operators"),
    ],
    ids=["auditor grants", "approver grants", "auditor freezes"],
)
def test_who_may_not_sign_is_told_the_groups_that_may(
    quick: Quick, spec: Callable[..., Path], who: str, command: list[str], groups: str
) -> None:
    words = [*command, str(spec())] if command == ["grant"] else command
    refused = quick(who, *words, "--json", worker=False, code=10).error
    assert f"That takes a member of {groups}: an administrator" in refused["hint"]


def test_who_may_not_end_a_task_is_told_the_groups_that_may(quick: Quick, spec: Callable[..., Path]) -> None:
    quick("operator", "grant", file := spec())
    frozen = quick("auditor", "freeze", "--agent", "research-agent", "--reason", "no", "--json", worker=False, code=10)
    assert "a member of jitvault-operators: " in frozen.error["hint"]
    for command in (["complete"], ["revoke", "--reason", "no"]):
        refused = quick("auditor", command[0], file.stem, *command[1:], "--json", worker=False, code=10)
        assert "a member of jitvault-operators or jitvault-agents: " in refused.error["hint"]
    quick("operator", "complete", file.stem)


def test_only_who_can_lift_a_freeze_is_named_for_that(quick: Quick) -> None:
    frozen = ["--template", "no-such-template", "--reason", "no"]
    quick("operator", "freeze", *frozen, "--unseen")
    hint = quick("approver-1", "unfreeze", *frozen, "--json", worker=False, code=10).error["hint"]
    assert hint.startswith("Only operators can. That takes a member of jitvault-operators: an administrator")
    quick("operator", "unfreeze", *frozen)
    read = quick("agent", "freezes", "--json", worker=False, code=10).error
    assert "jitvault-operators, jitvault-approvers, jitvault-auditors or jitvault-security" in read["hint"]
    assert "written" not in read["message"]


def test_no_name_of_a_group_is_broken_on_a_terminal(quick: Quick) -> None:
    width = 80
    hidden = {"JITVAULT_LEDGER": "", "JITVAULT_WORKER_TOKEN": ""}
    shown = at_terminal(quick, "agent", "list", width=width, **hidden)
    assert shown.code == 10
    for group in ("jitvault-operators", "jitvault-approvers", "jitvault-auditors", "jitvault-security"):
        assert group in shown.stdout
    assert all(len(line) <= width for line in shown.stdout.splitlines())
