"""Held tasks under attack: what ends a task ends it too where its renewals come from memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from commands import EXAMPLE
from go_between import Fate, GoBetween
from rig import Rig, own_rig
from targets import LOCK
from test_renewed_together import UNREAD, held, is_due, left_to_a_whole_turn, offered, renewed, sign

from jitvault.context import WorkerContext
from jitvault.errors import TargetUnavailable, VaultRefused
from jitvault.ledger.kept_tasks import KeptTasks
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.keeping import keep
from jitvault.sandbox.world import World, env
from jitvault.settings import load
from jitvault.stream import reading
from jitvault.vault.facts import Facts
from jitvault.wiring import Wiring
from jitvault.worker.process import context_factory

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
STEP_S = 10


def not_renewed_when_offered(rig: Rig, hand: WorkerContext, task: str) -> None:
    """Offer the task to be renewed with others, as a worker's loop does, and see that it is left to a whole turn."""
    before = [op.op_id for op in rig.operations(task)]
    offered(hand, task)
    assert keep.renew_kept(hand, 50) == 0 and not hand.kept.takes(task)
    assert [op.op_id for op in rig.operations(task)] == before


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


REMOVALS: dict[str, Callable[[Any, str], object]] = {
    "deleted": lambda vault, path: vault.delete(f"jitvault/data/{path}"),
    "deleted by version": lambda vault, path: vault.write(f"jitvault/delete/{path}", {"versions": [1]}),
    "destroyed": lambda vault, path: vault.write(f"jitvault/destroy/{path}", {"versions": [1]}),
    "taken away": lambda vault, path: vault.delete(f"jitvault/metadata/{path}"),
    "taken away by another spelling": lambda vault, path: vault.delete(f"jitvault/metadata/{path}/"),
}


