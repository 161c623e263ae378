"""The kill switch: everything of an agent, a template or an owner ends at once, and each task is proven."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from beside import turn
from commands import Quick
from invariants import check, check_over, files
from rig import Held, Rig
from test_two_at_once import at_once

from jitvault.cli.ends import kill_switch as killswitch
from jitvault.cli.waiting import Wait
from jitvault.context import WorkerContext
from jitvault.documents.signed import payload_of
from jitvault.errors import VaultUnavailable
from jitvault.kill_switch import ended_before as earlier
from jitvault.kill_switch import kill as phases
from jitvault.kill_switch.threads import ThreadContext
from jitvault.ledger.model import Change, OpState
from jitvault.ledger.task_queries import TaskQueries
from jitvault.lifecycle import advance as advancing
from jitvault.lifecycle import ending
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.lifecycle.revocation.phases import PhasedRevocation
from jitvault.model.event_bodies import EndCause
from jitvault.model.kinds import EventKind
from jitvault.model.states import PROVEN, EndReason, State, Verdict
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.stream.reading import observe

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
ALL = ("revoke", "--all", "--reason", "everything", "--yes")


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    yield rig
    # two ledgers on one Vault freeze each other over what is held still
    rig("operator", "revoke", "--all", "--reason", "the test is over", "--yes", "--wait", "3", code=None)


def _held(rig: Rig, spec: Spec, count: int, **more: str) -> dict[str, Held]:
    return {file.stem: rig.active(file) for file in (spec(**more) for _ in range(count))}


def _is_dead(rig: Rig, held: Held) -> bool:
    return not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)


def test_all_of_an_agent_end_and_each_is_proven(rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _held(rig, spec, 3)
    issued = spec()
    rig.granted(issued)
    ended = rig("operator", "revoke", "--agent", "research-agent", "--reason", "it was stolen", "--yes").json
    assert {task["task_id"] for task in ended["tasks"]} == {*held, issued.stem}
    assert ended["confirmed"] == 4
    assert all(_is_dead(rig, one) for one in held.values())
    assert not rig.database_roles()
    for task in held:
        shown = rig("operator", "status", task).json
        assert shown["proof"]["confirmed"]
        assert shown["end_reason"] == "operator"
        (ending,) = [event["body"] for event in shown["timeline"] if event["event"] == "ending"]
        assert (ending["by"], ending["note"]) == (rig.entity("operator"), "it was stolen")
        # signed after the tokens were revoked, for the receipt
        (noted,) = [event["body"] for event in shown["timeline"] if event["event"] == "noted"]
        assert payload_of(noted["signed"])["note"] == "it was stolen"
        # whose will it was can be seen by everybody, not in our ledger alone
        assert rig.document(f"requests/{rig.entity('operator')}/{task}/end")
    # in an incident nobody waits until the files of all that ever was are read
    with monkeypatch.context() as patched:
        patched.delattr(TaskQueries, "record")
        again = rig("operator", "revoke", "--agent", "research-agent", "--reason", "again", "--yes").json
    assert again == {"tasks": [], "confirmed": 0}


def test_a_scope_ends_nothing_else(rig: Rig, spec: Spec) -> None:
    (reader,) = _held(rig, spec, 1)
    other = spec(template="postgres-readwrite")
    rig("operator", "submit", other)
    rig("approver-1", "approve", other.stem, "--yes")
    writer = rig.active(other)
    # a wrong name must not look like a success
    rig("operator", "revoke", "--agent", "nobody", "--reason", "x", "--yes", code=9)
    ended = rig("operator", "revoke", "--template", "postgres-readonly", "--reason", "x", "--yes").json
    assert [task["task_id"] for task in ended["tasks"]] == [reader]
    assert rig.is_live(writer.token)
    owned = rig("operator", "revoke", "--owner", _owner(rig, other.stem), "--reason", "x", "--yes").json
    assert [task["task_id"] for task in owned["tasks"]] == [other.stem]


def _owner(rig: Rig, task: str) -> str:
    return str(rig("operator", "status", task).json["revision"]["content"]["owner"]["name"])


def test_all_takes_what_the_ledger_does_not_know_as_well(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 2)
    policy = next(p for p in rig.admin.list("sys/policies/acl") if p.startswith("jitvault-access-"))
    made = rig.admin.write("auth/token/create/jitvault-15m", {"policies": [policy], "ttl": "5m"})["auth"]
    ended = rig("operator", "revoke", "--all", "--reason", "everything", "--yes", code=None)
    assert ended.json["confirmed"] == 2, ended
    assert not rig.is_live(made["client_token"])
    for task, one in held.items():
        assert _is_dead(rig, one)
        proof = rig("operator", "status", task, code=None).json["proof"]
        # what a prefix ended is proven like anything else
        assert proof["token"]["verdict"] == "audit_confirmed"
        assert proof["leases"][0]["verdict"] == "target_confirmed"
    rig("operator", "unfreeze", "--reason", "it was ours", code=None)


def test_what_cannot_be_read_stops_none_of_it(rig: Rig, spec: Spec) -> None:
    """Neither a row that somebody edited nor a document in Vault."""
    edited, other = (rig.active(file) for file in (spec(), spec()))
    ((body,),) = rig.rows("SELECT body FROM revisions WHERE task_id = ?", edited.task.task_id)
    edit = "UPDATE revisions SET body = ? WHERE task_id = ?"
    rig.sql(edit, b"[", edited.task.task_id)
    whole = rig.document(f"tasks/{other.task.task_id}")
    documents: dict[str, dict[str, object]] = {
        "h-1": {"body": 5},
        "h-2": {"body": "eA=="},
        "h-3": {"body": "W10="},
        "h-4": {"state": ["active"]},
        "h-5": {"proof": "eA=="},
    }
    for name, said in documents.items():
        rig.put(f"tasks/{name}", {**whole, "task_id": name, **said})
    try:
        rig("operator", "revoke", "--agent", "nobody", "--reason", "x", "--yes", "--wait", "1", code=None)
        ended = rig("operator", "revoke", "--agent", "research-agent", "--reason", "x", "--yes", "--wait", "1", code=12)
        assert _is_dead(rig, other)
        told = {row["task_id"]: (row["state"], row["confirmed"]) for row in ended.json["tasks"]}
        assert told[other.task.task_id][1] is True
        # what the ledger says of it nobody can act on: that is told, and the prefix is left
        assert told[edited.task.task_id][1] is False
        assert {name: told.get(name) for name in documents} == dict.fromkeys(documents, (None, False))
        rig("operator", *ALL, "--wait", "1", code=None)
        assert not rig.is_live(edited.token)
    finally:
        # what Vault says of it would be told to the tests after this one as well
        rig.sql(edit, body, edited.task.task_id)
        for name in documents:
            rig.admin.delete(f"jitvault/metadata/tasks/{name}")
    rig("operator", "unfreeze", "--reason", "it was ours", code=None)
    ended = rig("operator", *ALL, code=None)
    assert rig("operator", "status", edited.task.task_id, code=None).json["state"] in ("confirmed", "sealed"), ended


def test_what_ended_long_ago_without_proof_does_not_fail_the_kill_switch_of_today(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only while it shows no access: a login that Vault was made to forget works at the target, whenever that was."""
    old, alive = (rig.active(file) for file in (spec(), spec()))
    rig.admin.write("sys/leases/revoke", {"lease_id": old.lease_id, "sync": True})
    role = "database/roles/app-readonly"
    before = (rig.admin.read(role) or {})["data"]
    rig.admin.write(role, {**before, "revocation_statements": ["SELECT 1/0;"]})
    rig.admin.write(f"sys/leases/revoke-force/{alive.lease_id}")
    rig.admin.write(role, before)
    rig.recheck()
    now = ("--wait", "0", "--json")
    # all of it is of today: what the first run could not prove counts in the second one as well
    for _ in range(2):
        assert "2 of 2" in rig("operator", *ALL, "--wait", "0", code=6).error["message"]
    (new,) = _held(rig, spec, 1).values()
    monkeypatch.setattr(earlier, "EARLIER", timedelta(0))
    ended = Quick(rig.cli.variables, rig.cli.home)("operator", *ALL, *now, code=6)
    told = {row["task_id"]: (row["confirmed"], row["ended_earlier"]) for row in ended.json["tasks"]}
    ids = [one.task.task_id for one in (old, alive, new)]
    assert [told[task] for task in ids] == [(False, True), (False, False), (True, False)]
    assert f"1 of 2 tasks are not proven to be revoked: {alive.task.task_id}" in ended.error["message"]
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        login = alive.login["user"]
        target.execute(f'DROP OWNED BY "{login}"; DROP ROLE "{login}"'.encode())
    rig("operator", "revoke", alive.task.task_id, "--force", "--reason", "by hand", "--yes", code=None)
    said = Quick(rig.cli.variables, rig.cli.home)("operator", *ALL, "--wait", "0").stdout
    assert said.startswith("There was no task to end\n1 more had ended before and stays without proof")
    assert "jitvault revoke TASK --force" in said and f"  {old.task.task_id}: check 2" in said
    rig("operator", "revoke", old.task.task_id, "--force", "--reason", "by hand", "--yes", code=6)


