"""Held tasks are renewed from memory, many at once, for as long as nothing has changed that a whole turn would see.

A test takes a whole turn of each task, waits until its renewal is due, changes something, and lets the worker renew
what it keeps. What may not go on is left to a whole turn, which ends it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE
from go_between import Fate, GoBetween
from rig import Rig, own_rig

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, OutcomeUnknown
from jitvault.kill_switch.claimed import claimed
from jitvault.ledger.kept_tasks import KeptTask, OfferedTask
from jitvault.ledger.model import OpState, Turn
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.keeping import keep, plan
from jitvault.lifecycle.record import integrity, renewals
from jitvault.model.event_bodies import RenewIntended, said
from jitvault.sandbox.world import World, env
from jitvault.settings import load
from jitvault.stream import reading
from jitvault.wiring import Wiring
from jitvault.worker.process import context_factory

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
STEP_S = 10


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    return own_rig(lab, {**env(lab, "", EXAMPLE), "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}, tmp_path)


@pytest.fixture
def hand(rig: Rig) -> Iterator[WorkerContext]:
    """A thread of a worker daemon."""
    with rig.environment(None):
        wiring = Wiring(load())
        yield context_factory(wiring)()
        wiring.close()


def held(rig: Rig, hand: WorkerContext, *granted: dict[str, Any], unwrapped: int = 99) -> list[str]:
    """These tasks, which the worker keeps; so many of them hold a lease."""
    for each in granted[:unwrapped]:
        rig.use(each)
    tasks = [str(each["task_id"]) for each in granted]
    # the commands before have read the stream, so that the first turn reads it anew
    for task in (*tasks, *tasks):
        reading.observe(hand)
        advance(hand, task)
    reading.observe(hand)
    assert set(tasks) <= set(hand.kept._tasks)
    return tasks


def is_due(rig: Rig, *tasks: str) -> None:
    """Wait until the next renewal of each is due, also those of their leases, which come later than their tokens'."""
    rows = [row for task in tasks for row in (rig.record(task).grants[-1], *rig.record(task).leases)]
    due = max(row.renew_at for row in rows if row.renew_at is not None)
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 0.5)


def renewed(rig: Rig, task: str, kind: str = "renew_token") -> list[OpState]:
    return [op.state for op in rig.operations(task) if op.kind == kind and op.answer == "ok"]


def left_to_a_whole_turn(rig: Rig, hand: WorkerContext, task: str) -> None:
    """Let the worker renew what it keeps, and see that it leaves this task as it is."""
    before = [op.op_id for op in rig.operations(task)]
    keep.renew_kept(hand, 50)
    assert [op.op_id for op in rig.operations(task)] == before
    assert task not in hand.kept._tasks
    assert hand.ledger.take_due(hand.now(), 50, besides=hand.kept.due_here(hand.now())) == [task]
    hand.ledger.give_back(task)


def requests(rig: Rig) -> list[str]:
    """What the worker asked Vault for."""
    return [line["request"]["path"] for line in lines(rig) if line["type"] == "response"]


def lines(rig: Rig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rig.own_lines()]


# -- what holds --------------------------------------------------------------------------------------------


def test_renewals_of_many_tasks_are_two_commits_one_canary_and_no_event(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(3)), unwrapped=2)
    is_due(rig, *tasks)
    before = {task: rig.record(task) for task in tasks}
    sent = len(requests(rig))
    counted = rig.rows("SELECT count(*) FROM events")
    assert keep.renew_kept(hand, 50) == 3
    assert rig.rows("SELECT count(*) FROM events") == counted
    paths = [path for path in requests(rig)[sent:] if "audit-hash" not in path]
    for task in tasks:
        after = rig.record(task)
        assert renewed(rig, task)
        assert after.events == before[task].events and after.task.version == before[task].task.version
        assert after.task.due_at is not None and after.task.due_at > datetime.now(UTC)
        assert task in hand.kept._tasks
        # the proof rests on a time that was committed before
        (token,) = rig.task_tokens(task)
        assert after.grants[-1].expires_at >= datetime.fromisoformat(token["expire_time"])
    assert len([path for path in paths if "renew" in path]) == 5
    # a second of anything else is shared by all
    assert len(paths) <= 5 + 20, paths


def test_the_lines_of_renewals_are_named_by_the_chain_later(rig: Rig, hand: WorkerContext, spec: Spec) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    for _ in range(2):
        is_due(rig, task)
        keep.renew_kept(hand, 50)
    shown = {
        line
        for (line,) in rig.rows(
            "SELECT o.line FROM observations o JOIN operations p ON o.op = p.op_id "
            "WHERE p.task_id = ? AND p.kind LIKE 'renew%'",
            task,
        )
    }
    assert len(shown) >= 4
    assert rig("operator", "complete", task).json["confirmed"]
    named: set[str] = set()
    for event in rig.record(task).events:
        named |= {*event.body.get("renewals", ())}
    assert shown <= named


