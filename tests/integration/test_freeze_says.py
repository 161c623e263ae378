"""What `freeze` and `unfreeze` say is what is known: whom they ended, whom not, and what nobody froze."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attended import Attended
from commands import EXAMPLE, Quick, at_terminal
from rig import Rig, own_rig

from jitvault.cli.ends import frozen_tasks
from jitvault.sandbox.world import World, env

Spec = Callable[..., Path]
AGENT, TEMPLATE = ("--agent", "research-agent"), ("--template", "postgres-readonly")
WHY = ("--reason", "look first")


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Iterator[Rig]:
    own = own_rig(lab, env(lab, "", EXAMPLE), tmp_path)
    own.cli = Quick(own.cli.variables, own.cli.home)
    yield own
    own("operator", "unfreeze", "--all", "--unseen", "--reason", "the test is over")
    own("operator", "revoke", "--all", "--yes", "--reason", "the test is over", code=None)


# -- who is counted --------------------------------------------------------------------------------------------------


def test_freeze_counts_and_awaits_the_tasks_that_a_worker_ends_meanwhile(rig: Rig, spec: Spec) -> None:
    files = [spec(), spec()]
    for file in files:
        rig.active(file)
    with Attended(rig):
        said = rig.cli("operator", "freeze", *AGENT, *WHY, "--json", worker=False).json
    # the worker may have sealed them by then
    assert sorted(said["ended"]) == sorted(file.stem for file in files)
    assert set(said["ended"].values()) <= {"confirmed", "sealed"}
    assert (said["frozen"], said["not_ended"]) == ({"agent": "research-agent"}, {})


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_whoever_freezes_again_is_told_who_did_before_and_why(rig: Rig, *, worker: bool) -> None:
    rig.cli("operator", "freeze", *TEMPLATE, *WHY, worker=worker)
    again = rig.cli("operator", "freeze", *TEMPLATE, "--reason", "second thoughts", worker=worker)
    assert again.stdout.startswith("Frozen: template postgres-readonly.")
    said = " ".join(again.stderr.split())
    assert "template postgres-readonly was frozen already, by you since 2" in said
    assert "UTC: look first; your new reason replaces that one" in said
    other = {"VAULT_TOKEN": rig.world.operator_2_token.reveal()}
    said = " ".join(rig.cli(None, "freeze", *TEMPLATE, *WHY, worker=worker, extra=other).stderr.split())
    by = "operator" if worker else rig.entity("operator")
    assert f"was frozen already, by {by} since 2" in said and "second thoughts; both reasons hold" in said
    assert "already" not in rig.cli("operator", "freeze", *AGENT, *WHY, worker=worker).stderr


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_a_freeze_that_was_signed_anew_is_shown_since_the_first_one(rig: Rig, *, worker: bool) -> None:
    before = rig.cli("operator", "freezes", "--all", "--json", worker=worker).json["lifted"]
    rig.cli("operator", "freeze", *TEMPLATE, *WHY, worker=worker)
    (first,) = rig.cli("operator", "freezes", "--json", worker=worker).json["freezes"]
    assert first["first_at"] == first["at"]
    rig.cli("operator", "freeze", *TEMPLATE, "--reason", "second thoughts", worker=worker)
    (again,) = rig.cli("operator", "freezes", "--json", worker=worker).json["freezes"]
    assert (again["first_at"], again["reason"]) == (first["at"], "second thoughts") and again["at"] > first["at"]
    since = f"{first['at'][:10]} {first['at'][11:19]} UTC"
    assert since in rig.cli("auditor", "freezes", worker=worker).stdout

    # who lifted it, and when, is known afterwards; another freeze of that scope is a freeze of its own
    other = {"VAULT_TOKEN": rig.world.operator_2_token.reveal()}
    undone = rig.cli(None, "unfreeze", *TEMPLATE, "--reason", "nothing was wrong", worker=worker, extra=other)
    assert f"frozen since {since}" in undone.stdout
    rig.cli("operator", "freeze", *TEMPLATE, "--reason", "once more", worker=worker)
    found = rig.cli("operator", "freezes", "--all", "--json", worker=worker).json
    (active,) = found["freezes"]
    assert active["first_at"] == active["at"] and active["reason"] == "once more"
    (lifted,) = [one for one in found["lifted"] if one not in before]
    assert (lifted["scope"], lifted["at"], lifted["reason"]) == (first["scope"], first["at"], "second thoughts")
    assert lifted["lifted"]["reason"] == "nothing was wrong" and lifted["lifted"]["at"] < active["at"]
    by = ("operator", "operator-2") if worker else (lifted["by"], rig.entity("operator-2"))
    assert (lifted["by"], lifted["lifted"]["by"]) == by
    table = at_terminal(rig.cli, "auditor", "freezes", "--all", width=80).stdout
    assert "nothing was wrong" in " ".join(table.split()) and all(len(row) <= 80 for row in table.splitlines())
    assert "lifted" not in rig.cli("operator", "freezes", worker=worker).stdout


def test_whoever_has_no_ledger_reads_that_a_freeze_ended_it(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig("operator", "freeze", *AGENT, *WHY)
    for who in ("operator", "agent"):
        shown = " ".join(rig.cli(who, "status", file.stem, worker=False).stdout.split())
        assert "is confirmed (frozen by operator)" in shown and "UTC by operator: frozen: look first" in shown
    for worker in (False, True):
        # with the worker's identity `status` seals it, where the settle window is over
        assert rig.cli("operator", "status", file.stem, "-q", worker=worker).stdout in ("confirmed\n", "sealed\n")


def test_list_and_status_say_who_lifts_the_freeze_that_a_task_waits_for(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", waiting := spec(criticality="medium"))
    rig("operator", "grant", held := spec())
    (row,) = [line for line in rig.cli("auditor", "list").stdout.splitlines() if line.startswith(held.stem)]
    assert row.endswith("operator: hand it to research-agent"), "its agent has nothing to unwrap yet"
    rig.cli("operator", "freeze", *AGENT, *WHY, "--wait", "0", code=13, worker=False)
    lifts = "an operator: unfreeze --agent research-agent"
    readers = (("operator", True), ("operator", False), ("auditor", False))
    for who, worker in (*readers, ("approver-1", False)):
        listed = rig.cli(who, "list", worker=worker).stdout.splitlines()
        rows = {line.split()[0]: line for line in listed}
        assert rows[waiting.stem].endswith(f"frozen; {lifts}; 1 of jitvault-approvers"), (who, worker)
        assert rows[held.stem].endswith("a worker: end it, because it is frozen"), (who, worker)
    for who, worker in readers:
        shown = " ".join(rig.cli(who, "status", waiting.stem, worker=worker).stdout.split())
        unfreeze = "frozen by an operator unfreeze jitvault unfreeze --agent research-agent --reason WHY"
        assert unfreeze in shown and "waiting for 1 approval by jitvault-approvers" in shown
        told = rig.cli(who, "status", waiting.stem, "--json", worker=worker).json["freeze"]
        assert told == {"kind": "operator", "scope": {"agent": "research-agent"}}
    rig("operator", "cancel", waiting.stem)
    assert "unfreeze" not in rig.cli("operator", "status", waiting.stem).stdout, "it is over"


def test_an_approver_reads_that_the_task_is_frozen_while_they_decide(rig: Rig, spec: Spec) -> None:
    width = 80
    rig("operator", "submit", waiting := spec(criticality="medium"))
    assert "FROZEN" not in rig.cli("approver-1", "approvals", worker=False).stdout
    rig("operator", "freeze", *TEMPLATE, *WHY)
    shown = at_terminal(rig.cli, "approver-1", "approve", waiting.stem, answer="n", width=width)
    listed = rig.cli("approver-1", "approvals", worker=False, extra={"COLUMNS": str(width)})
    for text in (shown.stdout, listed.stdout):
        said = " ".join(text.split())
        assert 'FROZEN "look first", template postgres-readonly by an operator since 20' in said
        assert "UTC; granted only when that is lifted" in said
        assert all(len(line) <= width for line in text.splitlines() if "sha256:" not in line)
    (told,) = rig.cli("approver-1", "approvals", "--json", worker=False).json["tasks"]
    assert (told["frozen"]["scope"], told["frozen"]["reason"]) == ({"template": "postgres-readonly"}, "look first")
    rig("operator", "cancel", waiting.stem)


def test_whom_a_worker_has_ended_before_they_are_counted_is_counted(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.active(file := spec())
    covered = frozen_tasks._covered

    def late(*args: Any) -> list[str]:
        # as a worker that was faster than this command
        rig.turn(file.stem)
        return covered(*args)

    monkeypatch.setattr(frozen_tasks, "_covered", late)
    assert rig("operator", "freeze", *AGENT, *WHY).json["ended"] == {file.stem: "confirmed"}


def test_without_a_worker_it_is_not_said_that_one_ends_the_rest(rig: Rig, spec: Spec) -> None:
    width = "80"
    rig.active(file := spec())
    late = rig.cli("operator", "freeze", *AGENT, *WHY, "--wait", "1", code=13, worker=False, extra={"COLUMNS": width})
    assert "1 task held access, 0 ended and confirmed." in late.stdout
    said = " ".join(late.stderr.split())
    assert f"the freeze of agent research-agent holds; 1 of 1 task not proven to be ended: {file.stem} (issued)" in said
    assert "no worker has done this within 1 s" in said and "`jitvault revoke --agent research-agent --reason" in said
    nothing = rig.cli("operator", "freeze", "--agent", "operator", "--unseen", *WHY, worker=False)
    assert "No task of it held access, by what is published in Vault." in nothing.stdout


def test_a_task_that_had_ended_before_is_not_counted(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig("operator", "complete", file.stem)
    said = rig("operator", "freeze", *TEMPLATE, *WHY).json
    assert (said["ended"], said["not_ended"]) == ({}, {})


# -- everything ------------------------------------------------------------------------------------------------------


def test_a_freeze_of_everything_asks_on_a_terminal_and_names_whom_it_ends(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    said = at_terminal(rig.cli, "operator", "freeze", "--all", *WHY, answer="n")
    assert said.code == 2 and "nothing was frozen" in said.stdout
    assert f"End 1 task ({file.stem})" in " ".join(said.stdout.split())
    assert rig("operator", "freezes").json["freezes"] == [] and rig.state(file.stem) in ("issued", "active")
    said = at_terminal(rig.cli, "operator", "freeze", "--all", *WHY, answer="y")
    assert said.code == 0 and "1 task held access, 1 ended and confirmed." in said.stdout
    # the line of progress is overwritten, and its end as well is no text
    assert "1 of 1 tasks: ended and confirmed\x1b[K\n" in said.stdout and "x1b" not in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines() if "\x1b" not in line)


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_without_a_terminal_everything_is_frozen_only_with_yes(rig: Rig, *, worker: bool) -> None:
    refused = rig.cli("operator", "freeze", "--all", *WHY, "--json", code=2, worker=worker, given="y\n").error
    assert "nothing was frozen: there is no terminal" in refused["message"] and "--yes" in refused["hint"]
    assert rig("operator", "freezes").json["freezes"] == []
    rig.cli("operator", "freeze", "--all", "--yes", *WHY, worker=worker)
    assert len(rig("operator", "freezes").json["freezes"]) == 1


# -- what nobody froze -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_unfreezing_a_scope_that_is_not_frozen_is_refused(rig: Rig, *, worker: bool) -> None:
    rig("operator", "freeze", *TEMPLATE, *WHY)
    for scope in (("--agent", "reserch-agent"), AGENT, ("--template", "postgres-readwrite")):
        refused = rig.cli("operator", "unfreeze", *scope, "--reason", "x", "--json", code=9, worker=worker).error
        assert f"no operator froze {scope[0][2:]} {scope[1]}: nothing was lifted" in refused["message"]
        assert "jitvault freezes" in refused["hint"]
    said = rig.cli("operator", "unfreeze", *TEMPLATE, "--reason", "x", worker=worker).stdout
    assert said.startswith("lifted: template postgres-readonly, frozen since ") and " UTC\n" in said
    # lifted already
    rig.cli("operator", "unfreeze", *TEMPLATE, "--reason", "x", code=9, worker=worker)
    rig.cli("operator", "unfreeze", "--all", "--reason", "x", code=9, worker=worker)
    signed = rig.cli("operator", "unfreeze", *TEMPLATE, "--unseen", "--reason", "x", worker=worker).stdout
    assert "no freeze of it was found here" in signed and "lifted" not in signed


def test_a_freeze_that_only_the_ledger_knows_any_more_can_be_lifted(rig: Rig, spec: Spec) -> None:
    """As after a restore of Vault from an older snapshot."""
    rig("operator", "freeze", *AGENT, *WHY)
    rig("operator", "grant", file := spec(), code=3)
    own = f"jitvault/metadata/freezes/{rig.entity('operator')}"
    for name in rig.admin.list(f"{own}/"):
        rig.admin.delete(f"{own}/{name}")
    rig("operator", "grant", file, code=3)
    rig.cli("operator", "unfreeze", *AGENT, "--reason", "x", code=9, worker=False)
    rig("operator", "unfreeze", *AGENT, "--reason", "looked")
    rig("operator", "grant", file)
