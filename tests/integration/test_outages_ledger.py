"""The ledger's disk is full, before, during and after an act; a ledger is put back; of two processes one dies."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Result
from disk import Disk, Limit, small_disk
from go_between import Fate, Moment
from invariants import at_target, check, check_over, live_tokens, unknown_tokens, verdicts
from rig import Rig
from stage import ALL, Stage, claims_run_out, hasty, sealed, staged, until_done

from jitvault.ledger.storage import sqlite
from jitvault.sandbox.vault_server import VaultServer

Spec = Callable[..., Path]

CREATE = "PUT auth/token/create/"
DELIVER = "PUT jitvault-inbox/data/"
PUBLISH = "PUT jitvault/data/tasks/"
REVOKE_TOKEN = "PUT auth/token/revoke-accessor"
LOOK_AT_LEASE = "PUT sys/leases/lookup$"
SIGN_RECEIPT = "PUT jitvault-transit/sign/jitvault-receipts"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    # nothing here restarts Vault
    with staged(VaultServer) as found:
        yield found


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    yield stage.rig(tmp_path / "ledger")
    stage.between.clear()


@pytest.fixture(params=["a small disk", *(["a limit"] if ALL else ())])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """What the ledger of `rig` lies on. Asked for before `rig` is."""
    if request.param == "a limit":
        found = Limit()
        yield found
        found.free()
        return
    with small_disk(tmp_path / "ledger") as small:
        yield small


@contextmanager
def in_use(rig: Rig) -> Iterator[None]:
    """Somebody else has the ledger open, as a worker has: its log is there, and can be read on a full disk."""
    with closing(sqlite3.connect(rig.ledger_path)) as other:
        other.execute("SELECT count(*) FROM tasks").fetchall()
        yield


@contextmanager
def full_at(stage: Stage, disk: Disk, rig: Rig, where: str, moment: Moment) -> Iterator[None]:
    """What is done meanwhile makes one such request, at which the disk becomes full."""
    struck = stage.between.when(where, moment, disk.fill)
    try:
        yield
    finally:
        disk.free()
    assert struck.struck == 1
    claims_run_out(rig)


def complete(rig: Rig, task: str) -> Result:
    """No worker can end it, and the command reads on what the ledger's disk lacks."""
    first = rig("operator", "complete", task, code=11)
    assert "ledger" in first.error["message"]
    assert "space" in first.error["hint"]
    return first


def turn(rig: Rig, task: str) -> None:
    """A worker cannot do what is due."""
    failure = rig.turn(task, code=11)
    assert failure is not None and "ledger" in str(failure) and "space" in failure.hint


@pytest.mark.parametrize(("where", "moment"), [(CREATE, "before"), (CREATE, "after"), (DELIVER, "after")])
def test_a_disk_that_is_full_during_a_grant(
    stage: Stage, disk: Disk, rig: Rig, spec: Spec, where: str, moment: Moment
) -> None:
    file = spec()
    rig("operator", "submit", file)
    rig("operator", "grant", file, "--wait", "0", alone=True, code=13)
    with in_use(rig), full_at(stage, disk, rig, where, moment):
        turn(rig, file.stem)
    check(rig)
    until_done(rig, "grant", file, watch=lambda result: check(rig, result))
    assert len(live_tokens(rig)) == 1


@pytest.mark.parametrize(
    ("where", "moment"),
    [
        # the first request of all, before the ledger is even opened; around the acts; and when all is done
        ("GET auth/token/lookup-self", "before"),
        (REVOKE_TOKEN, "after"),
        *([(REVOKE_TOKEN, "before"), (LOOK_AT_LEASE, "after")] if ALL else []),
    ],
)
def test_a_full_disk_keeps_no_access_alive(
    stage: Stage, disk: Disk, rig: Rig, spec: Spec, where: str, moment: Moment
) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    with in_use(rig), full_at(stage, disk, rig, where, moment):
        first = complete(rig, file.stem)
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert not at_target(rig, rig.record(file.stem))
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