def test_a_task_goes_on_to_its_deadline_by_renewals_from_memory(rig: Rig, spec: Spec) -> None:
    file = spec(window="40s")
    granted = rig.granted(file)
    with Attended(rig) as worker:
        rig.use(granted)
        wait_for(lambda: worker.started.loops.health._counted[("renewed_together", ())] >= 3, 40)
        wait_for(lambda: rig.state(file.stem) == "ending", 40)
        # the chain says what the answer to the last renewal said, which is not long after the deadline
        wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 20)
    record = rig.record(file.stem)
    assert record.task.end_reason == "deadline"
    assert len(renewed(rig, file.stem)) > 2 * len(list(said(record.events, RenewIntended)))


def test_no_token_is_renewed_for_longer_than_the_chain_says(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The margins are small here, so that the time which was committed ahead is soon used up."""
    monkeypatch.setattr(renewals, "MAX_SKEW", timedelta(0))
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": "5s", "JITVAULT_SETTLE_WINDOW": "1s"}
    file = spec()
    granted = rig.granted(file)
    first = rig.record(file.stem).grants[-1].expires_at
    assert first is not None
    with Attended(rig):
        rig.use(granted)
        until = first + timedelta(seconds=4)
        while datetime.now(UTC) < until:
            latest = rig.record(file.stem).grants[-1].expires_at
            (token,) = rig.task_tokens(file.stem)
            # a renewal may come between the two looks
            if latest == rig.record(file.stem).grants[-1].expires_at:
                assert latest is not None and datetime.fromisoformat(token["expire_time"]) <= latest
            time.sleep(0.2)
    record = rig.record(file.stem)
    assert record.task.state == "active" and record.grants[-1].expires_at > first
    assert list(said(record.events, RenewIntended))


# -- what does not -----------------------------------------------------------------------------------------


UNREAD = ("--wait", "0s")


def sign(rig: Rig, who: str, *args: str) -> None:
    """Sign something that no worker has read yet."""
    result = rig.cli(who, *args, worker=False, code=None)
    # 13: no worker has read it in time
    assert result.code in (0, 13), result


def disable(rig: Rig, name: str) -> None:
    rig.admin.write(f"identity/entity/name/{name}", {"disabled": True})


def read_elsewhere(rig: Rig, task: str) -> None:
    sign(rig, "operator", "revoke", task, *UNREAD)
    with rig.environment(None):
        elsewhere = Wiring(load())
        reading.observe(elsewhere.worker)
        elsewhere.close()


CHANGES: dict[str, Callable[[Rig, str, str], Any]] = {
    "its agent is disabled": lambda rig, *_: disable(rig, "research-agent"),
    "its requester is disabled": lambda rig, *_: disable(rig, "operator"),
    "its agent is frozen": lambda rig, *_: sign(
        rig, "operator", "freeze", "--agent", "research-agent", "--reason", "look", *UNREAD
    ),
    "its role is another one": lambda rig, *_: rig.admin.write(
        "database/roles/app-readonly",
        {**rig.admin.read("database/roles/app-readonly")["data"], "default_ttl": 77},
    ),
    "its end is signed": lambda rig, task, _: sign(rig, "operator", "revoke", task, *UNREAD),
    "more time is asked for": lambda rig, task, _: sign(
        rig, "agent", "extend", task, "--for", "20m", "--reason", "slow", *UNREAD
    ),
    "its end was read by another process": lambda rig, task, _: read_elsewhere(rig, task),
    "its token did something": lambda rig, _, token: rig.vault(token).read("auth/token/lookup-self"),
}


@pytest.fixture
def undone(rig: Rig) -> Iterator[None]:
    role = rig.admin.read("database/roles/app-readonly")["data"]
    yield
    rig.cli("operator", "unfreeze", "--agent", "research-agent", "--reason", "over", worker=False, code=None)
    for name in ("research-agent", "operator"):
        rig.admin.write(f"identity/entity/name/{name}", {"disabled": False})
    rig.admin.write("database/roles/app-readonly", role)


def blinded(rig: Rig, hand: WorkerContext, directory: Path) -> WorkerContext:
    """A thread of the same worker to which no line arrives."""
    (directory / "elsewhere.log").write_bytes(b"")
    with rig.environment(None, {"JITVAULT_AUDIT_FILE": str(directory / "elsewhere.log")}):
        return replace(context_factory(Wiring(load()))(), kept=hand.kept)


def test_nothing_is_renewed_from_memory_on_a_stream_that_does_not_arrive(
    rig: Rig, hand: WorkerContext, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PATIENCE_S", 0.5)
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    blind = blinded(rig, hand, tmp_path)
    before = rig.operations(task)
    with pytest.raises(AuditUntrusted):
        keep.renew_kept(blind, 50)
    assert rig.operations(task) == before
    # it costs no whole turn: once the stream arrives, it is renewed from memory
    assert keep.renew_kept(hand, 50) == 1 and renewed(rig, task)


def test_what_ends_by_the_clock_does_not_wait_for_a_stream_that_does_not_arrive(
    rig: Rig, hand: WorkerContext, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PATIENCE_S", 0.5)
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    blind = blinded(rig, hand, tmp_path)
    kept = hand.kept._tasks[task]
    hand.kept._tasks[task] = replace(kept, look_at=hand.now())
    assert keep.renew_kept(blind, 50) == 0
    assert task not in hand.kept._tasks and not hand.kept.takes(task)
    # of one that is not known nobody knows when it ends
    hand.kept.begin_turn(task)
    offered(hand, task)
    with pytest.raises(AuditUntrusted):
        keep.renew_kept(blind, 50)
    assert not hand.kept.takes(task)


def test_what_another_worker_did_to_a_task_is_seen_before_its_renewal(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    ended, renewed_there = held(rig, hand, rig.granted(spec()), rig.granted(spec()))
    is_due(rig, ended, renewed_there)
    # by another process, which reads the lines as well
    rig("operator", "revoke", ended)
    rig.turn(renewed_there)
    sent = [op.op_id for task in (ended, renewed_there) for op in rig.operations(task)]
    keep.renew_kept(hand, 50)
    assert [op.op_id for task in (ended, renewed_there) for op in rig.operations(task)] == sent


def test_a_task_that_another_process_claimed_is_not_renewed_here(rig: Rig, hand: WorkerContext, spec: Spec) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    before = [op.op_id for op in rig.operations(task)]
    with rig.ledger() as other, other.claim(task):
        keep.renew_kept(hand, 50)
    assert [op.op_id for op in rig.operations(task)] == before


def test_an_accessor_that_was_edited_renews_nobody_elses_token(rig: Rig, hand: WorkerContext, spec: Spec) -> None:
    mine, others = held(rig, hand, rig.granted(spec()), rig.granted(spec()))
    stolen = rig.record(others).grants[-1].wrapped_accessor
    rig.sql("UPDATE grants SET wrapped_accessor = ? WHERE task_id = ?", stolen, mine)
    is_due(rig, mine, others)
    keep.renew_kept(hand, 50)
    sent = [line["request"] for line in lines(rig) if line["request"]["path"] == "auth/token/renew-accessor"]
    asked = [request["data"]["accessor"] for request in sent]
    # from memory each is renewed as it was verified; the next whole turn sees the edit
    assert len(set(asked[-4:])) == 2
    error = rig.turn(mine, code=12)
    assert "was changed" in str(error)


# -- what goes wrong on the way ----------------------------------------------------------------------------


def test_a_renewal_whose_answer_is_lost_stops_the_batch_and_is_left_to_a_whole_turn(rig: Rig, spec: Spec) -> None:
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": between.address}
    try:
        with rig.environment(None):
            hand = context_factory(Wiring(load()))()
        tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(3)), unwrapped=0)
        is_due(rig, *tasks)
        between.when("auth/token/renew-accessor", "after", fate=Fate.LOSE)
        between.when("auth/token/lookup-accessor", "before", fate=Fate.LOSE)
        with pytest.raises(OutcomeUnknown):
            keep.renew_kept(hand, 50)
    finally:
        between.down()
    states = sorted(op.state for task in tasks for op in rig.operations(task) if op.kind == "renew_token")[-3:]
    assert OpState.UNKNOWN in states and OpState.ABANDONED in states
    # what was not sent is still due here
    kept = hand.kept._tasks
    assert len(kept) == 2 and all(each.due_at < hand.now() for each in kept.values())
    # nothing is lost by that: whoever comes next renews them
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": rig.world.address}
    for task in tasks:
        rig.turn(task)
        assert renewed(rig, task)


def test_a_target_that_does_not_answer_keeps_no_other_task_from_its_renewals(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    with_lease, without = held(rig, hand, rig.granted(spec()), rig.granted(spec()), unwrapped=1)
    is_due(rig, with_lease, without)
    rig.world.servers.postgres.stop()
    try:
        keep.renew_kept(hand, 50)
        # tokens go before leases
        assert renewed(rig, with_lease) and renewed(rig, without)
        assert without in hand.kept._tasks and with_lease not in hand.kept._tasks
    finally:
        rig.world.servers.postgres.start()
    # for a minute its tasks are no part of a batch
    advance(hand, with_lease)
    is_due(rig, with_lease)
    left_to_a_whole_turn(rig, hand, with_lease)


def test_a_worker_that_dies_in_a_batch_loses_no_task(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: Any) -> Any:
        raise Died

    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    monkeypatch.setattr(keep, "renew_credential", die)
    with pytest.raises(Died):
        keep.renew_kept(hand, 50)
    assert [op.state for op in rig.operations(task) if op.kind.startswith("renew")][-1] is OpState.INTENDED
    rig.sql("UPDATE tasks SET claim_until = 0")
    rig.turn(task)
    assert renewed(rig, task)
    assert rig("operator", "complete", task).json["confirmed"]


def test_a_batch_that_takes_too_long_sends_nothing_more_under_its_claims(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    begun = keep.claim_clock()
    # before its claims
    times = iter([begun])
    with monkeypatch.context() as slow:
        slow.setattr(keep, "claim_clock", lambda: next(times, begun + 3))
        keep.renew_kept(hand, 50)
    states = [(op.state, op.answer) for op in rig.operations(task) if op.kind.startswith("renew")]
    assert states[-1] == (OpState.ABANDONED, "not sent")
    # it is still due here
    keep.renew_kept(hand, 50)
    states = [(op.state, op.answer) for op in rig.operations(task) if op.kind.startswith("renew")]
    assert states[-1] != (OpState.ABANDONED, "not sent")


def test_a_bug_in_one_task_keeps_no_other_from_its_renewal(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = held(rig, hand, rig.granted(spec()), rig.granted(spec()), unwrapped=0)
    is_due(rig, broken, sound)
    as_it_is = plan.drift_besides_request

    def fail(worker: WorkerContext, record: Any) -> str | None:
        if record.task.task_id == broken:
            raise RuntimeError("a bug")
        return as_it_is(worker, record)

    monkeypatch.setattr(plan, "drift_besides_request", fail)
    assert keep.renew_kept(hand, 50) == 1
    assert sound in hand.kept._tasks and broken not in hand.kept._tasks


# -- what is looked at first -------------------------------------------------------------------------------


def offered(hand: WorkerContext, *tasks: str) -> None:
    """Offer due tasks as a worker does that has just started: it keeps none of them."""
    for task in tasks:
        hand.kept._tasks.pop(task, None)
    others = hand.kept.due_here(hand.now())
    assert sorted(hand.ledger.take_due(hand.now(), 50, only_held=True, besides=others)) == sorted(tasks)
    for task in tasks:
        hand.ledger.lend(task)
        hand.kept.offer(OfferedTask(task, hand.now()))


def test_after_a_start_due_tasks_are_verified_and_renewed_together(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(3)))
    is_due(rig, *tasks)
    before = {task: rig.record(task) for task in tasks}
    offered(hand, *tasks)
    with monkeypatch.context() as quiet:
        quiet.setattr(type(hand.ledger), "written_documents", lambda *_, **__: ())
        quiet.setattr(plan, "look", None)
        assert keep.renew_kept(hand, 50) == 3
    for task in tasks:
        assert renewed(rig, task) and task in hand.kept._tasks
        assert rig.record(task).events == before[task].events
    # the claims are given back
    assert rig.rows("SELECT count(*) FROM tasks WHERE claim_until > 1") == [(0,)]


def test_a_look_says_ahead_when_the_token_can_expire_and_publishes_it(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    before = rig.record(task)
    # what was committed ahead is used up
    monkeypatch.setattr(renewals, "MAX_SKEW", timedelta(minutes=5))
    assert keep.renew_kept(hand, 50) == 1
    after = rig.record(task)
    assert after.grants[-1].expires_at > before.grants[-1].expires_at
    (body,) = [body for _, body in said(after.events[len(before.events) :], RenewIntended)]
    assert body.until == after.grants[-1].expires_at
    copy = integrity.published(hand, task)
    assert copy is not None and (copy.chain.seq, copy.chain.head) == (after.task.seq, after.task.head)
    assert copy.expires_at == body.until
    # and what is kept of it is what the ledger has: the next renewal needs no other look
    is_due(rig, task)
    monkeypatch.setattr(plan, "look", None)
    assert keep.renew_kept(hand, 50) == 1 and rig.record(task).events == after.events


def test_after_a_start_what_has_to_be_seen_by_now_is_left_to_a_whole_turn(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, wrapped = held(rig, hand, rig.granted(spec()), rig.granted(spec()), unwrapped=1)
    is_due(rig, silent, wrapped)
    offered(hand, silent, wrapped)
    # a start that is longer ago than the submissions' lines
    monkeypatch.setattr(type(hand.ledger), "written_documents", lambda *_, **__: ())
    verified_task = plan.verified_task

    def beat_by_now(worker: WorkerContext, task_id: str) -> KeptTask | None:
        kept = verified_task(worker, task_id)
        return replace(kept, look_at=hand.now()) if kept is not None else None

    monkeypatch.setattr(plan, "verified_task", beat_by_now)
    assert keep.renew_kept(hand, 50) == 0
    assert not hand.kept.takes(silent) and not hand.kept.takes(wrapped)


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("change", CHANGES)
def test_a_kept_task_and_one_that_is_looked_at_are_left_to_whole_turns_when(
    rig: Rig, hand: WorkerContext, spec: Spec, change: str
) -> None:
    granted = [rig.granted(spec()) for _ in range(2)]
    tokens = [rig.use(each).token for each in granted]
    both = held(rig, hand, *granted, unwrapped=0)
    is_due(rig, *both)
    _, looked_at = both
    offered(hand, looked_at)
    for task, token in zip(both, tokens, strict=True):
        CHANGES[change](rig, task, token)
    before = {task: [op.op_id for op in rig.operations(task)] for task in both}
    # what its tokens may do, they may do: a look has seen it
    goes_on = [looked_at] if change == "its token did something" else []
    assert keep.renew_kept(hand, 50) == len(goes_on)
    left = [task for task in both if task not in goes_on]
    for task in left:
        assert [op.op_id for op in rig.operations(task)] == before[task]
        assert task not in hand.kept._tasks
    assert hand.kept.takes(looked_at) == bool(goes_on)
    # another thread can have them at once
    assert sorted(hand.ledger.take_due(hand.now(), 50, besides=hand.kept.due_here(hand.now()))) == sorted(left)
    for task in left:
        hand.ledger.give_back(task)


def test_a_ledger_that_was_edited_renews_nothing_after_a_start(rig: Rig, hand: WorkerContext, spec: Spec) -> None:
    mine, others = held(rig, hand, rig.granted(spec()), rig.granted(spec()))
    stolen = rig.record(others).grants[-1].wrapped_accessor
    rig.sql("UPDATE grants SET wrapped_accessor = ? WHERE task_id = ?", stolen, mine)
    is_due(rig, mine, others)
    offered(hand, mine, others)
    assert keep.renew_kept(hand, 50) == 1
    assert not hand.kept.takes(mine) and renewed(rig, others)


def test_where_lines_are_missing_a_task_goes_on_until_its_next_look_and_no_longer(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    # a request to end it whose lines are read by nobody
    monkeypatch.setattr(type(hand.ledger), "written_documents", lambda *_, **__: ())
    monkeypatch.setattr(hand.kept, "forget", lambda _: None)
    sign(rig, "operator", "revoke", task, *UNREAD)
    hand.facts.drop()
    is_due(rig, task)
    assert keep.renew_kept(hand, 50) == 1
    # what was committed ahead is used up
    monkeypatch.setattr(renewals, "MAX_SKEW", timedelta(minutes=5))
    is_due(rig, task)
    before = [op.op_id for op in rig.operations(task)]
    assert keep.renew_kept(hand, 50) == 0
    assert [op.op_id for op in rig.operations(task)] == before


def test_what_is_about_to_be_revoked_is_not_renewed_meanwhile(rig: Rig, hand: WorkerContext, spec: Spec) -> None:
    tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(2)))
    is_due(rig, *tasks)
    before = [op.op_id for task in tasks for op in rig.operations(task)]
    with rig.ledger() as other, claimed(other, tasks) as first:
        assert sorted(first) == sorted(tasks)
        assert keep.renew_kept(hand, 50) == 0
    assert [op.op_id for task in tasks for op in rig.operations(task)] == before


def test_a_task_that_another_thread_has_taken_back_is_not_renewed_with_others(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    offered(hand, task)
    assert hand.ledger.take(task) is Turn.OURS
    before = [op.op_id for op in rig.operations(task)]
    assert keep.renew_kept(hand, 50) == 0
    assert [op.op_id for op in rig.operations(task)] == before
    # the other thread still has its claim
    with hand.ledger.claim(task) as claim:
        hand.ledger.check_claim(task, claim)
        assert hand.ledger.take(task) is Turn.ANOTHERS
