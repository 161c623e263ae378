"""What people are shown of ends: what was asked for, what was tried again and again, what was said, what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from attended import Attended
from commands import at_terminal
from rig import Rig

from jitvault.context import new_id
from jitvault.documents.signed import DOCUMENT_TYPE, signer_key
from jitvault.errors import VaultRefused
from jitvault.lifecycle.requests.sign import sign_grant_request
from jitvault.model.spec import parse_spec

pytestmark = pytest.mark.usefixtures("lab", "hurried", "in_this_process")
Spec = Callable[..., Path]


@pytest.fixture
def stuck(rig: Rig, spec: Spec) -> Iterator[str]:
    """A task that is ending and cannot: its login owns something."""
    file = spec()
    user = rig.active(file).login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{user}"'.encode())
        rig("operator", "complete", file.stem, code=6)
        yield file.stem
        target.execute(f'DROP SCHEMA IF EXISTS "{file.stem}"'.encode())


def mended(rig: Rig, task: str) -> None:
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'DROP SCHEMA "{task}"'.encode())


def notes(rig: Rig, task: str) -> list[tuple[str, str]]:
    timeline = rig("operator", "status", task).json["timeline"]
    return [(e["body"]["by"], e["body"]["note"]) for e in timeline if e["event"] == "noted"]


# -- what was asked for and not done yet -------------------------------------------------------------------------


def test_an_end_that_waits_for_a_worker_is_shown_to_whoever_may_see_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    assert rig("operator", "status", file.stem).json["unread"] == []
    rig.cli("operator", "revoke", file.stem, "--reason", "it is enough", "--wait", "0", code=13, worker=False)
    said = "at 2", " UTC, waits for a worker: it is enough"
    for who, by in (("operator", "you"), ("auditor", "operator")):
        shown = rig.cli(who, "status", file.stem, worker=False).stdout
        assert f"end requested by {by} {said[0]}" in shown and said[1] in shown
        (asked,) = rig.cli(who, "status", file.stem, "--json", worker=False).json["unread"]
        assert (asked["by"], asked["reason"], asked["note"]) == (by, "operator", "it is enough")
    # who may read nobody else's request
    assert rig.cli("agent", "status", file.stem, "--json", worker=False).json["unread"] == []
    # with the ledger, and without the worker's identity
    reader = {"JITVAULT_WORKER_TOKEN": ""}
    assert "end requested by operator" in rig.cli("auditor", "status", file.stem, extra=reader).stdout
    assert rig("operator", "status", file.stem).json["state"] == "confirmed"
    for who in ("operator", "auditor"):
        assert rig.cli(who, "status", file.stem, "--json", worker=False).json["unread"] == []


# -- what was tried ------------------------------------------------------------------------------------------------


def test_tries_are_folded_for_people_and_all_there_as_json(rig: Rig, stuck: str) -> None:
    for _ in range(2):
        rig("operator", "complete", stuck, code=6)
    shown = rig.cli("operator", "status", stuck, extra={"COLUMNS": "80"}).stdout
    (failed,) = [line for line in shown.splitlines() if " revoked: 1 revoke_failed" in line]
    assert "times, last at" in failed
    assert "tried again  from" in shown
    tries = [e for e in rig("operator", "status", stuck).json["timeline"] if e["event"] == "revoked"]
    assert len(tries) > 5
    assert max(map(len, shown.splitlines()[-12:])) <= 80
    listed = rig.cli("auditor", "list").stdout
    # when it is due again
    (row,) = [line for line in listed.splitlines() if line.startswith(stuck)]
    assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .* the proof of its end$", row)
    mended(rig, stuck)
    rig("operator", "complete", stuck)


def test_an_end_that_a_worker_cannot_prove_is_no_missing_worker(rig: Rig, stuck: str) -> None:
    with Attended(rig):
        left = rig.cli("operator", "complete", stuck, "--wait", "1", code=6, worker=False).stderr
        assert "no worker" not in left and "could not end 1 lease, which may still work" in " ".join(left.split())
    mended(rig, stuck)
    rig("operator", "complete", stuck, code=None)


# -- who ended it --------------------------------------------------------------------------------------------------


def test_who_may_not_end_a_task_is_refused_at_once_and_has_written_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    file.write_text(file.read_text().replace("agent: research-agent", "agent: approver-1"))
    rig("operator", "grant", file)
    for command in (["complete"], ["revoke"], ["revoke", "--force", "--reason", "x", "--yes"]):
        refused = rig.cli("agent", *command[:1], file.stem, *command[1:], code=3, worker=False).stderr
        assert "nothing was written" in refused and "operator" in refused
    assert rig.admin.read(f"jitvault/data/requests/{rig.entity('research-agent')}/{file.stem}/end") is None
    assert rig.state(file.stem) == "issued"
    # an approver who is the task's agent, and an operator, may
    rig("operator", "revoke", file.stem)


def test_only_an_operator_is_told_of_force_and_may_use_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    refused = rig("agent", "revoke", file.stem, "--force", "--reason", "x", "--yes", code=3).error
    assert "only a member of jitvault-operators can close it without proof" in refused["message"]
    assert f"`jitvault revoke {file.stem} --force --reason WHY`" in refused["hint"]
    rig("operator", "complete", file.stem)


def test_an_agents_revocation_is_the_agents(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    assert "(revoked by research-agent)" in rig.cli("agent", "revoke", file.stem).stdout
    for worker in (True, False):
        shown = rig.cli("operator", "status", file.stem, worker=worker).stdout
        assert "(revoked by research-agent)" in shown and "by operator" not in shown
    assert "ending: revoked, asked for by research-agent" in rig.cli("operator", "status", file.stem).stdout
    # in a pipe it is the same word, and for programs the stored one
    (row,) = [line.split() for line in rig.cli("operator", "list").stdout.splitlines() if line.startswith(file.stem)]
    assert "revoked" in row and "operator" not in row
    (told,) = [one for one in rig("operator", "list").json["tasks"] if one["task_id"] == file.stem]
    assert told["end_reason"] == "operator"


def test_a_revocation_without_a_reason_says_that_none_was_given(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    ended = rig.cli("operator", "revoke", file.stem)
    assert ended.stderr == "No reason is given, and every report says so. --reason WHY gives one.\n"
    for worker in (True, False):
        shown = " ".join(rig.cli("operator", "status", file.stem, worker=worker).stdout.split())
        assert re.search(r"ended 20[0-9: -]{17} UTC by operator: revoked, no reason given", shown), shown
    # what is over already was not ended by this command
    assert rig.cli("operator", "revoke", file.stem).stderr == ""
    rig.active(file := spec())
    assert rig.cli("operator", "revoke", file.stem, "--reason", "enough").stderr == ""


def test_what_was_published_is_one_table_whose_values_stand_below_each_other(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    shown = rig.cli("operator", "status", file.stem, worker=False, extra={"COLUMNS": "120"}).stdout
    starts = [found.end() for line in shown.splitlines() if (found := re.match(r"  [a-z][a-z ]*?  +", line))]
    assert len(starts) > 6 and set(starts) == {max(starts)}, shown
    rig("operator", "complete", file.stem)


def test_the_access_of_a_task_is_shown_with_the_ledger_and_without(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", file := spec())
    for who, has_worker in (("operator", True), ("operator", False), ("approver-1", False), ("auditor", False)):
        shown = rig.cli(who, "status", file.stem, worker=has_worker).stdout
        assert "access postgres-readonly with database=app" in " ".join(shown.split())


# -- what was said -------------------------------------------------------------------------------------------------


def test_a_reason_that_comes_later_is_kept_and_why_it_ended_stays(rig: Rig, stuck: str) -> None:
    operator = rig.entity("operator")
    rig("operator", "revoke", stuck, "--reason", "the agent went wild", code=6)
    assert notes(rig, stuck) == [(operator, "the agent went wild")]
    rig("operator", "revoke", stuck, "--reason", "the agent went wild", code=6)
    assert notes(rig, stuck) == [(operator, "the agent went wild")]
    mended(rig, stuck)
    ended = rig("operator", "revoke", stuck, "--reason", "mended now")
    assert (ended.json["end_reason"], ended.json["confirmed"], ended.stderr) == ("completed", True, "")
    assert notes(rig, stuck) == [(operator, "the agent went wild"), (operator, "mended now")]
    late = rig("operator", "revoke", stuck, "--reason", "and another thing")
    assert "this reason is not recorded" in late.stderr
    assert len(notes(rig, stuck)) == 2


def test_what_somebody_says_who_may_not_end_it_is_not_kept(rig: Rig, stuck: str) -> None:
    person = rig.wiring("approver-1").person
    wish = {"kind": "end", "task": stuck, "entity": person.entity, "reason": "operator", "note": "mind me"}
    wish |= {"nonce": new_id(), "at": person.clock.now().isoformat()}
    signed = person.signer.sign(wish, DOCUMENT_TYPE, key=signer_key(person.entity))
    rig.put(f"requests/{person.entity}/{stuck}/end", signed)
    rig("operator", "complete", stuck, code=6)
    assert notes(rig, stuck) == []
    mended(rig, stuck)
    rig("operator", "complete", stuck, code=None)


# -- what was found ------------------------------------------------------------------------------------------------


def test_a_list_says_how_many_findings_each_task_has(rig: Rig, spec: Spec) -> None:
    good, bad = spec(), spec()
    rig.active(good)
    assert "findings" not in at_terminal(rig.cli, "auditor", "list").stdout
    held = rig.active(bad)
    with suppress(VaultRefused):
        rig.vault(held.token).read("sys/mounts")
    rig("operator", "status", bad.stem, code=12)
    listed = {row["task_id"]: row["findings"] for row in rig("auditor", "list").json["tasks"]}
    count = len(rig.findings(bad.stem))
    assert count > 0
    assert listed == {good.stem: 0, bad.stem: count}
    shown = at_terminal(rig.cli, "auditor", "list").stdout.splitlines()
    assert shown[0].split()[:3] == ["task", "state", "findings"]
    (row,) = [line for line in shown if line.startswith(bad.stem)]
    assert f"(tripwire)  {count} " in row
    # the same by what is published
    found = rig.cli("auditor", "list", "--json", worker=False).json["tasks"]
    assert {row["task_id"]: row["findings"] for row in found if row["task_id"] in listed} == listed


def test_a_request_that_no_worker_has_taken_in_is_withdrawn_before_one_does(rig: Rig, spec: Spec) -> None:
    """Whoever is told that there is no such task yet must not find it granted later."""
    file = spec()
    rig.cli("operator", "grant", file, "--wait", "0", code=13, worker=False)
    rig.cli("operator", "cancel", file.stem, "--reason", "not any more", "--wait", "0", code=13, worker=False)
    shown = rig("operator", "status", file.stem).json
    assert (shown["state"], shown["ended"]["note"]) == ("cancelled", "not any more")
    assert rig.task_tokens(file.stem) == []
    others = rig.cli("operator", "cancel", "no-such-task", "--json", code=9, worker=False).error
    assert others["message"] == "there is no task no-such-task in Vault"


def test_a_list_of_what_is_open_leaves_out_what_is_over(rig: Rig, spec: Spec) -> None:
    held, over, waiting = spec(), spec(), spec(criticality="medium")
    rig.active(held)
    rig("operator", "submit", waiting)
    rig.active(over)
    rig("operator", "complete", over.stem)
    rig.settle()
    assert rig("operator", "status", over.stem).json["state"] == "sealed"
    for who, worker in (("operator", True), ("auditor", False)):
        found = rig.cli(who, "list", "--open", "--json", worker=worker).json["tasks"]
        assert {row["task_id"] for row in found} >= {held.stem, waiting.stem}
        assert over.stem not in {row["task_id"] for row in found}
    rig("operator", "cancel", waiting.stem)
    rig("operator", "revoke", held.stem, "--reason", "x")
    rig.settle()
    rig("operator", "status", held.stem)
    assert rig.cli("auditor", "list", "--open").stdout.strip() == "There are no open tasks."


@pytest.mark.parametrize("taken_in", [True, False], ids=["approved", "not taken in yet"])
def test_a_revocation_of_what_may_still_be_granted_keeps_it_from_being_granted(
    rig: Rig, spec: Spec, taken_in: bool
) -> None:
    file = spec()
    if taken_in:
        assert rig("operator", "submit", file).json["state"] == "approved"
        sign_grant_request(rig.wiring("operator").person, parse_spec(file.read_bytes()))
    else:
        rig.cli("operator", "grant", file, "--wait", "0", code=None, worker=False)
    ended = rig.cli("operator", "revoke", file.stem, "--reason", "it was stolen", "--json")
    assert ended.json["state"] == "cancelled" and "was never granted" in ended.stderr
    rig("operator", "grant", file.stem, code=9)
    assert rig.task_tokens(file.stem) == [] and rig.record(file.stem).grants == ()
    # over is over, and of what is only done there is nothing to be said
    assert "never granted" in rig("operator", "revoke", file.stem, code=9).error["message"]
    other = spec()
    rig("operator", "submit", other)
    assert "never granted" in rig("operator", "complete", other.stem, code=9).error["message"]