def test_a_full_disk_keeps_no_access_alive_where_nobody_has_the_ledger_open(disk: Disk, rig: Rig, spec: Spec) -> None:
    """There is no room for SQLite's own index of its log, so the ledger can only be read as it lies there."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    assert [path.name for path in rig.ledger_path.parent.glob(rig.ledger_path.name + "-*")] == []
    disk.fill()
    try:
        first = complete(rig, file.stem)
    finally:
        disk.free()
    claims_run_out(rig)
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


def test_a_disk_that_is_full_while_a_task_is_sealed(stage: Stage, disk: Disk, rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "complete", file.stem)
    time.sleep(2.2)
    with in_use(rig), full_at(stage, disk, rig, SIGN_RECEIPT, "after"):
        turn(rig, file.stem)
    check(rig)
    assert rig.record(file.stem).task.state == "confirmed"
    sealed(rig, file.stem)
    check_over(rig, file.stem)


def test_a_ledger_that_may_not_grow_is_full(rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own limit: what fits into the pages that there are is still taken."""
    assert rig.ledger_path, "there is no such limit on a server"
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    connect = sqlite._on_connect

    def limited(connection: Any, record: object) -> None:
        connect(connection, record)
        connection.execute("PRAGMA max_page_count = 1")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_on_connect", limited)
        results = [rig("operator", "complete", file.stem, code=None) for _ in range(3)]
    assert results[-1].code == 11, results
    assert "is full" in results[-1].error["message"]
    assert "Free space" in results[-1].error["hint"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    claims_run_out(rig)
    check(rig, *results)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


# -- two at once, of which one dies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "moment"), [("PUT sys/leases/revoke/", "after"), *([(REVOKE_TOKEN, "before")] if ALL else [])]
)
def test_one_dies_in_the_middle_while_another_waits_for_it(
    stage: Stage, rig: Rig, spec: Spec, where: str, moment: Moment
) -> None:
    file = spec()
    rig.active(file)
    there = threading.Event()
    stage.between.when(where, moment, there.set, Fate.HOLD)
    argv = [sys.executable, "-m", "jitvault", "complete", file.stem, "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, env=rig.cli.environment("operator"), **pipes) as first, ThreadPoolExecutor(1) as pool:
        assert there.wait(15)
        second = pool.submit(rig.cli, "operator", "complete", file.stem, "--json", code=None)
        time.sleep(0.8)
        assert not second.done()
        first.kill()
        assert first.wait() == -signal.SIGKILL
        time.sleep(0.2)
        assert not second.done(), "what is dead keeps its claim for as long as a request of its own may be on its way"
        claims_run_out(rig)
        ended = second.result()
    assert (ended.code, ended.json["confirmed"]) == (0, True), ended
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


# -- a ledger that is put back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["before the grant", "before the end"])
def test_a_ledger_that_is_put_back_does_nothing_and_hides_nothing(
    rig: Rig, spec: Spec, tmp_path: Path, taken: str
) -> None:
    """From an older ledger nothing is done, whatever it says; what it does not know is told from the audit lines."""
    file, other = spec(), spec()
    rig("operator", "submit", file)
    early = rig.snapshot(tmp_path / "early.db")
    held = rig.active(file)
    rig("operator", "status", file.stem)
    late = rig.snapshot(tmp_path / "late.db")
    if taken == "before the end":
        rig("operator", "complete", file.stem)
    rig.put_back(early if taken == "before the grant" else late)
    failure = rig.turn(file.stem, code=12)
    assert failure is not None and "ledger" in str(failure) + failure.hint
    # a thief of the worker's token can publish as well that it is over
    results = [rig("operator", command, file.stem, code=12) for command in ("complete", "revoke")]
    assert all("ledger" in result.error["message"] + result.error["hint"] for result in results)
    assert "ledger_rolled_back" in rig.findings(file.stem)
    assert len(live_tokens(rig)) == (1 if taken == "before the grant" else 0)
    assert rig.is_live(held.token) == (taken == "before the grant")
    if unknown_tokens(rig):
        # it was made before the intent was forgotten: the line names an operation that nobody meant
        assert rig("operator", "grant", other, code=12).error["message"].startswith("everything is frozen")
        assert rig("auditor", "audit", "status", code=12).json["frozen"] is not None
