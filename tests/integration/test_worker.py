"""A worker runs the lifecycle by itself: people have Vault tokens and nothing else."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from attended import Attended, wait_for
from commands import PEOPLE, Quick, without_limits
from endpoints import get
from go_between import Fate
from psycopg import sql
from rig import Rig
from stage import Stage, thaw
from worker_process import WorkerProcess

from jitvault.context import WorkerContext
from jitvault.errors import LedgerUnavailable
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle import advance as story
from jitvault.lifecycle.requests.sign import sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec
from jitvault.sandbox.processes import free_port
from jitvault.worker import pool
from jitvault.worker.health import metrics
from jitvault.worker.process import context_factory

Spec = Callable[..., Path]


@pytest.fixture
def rig(stage: Stage, tmp_path: Path) -> Iterator[Rig]:
    yield stage.rig(tmp_path / "own")
    stage.mend()


@pytest.fixture
def person(rig: Rig) -> Quick:
    """The commands of people with a Vault token alone: `person("operator", "grant", …, worker=False)`."""
    return Quick(rig.cli.variables, rig.cli.home)


def test_the_story_with_vault_tokens_alone_beside_a_worker(rig: Rig, person: Quick, spec: Spec) -> None:
    file, port = spec(criticality="medium"), free_port()
    with WorkerProcess(rig, "--health", f"127.0.0.1:{port}") as worker:
        assert person("operator", "grant", file, "--json", code=4, worker=False).error["exit_code"] == 4
        assert [t["task_id"] for t in person("approver-1", "approvals", "--json", worker=False).json["tasks"]] == [
            file.stem
        ]
        person("approver-1", "approve", file.stem, "--yes", worker=False)
        granted = person("operator", "grant", file.stem, "--json", worker=False).json
        held = rig.use(granted)
        rig.connect(held.login).close()
        assert person("operator", "status", file.stem, "--json", worker=False).json["state"] in ("issued", "active")
        assert file.stem in [t["task_id"] for t in person("operator", "list", "--json", worker=False).json["tasks"]]
        proof = person("operator", "complete", file.stem, "--json", worker=False).json
        assert proof["confirmed"] and [lease["verdict"] for lease in proof["leases"]] == ["target_confirmed"]
        wait_for(lambda: rig.state(file.stem) == "sealed")
        wait_for(lambda: get(port, "readyz")[0] == 200)
        assert get(port, "healthz") == (200, '{"ok": true, "why": []}\n')
        sealed = 'jitvault_worker_transitions_total{state="sealed"} 1'
        metrics = wait_for(lambda: sealed in (page := get(port, "metrics")[1]) and page)
        assert "jitvault_worker_ready 1" in metrics
        states = [entry["state"] for entry in worker.said("task")]
        assert states[0] == "pending_approval" and states[-1] == "sealed"
        secrets = [rig.cli.variables[name] for name in (*PEOPLE.values(), "JITVAULT_WORKER_TOKEN")]
        secrets += [held.token, held.login["password"], granted["wrapping"][0]["token"]]
        assert worker.end() < 5
        assert not [secret for secret in secrets if secret in worker.log or secret in metrics]


def test_before_a_grant_a_worker_leaves_the_stream_to_its_loops(rig: Rig, spec: Spec) -> None:
    """Whoever reads it keeps others from writing, and nothing goes by it yet; what is granted waits for a canary."""
    wiring, asked = rig.wiring(), parse_spec(spec().read_bytes())
    # the ledger is made by whoever works first
    assert wiring.worker
    # as the pool looks at what there is news of
    hand = context_factory(wiring)()
    sign_submission(wiring.person, asked, revise=False)
    before = read_to(hand)
    assert story.advance(hand, asked.id, hint=wiring.person.entity).task.state == "approved"
    assert story.advance(hand, asked.id).task.state == "approved"
    assert read_to(hand) == before
    sign_grant_request(wiring.person, asked)
    assert story.advance(hand, asked.id).task.state == "issued"
    assert read_to(hand) != before
    rig("operator", "revoke", asked.id)


def read_to(worker: WorkerContext) -> dict[str, int]:
    """How far each audit source was read."""
    return {name: reading.position.offset for name, reading in worker.ledger.readings().items()}


def test_a_request_that_is_refused_settles_and_an_unwrap_from_the_inbox_needs_no_ledger(
    rig: Rig, person: Quick, spec: Spec
) -> None:
    file, wrong = spec(more="  deliver: agent\n"), spec(choices="{database: nowhere}")
    with Attended(rig) as worker:
        person("operator", "submit", wrong, code=8, worker=False)
        person("operator", "grant", file, worker=False)
        assert person("agent", "unwrap", file.stem, "--json", worker=False).json["task_id"] == file.stem
        person("operator", "revoke", file.stem, "--reason", "enough", worker=False)
        later = spec(criticality="medium")
        person("operator", "submit", later, worker=False)
        person("operator", "cancel", later.stem, worker=False)
        assert rig.state(later.stem) == "cancelled"
    assert worker.log.states(file.stem)[-1] in ("confirmed (operator)", "sealed (operator)")


@pytest.mark.parametrize(
    ("act", "command"),
    [("PUT auth/token/create/", "grant"), ("PUT sys/leases/revoke/", "complete")],
    ids=["issue", "revocation"],
)
def test_sigterm_in_the_middle_of_an_act_and_the_next_worker_finishes_it(
    stage: Stage, rig: Rig, person: Quick, spec: Spec, act: str, command: str
) -> None:
    file = spec()
    with WorkerProcess(rig) as worker:
        held = None
        if command == "complete":
            held = rig.use(person("operator", "grant", file, "--json", worker=False).json)
        # Vault does it, and the answer does not come
        rule = stage.between.when(act, "after", fate=Fate.HOLD)
        what = file if command == "grant" else file.stem
        person("operator", command, what, "--wait", "0", code=13, worker=False)
        wait_for(lambda: rule.struck)
        assert worker.end(within_s=10) < 10
    stage.between.clear()
    open_ = [op.state.value for op in rig.record(file.stem).operations if op.state.value in ("intended", "unknown")]
    assert open_, "what nobody knows the outcome of stays open"
    for table in ("tasks", "audit_sources"):
        rig.sql(f"UPDATE {table} SET claim_until = 0")
    with WorkerProcess(rig) as worker:
        if command == "grant":
            wait_for(lambda: rig.state(file.stem) in ("issued", "active"), 30)
            assert len(rig.task_tokens(file.stem)) == 1, "never two live tokens"
            person("operator", "complete", file.stem, worker=False)
        wait_for(lambda: rig.state(file.stem) == "sealed", 40)
        assert held is None or not rig.is_live(held.token)
        worker.end()
    assert rig.task_tokens(file.stem) == []


def test_a_second_sigterm_ends_it_at_once_and_a_killed_one_is_gone_on_from(
    stage: Stage, rig: Rig, person: Quick, spec: Spec
) -> None:
    first, second = spec(), spec()
    with WorkerProcess(rig) as worker:
        held = rig.use(person("operator", "grant", first, "--json", worker=False).json)
        rule = stage.between.when("PUT auth/token/revoke-accessor", "before", fate=Fate.HOLD)
        person("operator", "complete", first.stem, "--wait", "0", code=13, worker=False)
        wait_for(lambda: rule.struck)
        os.kill(worker.process.pid, signal.SIGTERM)
        wait_for(lambda: worker.said("ending"))
        begun = time.monotonic()
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(5) == 128 + signal.SIGTERM and time.monotonic() - begun < 1
    stage.between.clear()
    with WorkerProcess(rig) as worker:
        rule = stage.between.when("PUT auth/token/create/", "after", act=worker.process.kill)
        person("operator", "grant", second, "--wait", "0", code=13, worker=False)
        assert worker.process.wait(20) == -signal.SIGKILL
    rig.sql("UPDATE tasks SET claim_until = 0")
    with WorkerProcess(rig):
        wait_for(lambda: rig.state(first.stem) == "sealed" and rig.state(second.stem) in ("issued", "active"), 40)
        assert not rig.is_live(held.token) and len(rig.task_tokens(second.stem)) == 1
        person("operator", "complete", second.stem, worker=False)


@pytest.mark.parametrize("outage", ["sealed", "down"])
def test_vault_goes_away_and_comes_back_under_a_worker(
    stage: Stage, rig: Rig, person: Quick, spec: Spec, outage: str
) -> None:
    file = spec()
    with Attended(rig, canary_s=0.3) as worker:
        health = worker.started.pool._health
        held = rig.use(person("operator", "grant", file, "--json", worker=False).json)
        wait_for(lambda: health.unready() == [])
        if outage == "sealed":
            stage.seal()
        else:
            stage.kill()
        wait_for(lambda: health.unready() != [] and worker.log.all_of("trouble"))
        stage.mend()
        wait_for(lambda: health.unready() == [], 30)
        person("operator", "complete", file.stem, worker=False, extra={}, timeout=60)
        assert not rig.is_live(held.token)
        other = spec()
        person("operator", "grant", other, worker=False)
        person("operator", "complete", other.stem, worker=False)


def test_a_poisoned_task_keeps_nobody_from_anything(
    rig: Rig, person: Quick, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, healthy = spec(), spec()
    rig("operator", "grant", poisoned)
    tried: list[float] = []

    def advance(worker: WorkerContext, task_id: str, **how: object) -> TaskRecord:
        if task_id == poisoned.stem:
            tried.append(time.monotonic())
            raise KeyError("a row that nobody can read")
        return story.advance(worker, task_id, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "advance_or_end_lost", advance)
    assert rig.sql("UPDATE tasks SET due_at = '2020-01-01 00:00:00' WHERE task_id = ?", poisoned.stem) == 1
    with Attended(rig) as worker:
        wait_for(lambda: tried)
        person("operator", "grant", healthy, worker=False)
        person("operator", "complete", healthy.stem, worker=False)
        time.sleep(3)
    # left alone for longer and longer
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert 1 <= len(pauses) <= 3 and pauses == sorted(pauses), pauses
    # others of this Vault, whose ledgers were other tests', cannot be looked after either
    failed = [told for told in worker.log.all_of("task could not be advanced") if told["task"] == poisoned.stem]
    assert failed[0]["error"] == "unexpected KeyError" and "row" not in json.dumps(failed)


def test_an_end_that_goes_on_failing_is_told_once_with_its_reason(rig: Rig, person: Quick, spec: Spec) -> None:
    file = spec()
    with Attended(rig) as worker, psycopg.connect(rig.elsewhere, autocommit=True) as target:
        held = rig.use(person("operator", "grant", file, "--json", worker=False).json)
        user, schema = sql.Identifier(held.login["user"]), sql.Identifier(file.stem)
        target.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, user))
        try:
            person("operator", "complete", file.stem, "--wait", "0", code=13, worker=False)
            (told,) = wait_for(lambda: worker.log.all_of("the end of a task is not proven yet"), 40)
            assert told["task"] == file.stem and "cannot be dropped" in told["why"]
            assert "jitvault_worker_ends_unproven_total 1\n" in metrics({"": worker.started.pool._health.state()})
        finally:
            target.execute(sql.SQL("DROP SCHEMA {}").format(schema))
        wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 60)
    assert len(worker.log.all_of("the end of a task is not proven yet")) == 1


def test_a_loop_that_dies_stops_the_worker_with_its_reason(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with Attended(rig, may_die=True) as worker:
        for ledger in {id(worker.started.worker.ledger): worker.started.worker.ledger}.values():
            monkeypatch.setattr(type(ledger), "take_due", _unavailable)
        wait_for(worker.supervisor.stopping.is_set)
    assert worker.supervisor.death is not None
    error = worker.supervisor.death.as_error()
    assert isinstance(error, LedgerUnavailable) and error.exit_code == 11
    assert "the worker's loop 'due' ended: the disk is gone" in str(error)


def _unavailable(*_: object, **__: object) -> list[str]:
    raise LedgerUnavailable("the disk is gone")


def test_a_worker_whose_token_is_gone_ends_with_what_vault_says(rig: Rig) -> None:
    extra = {"JITVAULT_WORKER_TOKEN": _own_token(rig)}
    with WorkerProcess(rig, **extra) as worker:
        rig.admin.write("auth/token/revoke", {"token": extra["JITVAULT_WORKER_TOKEN"]})
        assert worker.process.wait(30) == 10
        *before, died = map(json.loads, worker.log.splitlines())
        assert (died["event"], died["level"], died["exit_code"]) == ("died", "error", 10)
        # a loop that was under way may say something after it
        assert "ending" in [said["event"] for said in before]
        assert "Vault refused" in died["error"] and died["hint"]


def _own_token(rig: Rig) -> str:
    """A token of the worker's entity that can be taken away."""
    entity = rig.admin.read("identity/entity/name/worker")
    assert entity is not None
    body = {"policies": ["jitvault-worker"], "no_default_policy": True, "ttl": "15m"}
    return str(rig.admin.write("auth/token/create", body)["auth"]["client_token"])