@pytest.mark.parametrize("how", REMOVALS)
def test_a_task_whose_request_was_removed_is_not_renewed_from_memory(
    rig: Rig, hand: WorkerContext, spec: Spec, how: str
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    REMOVALS[how](rig.admin, f"requests/{rig.entity('operator')}/{task}/submit")
    left_to_a_whole_turn(rig, hand, task)
    not_renewed_when_offered(rig, hand, task)
    rig.turn(task)
    assert rig.record(task).task.end_reason == "drift"


def test_a_task_whose_requester_has_another_name_is_not_renewed_from_memory(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    who = rig.entity("operator")
    try:
        rig.admin.write(f"identity/entity/id/{who}", {"name": "operator-renamed"})
        left_to_a_whole_turn(rig, hand, task)
    finally:
        rig.admin.write(f"identity/entity/id/{who}", {"name": "operator"})


def test_a_task_whose_request_is_not_signed_any_more_is_not_renewed_from_memory(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    (task,) = held(rig, hand, rig.granted(spec()))
    is_due(rig, task)
    key = f"jitvault-transit/keys/jitvault-signer-{rig.entity('operator')}"
    rig.admin.write(f"{key}/rotate")
    rig.admin.write(f"{key}/config", {"min_decryption_version": 2})
    try:
        left_to_a_whole_turn(rig, hand, task)
        not_renewed_when_offered(rig, hand, task)
        rig.turn(task)
        assert rig.record(task).task.end_reason == "drift"
    finally:
        rig.admin.write(f"{key}/config", {"min_decryption_version": 1})


def test_a_target_that_hangs_in_a_batch_delays_no_other_tasks_end(rig: Rig, spec: Spec) -> None:
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    hangs = Event()

    def hang() -> None:
        hangs.set()
        time.sleep(9)

    try:
        with rig.environment(None, {"VAULT_ADDR": between.address}):
            hand = context_factory(Wiring(load()), keep.ANSWER_S)()
        hanging, other = rig.granted(spec()), rig.granted(spec())
        token = rig.use(other, read=False).token
        with_lease, without = held(rig, hand, hanging, other, unwrapped=1)
        is_due(rig, with_lease, without)
        between.when("sys/leases/renew", "before", hang)
        renewing = Thread(target=keep.renew_kept, args=(hand, 50))
        renewing.start()
        assert hangs.wait(5)
        begun = time.monotonic()
        rig("operator", "revoke", without, code=None)
        assert not rig.is_live(token)
        took_s = time.monotonic() - begun
        renewing.join()
    finally:
        between.down()
    assert took_s < 5


def test_a_vault_that_answers_slowly_keeps_no_task_in_hand(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in hand is renewed by nobody else."""
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    try:
        with rig.environment(None, {"VAULT_ADDR": between.address}):
            hand = context_factory(Wiring(load()), keep.ANSWER_S)()
        tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(6)), unwrapped=0)
        is_due(rig, *tasks)
        # each task asks anew, as those of different agents do
        monkeypatch.setattr(Facts, "_is_kept", lambda *_: False)
        between.when("GET (identity|sys/policies|database)", "before", lambda: time.sleep(0.3), times=999)
        begun = time.monotonic()
        keep.renew_kept(hand, 50)
        took_s = time.monotonic() - begun
    finally:
        between.down()
    assert took_s < 12
    assert not hand.kept._in_hand


def test_a_login_that_locks_itself_keeps_no_other_task_from_renewals_from_memory(
    rig: Rig, hand: WorkerContext, spec: Spec
) -> None:
    mine, others = rig.granted(spec()), rig.granted(spec())
    login = rig.use(mine).login
    rig.use(others)
    attacker, other = held(rig, hand, mine, others, unwrapped=0)
    with closing(rig.connect(login)) as session:
        for statement in LOCK:
            session.execute(statement)
        for turn in (1, 2):
            is_due(rig, other)
            before = len(renewed(rig, other, "renew_lease"))
            keep.renew_kept(hand, 50)
            assert len(renewed(rig, other, "renew_lease")) == before + 1, turn
            assert other in hand.kept._tasks and attacker not in hand.kept._tasks
            # its own turn finds that its target refuses
            with suppress(TargetUnavailable):
                advance(hand, attacker)


def test_a_target_that_hangs_is_asked_once_in_a_minute(rig: Rig, spec: Spec) -> None:
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    try:
        with rig.environment(None, {"VAULT_ADDR": between.address}):
            hand = context_factory(Wiring(load()), keep.ANSWER_S)()
        tasks = held(rig, hand, *(rig.granted(spec()) for _ in range(3)))
        is_due(rig, *tasks)
        hangs = between.when("sys/leases/renew", "before", fate=Fate.HOLD, times=9)
        keep.renew_kept(hand, 50)
        keep.renew_kept(hand, 50)
        assert hangs.struck == 1
    finally:
        between.down()


def test_after_a_start_what_a_task_did_before_is_looked_at_before_its_renewal(
    rig: Rig, hand: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has read a line that ends the task, and died before it did anything about it."""
    granted = rig.granted(spec())
    token = rig.use(granted).token
    (task,) = held(rig, hand, granted, unwrapped=0)
    is_due(rig, task)
    with suppress(VaultRefused):
        rig.vault(token).read("database/creds/app-readwrite")
    reading.observe(hand)
    # a start that is longer ago than the submission's lines
    monkeypatch.setattr(type(hand.ledger), "written_documents", lambda *_, **__: ())
    not_renewed_when_offered(rig, replace(hand, kept=KeptTasks()), task)


def test_after_a_start_with_shorter_steps_what_was_signed_since_the_last_renewal_is_looked_at(
    rig: Rig, spec: Spec
) -> None:
    """The token lives by the longer steps of the worker before."""
    granted = rig.granted(spec())
    task = str(granted["task_id"])
    with rig.environment(None):
        before = context_factory(Wiring(load()))()
    with rig.environment(None, {"JITVAULT_ROLLING_STEP": "2s"}):
        hand = context_factory(Wiring(load()))()
    held(rig, before, granted)
    sign(rig, "operator", "revoke", task, *UNREAD)
    reading.observe(before)
    time.sleep(3)
    is_due(rig, task)
    not_renewed_when_offered(rig, hand, task)