def test_a_bug_in_the_work_on_one_task_is_told_and_stops_none_of_the_others(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = _held(rig, spec, 3)
    bad = next(iter(held))
    right = advancing._turn

    def broken(worker: WorkerContext, task_id: str, *more: Any, **others: Any) -> Any:
        if task_id == bad:
            raise AttributeError("a bug, and no corrupt row")
        return right(worker, task_id, *more, **others)

    monkeypatch.setattr(advancing, "_turn", broken)
    command = ("revoke", "--agent", "research-agent", "--reason", "x", "--yes", "--wait", "3", "--json")
    ended = Quick(rig.cli.variables, rig.cli.home)("operator", *command, code=1)
    told = {row["task_id"]: row["confirmed"] for row in ended.json["tasks"]}
    assert told == {task: task != bad for task in held}
    # its tokens are revoked before the step that fails
    assert all(_is_dead(rig, each) for each in held.values())
    assert f"task {bad}: unexpected AttributeError" in ended.stderr
    assert f"task {bad}: unexpected AttributeError, a bug in jitvault" in caplog.text and "in broken" in caplog.text
    monkeypatch.undo()
    assert rig("operator", "revoke", bad, "--reason", "x").json["confirmed"]


def test_one_that_cannot_be_ended_stops_none_of_the_others(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 3)
    stuck, one = next(iter(held.items()))
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "{stuck}" AUTHORIZATION "{one.login["user"]}"'.encode())
        # long enough for what Vault itself was at work on, which it tries again after 10 s
        ended = rig("operator", "revoke", "--all", "--reason", "x", "--yes", "--wait", "12", code=6)
        assert "1 of 3 tasks are not proven to be revoked" in ended.error["message"]
        assert ended.json["confirmed"] == 2
        assert not rig.is_live(one.token)
        target.execute(f'DROP SCHEMA "{stuck}"'.encode())
    again = rig("operator", "revoke", "--all", "--reason", "x", "--yes").json
    assert [(task["task_id"], task["confirmed"]) for task in again["tasks"]] == [(stuck, True)]


def test_nobody_but_operators_and_nobody_by_accident(rig: Rig, spec: Spec) -> None:
    (task,) = _held(rig, spec, 1)
    rig("agent", "revoke", "--all", "--reason", "x", "--yes", code=3)
    rig("operator", "revoke", "--all", "--yes", code=2)
    rig("operator", "revoke", "--all", "--agent", "research-agent", "--reason", "x", "--yes", code=2)
    rig("operator", "revoke", task, "--all", "--reason", "x", "--yes", code=2)
    rig("operator", "revoke", "--all", "--force", "--reason", "x", "--yes", code=2)
    rig("operator", "revoke", "--reason", "x", code=2)
    # nobody is there to say yes
    refused = rig.cli("operator", "revoke", "--all", "--reason", "x", code=2)
    assert f"End 1 task ({task}), and revoke every token of jitvault's roles in Vault? [y/N]" in refused.stderr
    assert rig("operator", "status", task).json["state"] == "active"


def test_what_was_interrupted_goes_on(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 6)
    argv = [sys.executable, "-m", "jitvault", "revoke", "--all", "--reason", "x", "--yes", "--json"]
    child = subprocess.Popen(argv, env=rig.cli.environment("operator"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while any(rig.is_live(one.token) for one in held.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert not any(rig.is_live(one.token) for one in held.values())
    # what the dead process had claimed is free again after half a minute; a test does not wait for that
    rig.sql("UPDATE tasks SET claim_until = 0")
    rig.sql("UPDATE audit_sources SET claim_until = 0")
    ended = rig("operator", "revoke", "--all", "--reason", "x", "--yes").json
    assert ended["confirmed"] == len(ended["tasks"])
    states = {row["task_id"]: row["state"] for row in rig("auditor", "list").json["tasks"]}
    assert {states[task] for task in held} <= {"confirmed", "sealed"}
    assert not rig.database_roles()


def test_what_a_run_that_died_had_proven_and_not_published_is_published_by_the_next(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    held = rig.active(file)
    wiring = rig.wiring()
    sign_end(wiring.person, file.stem, reason=EndReason.OPERATOR, note="it was stolen")
    with monkeypatch.context() as patch:
        patch.setattr(advancing, "publish_claimed", lambda *_, **__: None)
        advancing.advance(wiring.worker, file.stem)
    assert (rig.state(file.stem), rig.document(f"tasks/{file.stem}")["state"]) == ("confirmed", "ending")
    told = rig("operator", "revoke", "--agent", "research-agent", "--reason", "it was stolen", "--yes").json
    assert [task["task_id"] for task in told["tasks"]] == [file.stem]
    assert told["confirmed"] and _is_dead(rig, held)
    assert rig.document(f"tasks/{file.stem}")["state"] in PROVEN


def test_progress_is_told_on_stderr_and_the_result_alone_on_stdout(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 2)
    # what was read in the last moment is ended in the last step otherwise
    rig("auditor", "audit", "status")
    told = rig.cli("operator", "revoke", "--all", "--reason", "x", "--yes", "--json")
    assert {task["task_id"] for task in json.loads(told.stdout)["tasks"]} == set(held)
    assert told.stderr.splitlines()[1:] == [
        "2 of 2 tasks: tokens revoked",
        "2 of 2 tasks: leases revoked",
        "2 of 2 tasks: seen gone",
        "2 of 2 tasks: credentials confirmed dead",
        "2 of 2 tasks: confirmed",
    ]


def test_what_the_target_did_not_prove_is_not_told_as_proven(rig: Rig, spec: Spec) -> None:
    _held(rig, spec, 1)
    rig("auditor", "audit", "status")
    probe = rig.document("probes/postgres")
    rig.put("probes/postgres", {"nothing": "here"})
    try:
        told = rig.cli("operator", "revoke", "--all", "--reason", "x", "--yes", "--wait", "0", code=6).stderr
    finally:
        rig.put("probes/postgres", probe)
        rig.recheck()
    assert "1 of 1 tasks: seen gone" in told
    assert "0 of 1 tasks: credentials confirmed dead" in told


# -- what is granted meanwhile ---------------------------------------------------------------------------------------


def _with_each_round(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do `act` whenever the kill switch has told the end of a round."""
    tell = killswitch.Progress.__call__

    def told(self: killswitch.Progress, what: str, done: int, of: int, *, final: bool = False) -> None:
        tell(self, what, done, of, final=final)
        if final and what == "confirmed":
            act()

    monkeypatch.setattr(killswitch.Progress, "__call__", told)


def test_what_is_granted_while_others_are_ended_is_ended_as_well(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(rig, spec, 1)
    new = [spec() for _ in range(3)]
    waiting = list(new)
    _with_each_round(monkeypatch, lambda: waiting and rig.cli("operator", "grant", waiting.pop()))
    ended = rig("operator", "revoke", "--agent", "research-agent", "--reason", "x", "--yes").json
    assert {file.stem for file in new} <= {task["task_id"] for task in ended["tasks"]} and ended["confirmed"] == 4
    assert not any(rig.task_tokens(file.stem) for file in new)


def test_what_is_granted_after_the_time_is_over_is_told_as_that(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(rig, spec, 1)
    waiting = [spec() for _ in range(2)]
    last = waiting[0]
    _with_each_round(monkeypatch, lambda: waiting and rig.cli("operator", "grant", waiting.pop()))
    ended = rig("operator", "revoke", "--agent", "research-agent", "--reason", "x", "--yes", "--wait", "0", code=6)
    assert ended.json["confirmed"] == 2
    assert f"task {last.stem} was granted meanwhile" in ended.error["message"]
    assert "the same command again" in ended.error["hint"] and rig.task_tokens(last.stem)


def test_without_a_worker_what_is_granted_meanwhile_is_asked_to_end_as_well(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = spec(), spec()
    rig.active(first)
    waiting = [second]

    def work(wait: Wait) -> None:
        for file in (first, second):
            turn(rig.cli.environment(None), file.stem)
        if waiting:
            rig.cli("operator", "grant", waiting.pop())

    monkeypatch.setattr(Wait, "rest", work)
    here = Quick(rig.cli.variables, rig.cli.home)
    kill = ("revoke", "--agent", "research-agent", "--reason", "x", "--yes", "--wait", "40", "--json")
    ended = here("operator", *kill, worker=False).json
    assert {task["task_id"] for task in ended["tasks"]} == {first.stem, second.stem} and ended["confirmed"] == 2


# -- two processes at once -----------------------------------------------------------------------------------------


def test_two_that_end_everything_at_once_prove_each_task_once(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 4)
    results = at_once(rig.cli, ALL, ALL, processes=2)
    assert [result.code for result in results] == [0, 0], [result.stderr for result in results]
    assert all(_is_dead(rig, one) for one in held.values())
    check(rig, *results)
    for file in files(rig):
        assert [event.kind for event in file.events].count("confirmed") == 1, file.task.task_id
        check_over(rig, file.task.task_id)


def test_two_that_close_a_task_by_force_close_it_once(rig: Rig, spec: Spec) -> None:
    ((task, one),) = _held(rig, spec, 1).items()
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "{task}" AUTHORIZATION "{one.login["user"]}"'.encode())
        rig("operator", "revoke", task, code=6)
        forced = ("revoke", task, "--force", "--yes", "--reason", "the owner keeps it")
        results = at_once(rig.cli, forced, forced, processes=2)
        assert [result.code for result in results] == [6, 6], [result.stderr for result in results]
        assert results[0].json == results[1].json
        assert (results[0].json["state"], results[0].json["confirmed"]) == ("unverified", False)
        check(rig, *results)
        kinds = [event.kind for event in rig.record(task).events]
        assert kinds.count("unverified") == kinds.count("force_intended") == 1
        target.execute(f'DROP SCHEMA "{task}"; DROP ROLE "{one.login["user"]}"'.encode())


def test_a_sweep_beside_the_kill_switch_ends_what_belongs_to_no_task(rig: Rig, spec: Spec) -> None:
    held = _held(rig, spec, 3)
    policy = next(p for p in rig.admin.list("sys/policies/acl") if p.startswith("jitvault-access-"))
    made = rig.admin.write("auth/token/create/jitvault-15m", {"policies": [policy], "ttl": "5m"})["auth"]
    # old enough for a sweep to act on it
    rig.settle()
    swept, ended = at_once(rig.cli, ("sweep", "--fix"), ALL, processes=2)
    assert swept.code in (0, 6, 12), swept
    assert ended.code in (0, 12), ended
    assert not rig.is_live(made["client_token"])
    assert all(_is_dead(rig, one) for one in held.values())
    check(rig, swept, ended)
    rig("operator", *ALL, code=None)
    for task in held:
        check_over(rig, task)
    rig.settle()
    assert rig("operator", "sweep", "--fix", code=None).json["orphans"] == []
    rig("operator", "unfreeze", "--reason", "it was ours", code=None)


def test_all_without_the_workers_identity_says_that_the_roles_were_not_revoked(rig: Rig) -> None:
    here = Quick(rig.cli.variables, rig.cli.home)
    told = here("operator", "revoke", "--all", "--reason", "x", "--yes", "--wait", "0", worker=False, code=6)
    assert "were NOT revoked" in told.stderr
    assert "where the worker's identity is set" in told.stderr


def _closed(rig: Rig, task: str) -> tuple[ThreadContext, dict[str, PhasedRevocation]]:
    """The first phase of the kill switch is over for a task."""
    wiring = rig.wiring()
    hand, revocations = ThreadContext(wiring.worker, wiring.person), dict[str, PhasedRevocation]()
    assert phases._revoke_tokens(hand, task, "it was stolen", revocations=revocations)
    return hand, revocations


def test_what_somebody_else_proved_between_two_phases_is_not_written_over(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    hand, revocations = _closed(rig, file.stem)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    proven = rig.record(file.stem)
    assert not phases._revoke_leases(
        hand, file.stem, "it was stolen", revocations=revocations, hanging=phases._SlowTasks(0)
    )
    assert rig.record(file.stem) == proven


def test_a_token_that_an_extension_replaces_is_revoked_with_the_others(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died once the extension was decided: the task is being issued, and the agent has its former token."""

    def dies(*_: object) -> None:
        raise VaultUnavailable("here the worker died")

    file = spec()
    held = rig.active(file)
    with monkeypatch.context() as patch:
        patch.setattr(advancing, "_replace_token", dies)
        rig("operator", "extend", file.stem, "--for", "20m", "--reason", "slow", code=5)
    assert rig.state(file.stem) == "issuing"
    _closed(rig, file.stem)
    assert not rig.is_live(held.token)
    assert rig.state(file.stem) == "ending"


def test_what_is_delivered_between_two_phases_is_ended_by_the_next(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "submit", file)
    wiring = rig.wiring()
    hand, revocations = ThreadContext(wiring.worker, wiring.person), dict[str, PhasedRevocation]()
    assert not phases._revoke_tokens(hand, file.stem, "it was stolen", revocations=revocations)
    held = rig.active(file)
    rig("operator", "status", file.stem)
    assert phases._revoke_leases(
        hand, file.stem, "it was stolen", revocations=revocations, hanging=phases._SlowTasks(0)
    )
    assert _is_dead(rig, held)
    assert rig.state(file.stem) == "ending"


def test_each_credential_is_revoked_once(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    # the lease is known
    rig("operator", "status", file.stem)
    rig("operator", "revoke", "--agent", "research-agent", "--reason", "it was stolen", "--yes")
    kinds = [op.kind for op in rig.record(file.stem).operations if op.kind.startswith("revoke")]
    assert sorted(kinds) == ["revoke_lease", "revoke_token"], rig.record(file.stem).operations


def test_what_vault_revoked_is_only_looked_up_by_who_proves_it_later(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise RuntimeError("here the worker died")

    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    rig.cli("operator", "revoke", file.stem, "--reason", "it was stolen", "--wait", "0", code=13, worker=False)
    worker = rig.wiring().worker
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(advancing, "confirm_or_retry", dies)
        advancing.advance(worker, file.stem, hint=rig.entity("operator"))
    # the lines of the revocations are read before somebody comes, some time later
    observe(worker)
    monkeypatch.setattr(ending, "_JUST_NOW", timedelta(0))
    assert rig("operator", "complete", file.stem).json["confirmed"]
    kinds = [op.kind for op in rig.record(file.stem).operations if op.kind.startswith("revoke")]
    assert sorted(kinds) == ["revoke_lease", "revoke_token"], rig.record(file.stem).operations


def test_what_is_there_again_after_it_was_gone_is_revoked_again(rig: Rig, spec: Spec) -> None:
    """As after the restore of a snapshot: the ledger has it gone, and Vault has it."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    worker = rig.wiring().worker
    (lease,), now = rig.record(file.stem).leases, worker.now()
    with worker.ledger.claim(file.stem) as claim:
        op = record_answer(
            worker, new_operation(worker, "revoke_lease", lease.lease_id, task_id=file.stem), OpState.ANSWERED, DONE
        )
        fields = {"end_reason": EndReason.OPERATOR, "ending_at": now, "due_at": now}
        rows = (replace(lease, verdict=Verdict.GONE), op)
        change = Change(
            EventKind.ENDING, EndCause(reason=EndReason.OPERATOR), state=State.ENDING, fields=fields, rows=rows
        )
        worker.ledger.apply(file.stem, change, claim=claim, at=now)
    rig("operator", "complete", file.stem, code=None)
    kinds = [op.kind for op in rig.record(file.stem).operations if op.kind == "revoke_lease"]
    assert len(kinds) == 2
    assert not rig.lease_is_live(held.lease_id)