def test_a_target_that_hangs_delays_nobody_else(stage: Stage, rig: Rig, person: Quick, spec: Spec) -> None:
    files = [spec() for _ in range(6)]
    for file in files:
        rig.active(file)
    healthy = spec()
    with Attended(rig):
        stage.pause_target()
        try:
            for file in files:
                person("operator", "complete", file.stem, "--wait", "0", code=13, worker=False)
            time.sleep(1)
            begun = time.monotonic()
            person("operator", "submit", healthy, worker=False)
            took = time.monotonic() - begun
        finally:
            thaw(stage.postgres)
        # each of them waits for Vault for 10 s
        assert took < 7, took
        for file in files:
            wait_for(lambda file=file: rig.state(file.stem) in ("confirmed", "sealed"), 60)


def test_sighup_takes_what_is_good_and_keeps_the_last_good_set(rig: Rig, tmp_path: Path) -> None:
    policies = without_limits(tmp_path / "reloaded")
    with WorkerProcess(rig, JITVAULT_POLICIES=str(policies)) as worker:
        (policies / "own.cedar").write_text("permit (")
        os.kill(worker.process.pid, signal.SIGHUP)
        refused = wait_for(lambda: worker.said("not reloaded: the last valid set stays in use"))
        assert refused[0]["what"] == "policies" and "does not parse: own.cedar" in refused[0]["why"]
        (policies / "own.cedar").write_text('@id("own") forbid (principal, action, resource) when { 1 == 2 };')
        os.kill(worker.process.pid, signal.SIGHUP)
        before = worker.said("working")[0]["policies"]
        taken = wait_for(lambda: [e for e in worker.said("read again") if e["what"] == "policies"])
        assert taken[-1]["policies"] != before and worker.process.poll() is None
        worker.end()
