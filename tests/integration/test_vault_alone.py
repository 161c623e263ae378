"""People whose machine reaches Vault and nothing else: each command under their own token and its policy.

A worker runs elsewhere on a ledger that they cannot reach. Their environment is VAULT_ADDR and VAULT_TOKEN, their home
is empty, and it stays so.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE, PEOPLE, Quick
from rig import Rig, own_rig

from jitvault.sandbox.world import World, env

Spec = Callable[..., Path]
NOBODYS = "postgresql://nobody@127.0.0.1:1/nowhere"
# a person waits for this worker as for any other; the machine may be busy
PATIENT = ("--wait", "60")
KILL = ("--reason", "x", "--yes", "--json", *PATIENT)


class Alone(Quick):
    """The commands of one person's machine."""

    def environment(self, who: str | None, *, worker: bool = True) -> dict[str, str]:
        assert who
        own = {"VAULT_ADDR": self.variables["VAULT_ADDR"], "VAULT_TOKEN": self.variables[PEOPLE[who]]}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "COLUMNS": "80", **own}


@pytest.fixture(scope="module")
def rig(lab: World, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return own_rig(lab, env(lab, "", EXAMPLE), tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Attended]:
    with Attended(rig) as working:
        yield working


@pytest.fixture
def alone(rig: Rig, tmp_path: Path) -> Iterator[Alone]:
    home = tmp_path / "home"
    home.mkdir()
    yield Alone(rig.cli.variables, home)
    # which wrappings were opened is the one thing that a command remembers
    opened = home / ".local" / "state" / "jitvault" / "unwrapped"
    left = [path for path in home.rglob("*") if path.is_file() and path.parent != opened]
    assert left == [], "a command left something behind"


@pytest.fixture
def person(alone: Alone, worker: Attended) -> Alone:
    """The same while a worker runs elsewhere."""
    return alone


def state(rig: Rig, file: Path) -> str:
    return rig.record(file.stem).task.state.value


def granted(person: Alone, file: Path) -> dict[str, Any]:
    return dict(person("operator", "grant", file, "--json", *PATIENT).json)


def test_without_a_worker_a_request_waits_and_its_author_is_told_so(alone: Alone, spec: Spec) -> None:
    """The first one here: from the next on a worker runs."""
    file = spec()
    alone("operator", "submit", file, "--wait", "0", code=13)
    told = alone("operator", "status", file.stem, "--json", code=9).error
    assert f"there is no task {file.stem} yet: no worker has admitted what you requested at " in told["message"]
    assert told["hint"] == f"Check that a worker is running. `jitvault cancel {file.stem}` withdraws the request."
    # an auditor reads everybody's requests, an approver nobody's
    others = alone("auditor", "status", file.stem, "--json", code=9).error
    assert f"there is no task {file.stem} yet: no worker has admitted what " in others["message"]
    others = alone("approver-1", "status", file.stem, "--json", code=9).error
    assert others["message"] == f"there is no task {file.stem} in Vault"


def test_submit_approvals_approve_grant_unwrap_and_complete(
    rig: Rig, person: Alone, spec: Spec, tmp_path: Path
) -> None:
    file, out = spec(criticality="medium"), tmp_path / "wrapped.json"
    assert person("operator", "submit", file, "--json", *PATIENT).json["state"] == "pending_approval"
    assert [task["task_id"] for task in person("approver-1", "approvals", "--json").json["tasks"]] == [file.stem]
    said = person("approver-1", "approve", file.stem, "--yes", "--json", *PATIENT)
    assert (said.json["state"], said.json["missing"]) == ("approved", []) and "| Count the orders." in said.stderr
    assert person("approver-1", "approvals", "--json").json["tasks"] == []
    person("operator", "grant", file.stem, "--out", out, *PATIENT)
    # nobody's token: the wrapping is all that the agent needs
    (secret,) = person("agent", "unwrap", out, "--read", "--json").json["secrets"]
    login = {"user": secret["fields"]["username"], "password": secret["fields"]["password"]}
    rig.connect(login).close()
    proof = person("agent", "complete", file.stem, "--json", *PATIENT).json
    assert proof["confirmed"] and [lease["verdict"] for lease in proof["leases"]] == ["target_confirmed"]
    assert state(rig, file) in ("confirmed", "sealed")


def test_deny_and_cancel(rig: Rig, person: Alone, spec: Spec) -> None:
    denied, cancelled = spec(criticality="medium"), spec(criticality="medium")
    for file in (denied, cancelled):
        person("operator", "submit", file, *PATIENT)
    refused = person("approver-1", "deny", denied.stem, "--yes", "--reason", "not today", "--json", *PATIENT)
    assert refused.json["state"] == "denied" and state(rig, denied) == "denied"
    assert "not today" in person("operator", "grant", denied.stem, "--json", *PATIENT, code=3).error["message"]
    assert person("operator", "cancel", cancelled.stem, "--json", *PATIENT).json["state"] == "cancelled"
    assert state(rig, cancelled) == "cancelled"


def test_withdraw_before_and_while_access_is_held(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec(criticality="medium")
    person("operator", "submit", file, *PATIENT)
    person("approver-1", "approve", file.stem, "--yes", *PATIENT)
    back = person("approver-1", "withdraw", file.stem, "--yes", "--json", *PATIENT)
    assert back.json["state"] == "pending_approval"
    person("approver-1", "approve", file.stem, "--yes", *PATIENT)
    held = rig.use(person("operator", "grant", file.stem, "--json", *PATIENT).json)
    person("approver-1", "withdraw", file.stem, "--yes", "--reason", "I was wrong", *PATIENT)
    assert state(rig, file) in ("confirmed", "sealed") and not rig.is_live(held.token)
    shown = person("operator", "status", file.stem, "--json").json
    assert shown["end_reason"] == "policy" and "I was wrong" in shown["ended"]["note"]


def test_extend_is_decided_by_an_approver_and_takes_the_next_token(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec(criticality="medium")
    person("operator", "submit", file, *PATIENT)
    person("approver-1", "approve", file.stem, "--yes", *PATIENT)
    held = rig.use(person("operator", "grant", file.stem, "--json", *PATIENT).json)
    more = ("extend", file.stem, "--for", "10m", "--reason", "it is slow", "--json", *PATIENT)
    waits = person("operator", *more, code=4).json
    assert (waits["extension"]["state"], waits["missing"][0]["count"]) == ("pending", 1)
    assert [task["extends_until"] for task in person("approver-1", "approvals", "--json").json["tasks"]] == [
        waits["extension"]["until"]
    ]
    person("approver-1", "approve", file.stem, "--yes", *PATIENT)
    extended = person("operator", *more).json
    assert extended["ends_at"] == waits["extension"]["until"] and len(extended["wrapping"]) == 1
    assert not rig.is_live(held.token) and rig.is_live(rig.use(extended).token)
    person("operator", "complete", file.stem, *PATIENT)


def test_unwrap_from_the_inbox_and_revoke(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec(more="  deliver: agent\n")
    told = person("operator", "grant", file, *PATIENT)
    assert f"unwrap within 2m, once, by research-agent: jitvault unwrap {file.stem} --read" in " ".join(
        told.stdout.split()
    )
    token = person("agent", "unwrap", file.stem, "--json").json["token"]
    assert rig.is_live(token)
    again = person("agent", "unwrap", file.stem, "--json", code=9).error
    assert "is in your inbox: you opened its wrapping at 2" in again["message"]
    proof = person("operator", "revoke", file.stem, "--reason", "enough", "--json", *PATIENT).json
    assert (proof["end_reason"], proof["confirmed"]) == ("operator", True) and not rig.is_live(token)


def test_freeze_ends_what_is_held_and_unfreeze_lets_it_be_granted_again(rig: Rig, person: Alone, spec: Spec) -> None:
    file, scope = spec(), ("--agent", "research-agent")
    held = rig.use(granted(person, file))
    frozen = person("operator", "freeze", *scope, "--reason", "look first", "--json", *PATIENT).json
    assert (list(frozen["ended"]), frozen["not_ended"]) == ([file.stem], {})
    assert state(rig, file) in ("confirmed", "sealed")
    assert not rig.is_live(held.token)
    shown = person("operator", "freezes", "--json").json
    assert [(one["by"], one["reason"]) for one in shown["freezes"]] == [("operator", "look first")]
    other = spec()
    refused = person("operator", "grant", other, "--json", *PATIENT, code=3).error
    assert (
        refused["message"].startswith("operator froze agent research-agent at ") and "look first" in refused["message"]
    )
    seen = " ".join(person("operator", "status", other.stem).stdout.split())
    assert "grant refused" in seen and "look first" in seen
    person("operator", "unfreeze", *scope, "--reason", "all is well")
    after = person("operator", "freezes", "--json").json
    assert (after["freezes"], after["tripwires_known"]) == ([], False)
    said = person("operator", "freezes").stdout
    assert "Nothing is frozen by operators." in said and "Whether a tripwire froze everything is not known here" in said


def test_revoke_by_scope_ends_what_is_published_as_held(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec()
    held = rig.use(granted(person, file))
    ended = person("operator", "revoke", "--agent", "research-agent", "--reason", "stop", "--yes", "--json", *PATIENT)
    assert file.stem in [task["task_id"] for task in ended.json["tasks"]] and not rig.is_live(held.token)


# -- what can be seen ------------------------------------------------------------------------------------------


def test_status_says_how_old_it_is_and_what_is_not_known(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec()
    rig.use(granted(person, file))
    wait_for(lambda: person("operator", "status", file.stem, "--json").json["state"] == "active")
    for who in ("operator", "approver-1", "agent", "auditor"):
        done = person(who, "status", file.stem, "--json")
        shown = done.json
        assert shown["published"]["unknown"] == ["uses", "timeline", "frozen", "children"] and done.stderr == ""
        assert not {"uses", "timeline", "frozen", "children", "published_at"} & shown.keys()
        at = datetime.fromisoformat(shown["published"]["at"])
        assert timedelta(0) <= datetime.now(UTC) - at < timedelta(minutes=1) and 0 <= shown["published"]["age_s"] < 60
    human = person("operator", "status", file.stem).stdout
    assert f"Task {file.stem} is active" in human
    assert "as a worker published it" in " ".join(human.split())
    assert "unknown" in human and "timeline" in human and "an auditor sees them" in " ".join(human.split())
    assert max(len(line) for line in human.splitlines() if "sha256:" not in line) <= 80
    # beside its ledger nothing of it is left open
    assert rig("auditor", "status", file.stem).json["published"] is None
    person("operator", "complete", file.stem, *PATIENT)


def test_list_says_how_old_each_is(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec()
    granted(person, file)
    for who in ("operator", "approver-1", "auditor"):
        listed = person(who, "list", "--json").json
        (row,) = [task for task in listed["tasks"] if task["task_id"] == file.stem]
        assert listed["published"] is True and row["state"] == "issued" and row["age_s"] >= 0
        assert datetime.fromisoformat(row["published_at"]) <= datetime.now(UTC) + timedelta(seconds=5)
    human = person("operator", "list")
    assert "as of" in human.stdout.splitlines()[0] and "This is what a worker last published" in human.stderr
    assert len(human.stdout.splitlines()) == len(listed["tasks"]) + 1, "one line a task"
    refused = person("agent", "list", "--json", code=10).error
    assert "operators, approvers and auditors" in refused["hint"]
    assert rig("auditor", "list").json["published"] is False
    person("operator", "revoke", file.stem, *PATIENT)
    wait_for(lambda: rig.state(file.stem) == "sealed")
    wait_for(lambda: file.stem not in _listed(person, "list", "--open"))
    assert file.stem in _listed(person, "list")


def test_what_somebody_wrote_below_the_tasks_hides_none_of_the_others(rig: Rig, person: Alone, spec: Spec) -> None:
    file = spec()
    granted(person, file)
    whole = rig.document(f"tasks/{file.stem}")
    odd: dict[str, dict[str, object]] = {
        "o-1": {"state": ["sealed"]},
        "o-2": {"state": "[red]x[/red] [/]", "end_reason": ["[/]"], "ends_at": "[/red]"},
        "o-3": {"task_id": None},
        "o-4": {"findings": 5},
    }
    for name, wrong in odd.items():
        rig.put(f"tasks/{name}", {**whole, "task_id": name, **wrong})
    try:
        for command in ("list", "list --open"):
            assert {file.stem, *odd} <= set(_listed(person, *command.split()))
            shown = person("operator", *command.split()).stdout
            # none of their words is shown, as no worker wrote them
            assert all(name in shown for name in odd) and shown.count("illegible") == len(odd) and "red" not in shown
        # nor does it keep the kill switch from anything, which tells of it
        killed = person("operator", "revoke", "--agent", "research-agent", *KILL, code=12).json["tasks"]
        told = {task["task_id"]: (task["state"], task["confirmed"]) for task in killed}
        assert told[file.stem][1] is True
        assert {name: told.get(name) for name in odd} == dict.fromkeys(odd, (None, False))
        person("operator", "revoke", "--agent", "nobody", *KILL, code=9)
    finally:
        for name in odd:
            rig.admin.delete(f"jitvault/metadata/tasks/{name}")


def _listed(person: Alone, *command: str) -> list[str]:
    return [task["task_id"] for task in person("operator", *command, "--json").json["tasks"]]


def test_a_ledger_that_does_not_answer_is_told_of_and_done_without(rig: Rig, person: Alone, spec: Spec) -> None:
    file, away = spec(), {"JITVAULT_LEDGER": NOBODYS}
    person("operator", "grant", file, "--json", *PATIENT, extra=away)
    for command in (("status", file.stem), ("list",), ("freezes",)):
        done = person("operator", *command, "--json", extra=away)
        assert "the ledger cannot be used" in done.stderr and "this is what is published in Vault" in done.stderr
    assert person("operator", "status", file.stem, "--json", extra=away).json["published"]["age_s"] >= 0
    # with the worker's identity it is no fallback: nobody does its work without the ledger
    assert rig("auditor", "list", code=11, extra=away).error["exit_code"] == 11
    person("operator", "revoke", file.stem, *PATIENT, extra=away)


def test_a_ledger_of_another_version_is_no_reason_to_look_elsewhere(person: Alone, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as file, file:
        file.execute("CREATE TABLE alembic_version (version_num TEXT)")
        file.execute("INSERT INTO alembic_version VALUES ('0001')")
    there = {"JITVAULT_LEDGER": f"sqlite:///{tmp_path / 'old.db'}"}
    assert "schema version" in person("operator", "list", "--json", code=11, extra=there).error["message"]


def test_what_became_of_a_request_is_said_and_not_guessed(rig: Rig, person: Alone, spec: Spec) -> None:
    wrong = spec()
    wrong.write_text(wrong.read_text().replace("research-agent", "nobody"))
    person("operator", "submit", wrong, "--json", *PATIENT, code=8)
    refused = person("operator", "status", wrong.stem, "--json", code=9).error
    assert (
        "its request was refused: " in refused["message"]
        and "no enabled Vault entity named nobody" in refused["message"]
    )
    # corrected, it is another request, and what was said of the first one is no answer to it
    wrong.write_text(wrong.read_text().replace("nobody", "research-agent"))
    assert granted(person, wrong)["state"] == "issued"
    person("operator", "revoke", wrong.stem, *PATIENT)
    unknown = person("operator", "status", "no-such-task", "--json", code=9).error
    assert unknown["message"] == "there is no task no-such-task in Vault"
    assert "removed from Vault, and kept in the ledger" in unknown["hint"]
    for who in ("approver-1", "agent", "auditor"):
        assert person(who, "status", "no-such-task", "--json", code=9).error["message"] == unknown["message"]


def test_an_operator_without_a_ledger_sees_that_a_tripwire_froze_everything(
    rig: Rig, person: Alone, spec: Spec
) -> None:
    file, other = spec(), spec()
    granted(person, file)
    record = rig.record(file.stem)
    policy = json.loads(record.revision.body)["access"][0]["policy"]
    # a token of jitvault's role that no worker meant to create
    rig.admin.write(f"auth/token/create/{record.grants[-1].role}", {"policies": [policy]})
    wait_for(lambda: state(rig, file) in ("confirmed", "sealed"))
    try:
        refused = person("operator", "grant", other, "--json", *PATIENT, code=12).error
        assert refused["message"].startswith("everything is frozen since ")
        said = person("operator", "freezes").stdout
        assert "A tripwire did something, by what is published" in said
        assert f"  {other.stem}, " in said and "its grant was refused: everything is frozen since " in said
        shown = person("operator", "freezes", "--json").json
        assert {sign["task_id"] for sign in shown["signs"]} >= {file.stem, other.stem}
        told = {sign["task_id"]: sign["message"] for sign in shown["signs"]}
        assert told[file.stem].startswith("it was ended, since everything was frozen: A token was created at ")
        assert rig("auditor", "freezes").json["signs"] == [], "who has the ledger needs no signs"
    finally:
        rig("operator", "unfreeze", "--reason", "the test is over")


def test_revoking_everything_without_the_workers_identity_says_what_is_left(
    rig: Rig, person: Alone, spec: Spec
) -> None:
    file = spec()
    held = rig.use(granted(person, file))
    done = person("operator", "revoke", "--all", *KILL, code=6)
    assert not rig.is_live(held.token) and done.json["confirmed"] == len(done.json["tasks"]) >= 1
    assert "tokens of jitvault's roles that belong to no task were NOT revoked" in done.error["message"]
    assert done.error["message"].startswith("every task that is published as held is ended and confirmed")
    assert "If only tasks had to end, nothing is left to do; " in done.error["hint"]
    assert "`jitvault sweep`" in done.error["hint"]
