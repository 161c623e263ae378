"""Workers whose clocks are wrong: what is ended goes by Vault's clock, and times that cannot be are not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE, Cli
from go_between import GoBetween
from ledgers import address, new_place
from moved_clock import at, moved
from rig import Rig, own_rig
from worker_process import WorkerProcess

from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
HOUR = timedelta(hours=1)


def later(by: timedelta) -> str:
    return f"{datetime.now(UTC) + by:%Y-%m-%d %H:%M:%S.%f}"


def clock_of_a_worker(rig: Rig) -> list[str]:
    """What the ledger has of clocks that were wrong, and what `doctor` says of it on a host whose clock is right."""
    shown = rig("operator", "doctor", code=None).json["checks"]
    (findings,) = [check for check in shown if check["name"] == "findings"]
    assert "wrong_clock" in findings["seen"], findings
    return [row[0] for row in rig.rows("SELECT message FROM findings WHERE rule = 'wrong_clock'")]


def test_a_worker_that_is_ahead_ends_nothing_before_its_time(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with WorkerProcess(rig, **moved("+1h")) as worker:
        wait_for(lambda: worker.said("the audit stream is not trusted"))
        rig.sql("UPDATE tasks SET due_at = ?", later(timedelta(0)))
        wait_for(lambda: worker.said("task could not be advanced"))
        assert rig.state(file.stem) in ("issued", "active"), worker.log
        assert rig.is_live(held.token)
        worker.end()
    (message,) = clock_of_a_worker(rig)
    assert message.endswith("was more than 30 s ahead of Vault's")


def test_a_worker_that_is_behind_ends_what_is_over_by_vaults_clock(rig: Rig, spec: Spec) -> None:
    file = spec(window="11s")
    held = rig.active(file)
    with WorkerProcess(rig, **moved("-1h")) as worker:
        wait_for(lambda: rig.state(file.stem) == "ending", 30)
        assert rig.record(file.stem).task.end_reason == "deadline"
        assert not rig.is_live(held.token)
        worker.end()
    (message,) = clock_of_a_worker(rig)
    assert message.endswith("was more than 30 s behind Vault's")
    # nothing is proven by that host
    assert rig.state(file.stem) == "ending"
    with Attended(rig):
        wait_for(lambda: rig.state(file.stem) == "sealed", 30)


def test_what_a_clock_that_was_ahead_began_to_end_is_gone_on_with_at_once(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    assert at(rig, "+1h", "complete", file.stem).code == 7
    ending = rig.record(file.stem).task
    assert ending.ending_at is not None and ending.due_at is not None
    # by Vault's clock, also where its own said otherwise
    assert abs(ending.ending_at - datetime.now(UTC)) < timedelta(seconds=30)
    with Attended(rig):
        wait_for(lambda: rig.state(file.stem) == "sealed", 30)
    proof = rig("operator", "revoke", file.stem).json
    assert 0 < proof["confirmed_ms"] < 60_000


def test_times_that_lie_in_the_future_are_not_waited_for_and_no_duration_is_made_of_them(rig: Rig, spec: Spec) -> None:
    """As an older version left them where a clock had been ahead."""
    ended, kept = spec(), spec()
    rig.active(ended)
    held = rig.active(kept)
    at(rig, "+1h", "complete", ended.stem)
    rig.sql("UPDATE tasks SET due_at = ?", later(HOUR))
    rig.sql("UPDATE tasks SET ending_at = ? WHERE task_id = ?", later(HOUR), ended.stem)
    rig.redigest(ended.stem)
    rig.sql("UPDATE grants SET renew_at = ? WHERE task_id = ?", later(HOUR), kept.stem)
    before = len(rig.operations(kept.stem))
    with Attended(rig) as worker:
        wait_for(lambda: rig.state(ended.stem) == "sealed", 30)
        wait_for(lambda: len(rig.operations(kept.stem)) > before)
        looked = worker.log.all_of("a task is due too far in the future: a clock was wrong")
    assert {entry["task"] for entry in looked} == {ended.stem, kept.stem}
    assert rig.is_live(held.token)
    due = rig.record(kept.stem).task.due_at
    assert due is not None and due < datetime.now(UTC) + timedelta(minutes=3)
    proof = rig("operator", "revoke", ended.stem).json
    assert (proof["confirmed"], proof["dead_ms"], proof["confirmed_ms"]) == (True, None, None)
    people = Cli(rig.cli.variables, rig.cli.home)
    assert "a clock was wrong, so how long it took is not known" in people("operator", "revoke", ended.stem).stdout
    rig("operator", "complete", kept.stem)


def test_two_workers_on_one_ledger_of_which_one_is_an_hour_ahead_keep_and_prove(
    lab: World, spec: Spec, tmp_path: Path
) -> None:
    ledger = address(new_place(lab.servers.postgres, Path(), "postgresql"))
    rig = own_rig(lab, {**env(lab, ledger, EXAMPLE), "JITVAULT_ROLLING_STEP": "10s"}, tmp_path)
    file = spec()
    with WorkerProcess(rig, **moved("+1h")) as ahead, WorkerProcess(rig) as right:
        held = rig.use(rig("operator", "grant", file).json)
        time.sleep(25)
        assert rig.state(file.stem) in ("issued", "active"), (ahead.log, right.log)
        assert rig.is_live(held.token)
        rig("operator", "complete", file.stem)
        wait_for(lambda: rig.state(file.stem) == "sealed", 30)
        for worker in (ahead, right):
            worker.end()
    task = rig.record(file.stem).task
    assert task.confirmed_ms is not None and task.confirmed_ms < 20_000


def test_nothing_is_granted_where_answers_are_dated_by_another_clock(lab: World, rig: Rig, spec: Spec) -> None:
    bao = lab.servers.vault
    between = GoBetween((bao.host, bao.port), ahead_s=HOUR.total_seconds())
    try:
        refused = rig("operator", "grant", spec(), code=7, extra={"VAULT_ADDR": between.address})
        assert "dated 3600 s away from its own audit lines" in refused.error["message"], refused
        assert not rig.rows("SELECT * FROM findings")
    finally:
        between.down()
