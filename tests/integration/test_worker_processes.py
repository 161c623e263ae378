"""`jitvault worker --processes N`: several workers of one host, which one process keeps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attended import wait_for
from commands import Quick, without_limits
from endpoints import get
from go_between import Fate
from rig import Rig, own_rig
from stage import Stage
from worker_process import WorkerProcess

from jitvault.sandbox.processes import free_port

Spec = Callable[..., Path]
COUNT = 2


@pytest.fixture
def rig(stage: Stage, tmp_path: Path) -> Iterator[Rig]:
    """With a ledger on PostgreSQL."""
    stage.between.clear()
    variables = {**stage.variables, "VAULT_ADDR": stage.between.address, "JITVAULT_LEDGER": "postgresql:"}
    yield own_rig(stage.world, variables, tmp_path)
    stage.mend()


@pytest.fixture
def person(rig: Rig) -> Quick:
    return Quick(rig.cli.variables, rig.cli.home)


def several(rig: Rig, *options: str, **extra: str) -> WorkerProcess:
    return WorkerProcess(rig, "--processes", str(COUNT), *options, **extra)


def working(worker: WorkerProcess, times: int = COUNT) -> dict[int, int]:
    """Wait until processes began to work so many times; give the last process id of each."""
    wait_for(lambda: len(worker.said("working")) >= times or worker.process.poll() is not None, 30)
    assert worker.process.poll() is None, worker.log
    return {said["process"]: said["pid"] for said in worker.said("started a process")}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_one_that_is_killed_is_started_again_while_the_others_work_and_one_endpoint_tells(
    rig: Rig, person: Quick, spec: Spec
) -> None:
    port, file = free_port(), spec()
    with several(rig, "--health", f"127.0.0.1:{port}") as worker:
        pids = working(worker)
        wait_for(lambda: get(port, "readyz")[0] == 200)
        assert get(port, "healthz") == (200, '{"ok": true, "why": []}\n')
        metrics = get(port, "metrics")[1]
        assert 'jitvault_worker_ready{process="1"} 1\njitvault_worker_ready{process="2"} 1\n' in metrics
        os.kill(pids[1], signal.SIGKILL)
        wait_for(lambda: get(port, "healthz")[0] == 503)
        assert "process 1: it" in get(port, "healthz")[1]
        # what it had in hand is nothing: the other one does all of it
        person("operator", "grant", file, worker=False)
        ended = worker.said("a process ended, and is started again")
        assert [(said["process"], said["exit_code"]) for said in ended] == [(1, 128 + signal.SIGKILL)]
        assert working(worker, COUNT + 1)[1] != pids[1]
        wait_for(lambda: get(port, "readyz")[0] == 200)
        person("operator", "complete", file.stem, worker=False)
        assert all("process" in said for said in worker.said("task"))
        worker.end()
        assert all(map(is_gone, working_ever(worker)))


def working_ever(worker: WorkerProcess) -> list[int]:
    return [said["pid"] for said in worker.said("started a process")]


def test_what_keeps_one_from_working_ends_the_command_with_its_reason(rig: Rig) -> None:
    worker = several(rig, JITVAULT_WORKER_TOKEN="s.wrong")
    with pytest.raises(AssertionError), worker:
        pass
    assert worker.process.wait(5) == 10
    # one process was tried, once
    died, started = worker.said("died"), worker.said("started a process")
    assert [(said["process"], said["exit_code"]) for said in died] == [(1, 10)] and len(started) == 1
    assert died[0]["hint"]


def test_vault_that_is_down_at_the_start_ends_the_command(rig: Rig, stage: Stage) -> None:
    stage.between.down()
    worker = several(rig)
    with pytest.raises(AssertionError), worker:
        pass
    assert worker.process.wait(5) == 5 and worker.said("died")[0]["exit_code"] == 5


def test_processes_that_all_fail_later_end_the_command_and_are_not_tried_for_ever(rig: Rig) -> None:
    entity = rig.admin.read("identity/entity/name/worker")
    assert entity is not None
    body = {"policies": ["jitvault-worker"], "no_default_policy": True, "ttl": "15m"}
    token = str(rig.admin.write("auth/token/create", body)["auth"]["client_token"])
    with several(rig, JITVAULT_WORKER_TOKEN=token) as worker:
        working(worker)
        rig.admin.write("auth/token/revoke", {"token": token})
        assert worker.process.wait(60) == 10
        assert {said["process"] for said in worker.said("died")} == {1, 2}
        assert all(map(is_gone, working_ever(worker)))


def test_none_outlives_a_keeper_that_was_killed(rig: Rig) -> None:
    with several(rig) as worker:
        pids = working(worker)
        os.kill(worker.process.pid, signal.SIGKILL)
        wait_for(lambda: all(map(is_gone, pids.values())), 10)
        # as on SIGTERM: other workers have their tasks at once
        assert {said["process"] for said in worker.said("ended")} == {1, 2}


def hung(rig: Rig, stage: Stage, person: Quick, file: Path) -> None:
    """Ask for an end whose first request gets no answer."""
    rig.use(person("operator", "grant", file, "--json", worker=False).json)
    rule = stage.between.when("PUT auth/token/revoke-accessor", "before", fate=Fate.HOLD)
    person("operator", "complete", file.stem, "--wait", "0", code=13, worker=False)
    wait_for(lambda: rule.struck)


def test_sigterm_while_a_request_hangs_ends_all_in_time(rig: Rig, stage: Stage, person: Quick, spec: Spec) -> None:
    with several(rig) as worker:
        pids = working(worker)
        hung(rig, stage, person, spec())
        begun = time.monotonic()
        # as a service manager does it: each process gets the signal
        for pid in (worker.process.pid, *pids.values()):
            os.kill(pid, signal.SIGTERM)
        assert worker.process.wait(15) == 0 and time.monotonic() - begun < 10, worker.log
        assert {said["process"] for said in worker.said("ended")} == {1, 2}
        assert all(map(is_gone, pids.values()))


def test_a_second_sigterm_ends_all_at_once(rig: Rig, stage: Stage, person: Quick, spec: Spec) -> None:
    file = spec()
    with several(rig) as worker:
        pids = working(worker)
        hung(rig, stage, person, file)
        os.kill(worker.process.pid, signal.SIGTERM)
        wait_for(lambda: len(worker.said("ending")) == COUNT)
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(1) == 128 + signal.SIGTERM
        wait_for(lambda: all(map(is_gone, pids.values())), 1)
    stage.between.clear()
    rig.sql("UPDATE tasks SET claim_until = 0")
    with several(rig) as worker:
        wait_for(lambda: rig.state(file.stem) == "sealed", 40)
        worker.end()


def test_a_process_that_hangs_is_killed_at_the_end_and_the_exit_code_says_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with several(rig) as worker:
        pids = working(worker)
        os.kill(pids[2], signal.SIGSTOP)
        worker.end(within_s=20, code=128 + signal.SIGKILL)
        assert [said["process"] for said in worker.said("killed a process that did not end")] == [2]
        assert {said["process"] for said in worker.said("ended")} == {1}
        assert all(map(is_gone, pids.values()))


def test_sighup_reloads_all(rig: Rig, tmp_path: Path) -> None:
    policies = without_limits(tmp_path / "reloaded")
    with several(rig, JITVAULT_POLICIES=str(policies)) as worker:
        working(worker)
        (policies / "own.cedar").write_text('@id("own") forbid (principal, action, resource) when { 1 == 2 };')
        os.kill(worker.process.pid, signal.SIGHUP)
        wait_for(lambda: {said["process"] for said in worker.said("read again")} == {1, 2})
        worker.end()


def readings(port: int) -> dict[str, int]:
    """How many batches each process has read."""
    lines = [line for line in get(port, "metrics")[1].splitlines() if line.startswith("jitvault_worker_readings_total")]
    found = dict.fromkeys("12", 0)
    for line in lines:
        found[line.split('process="')[1][0]] += int(line.split()[-1])
    return found


def test_one_of_them_reads_the_stream_and_another_takes_over(rig: Rig) -> None:
    def reads(process: str) -> bool:
        before = readings(port)[process]
        rig.admin.read("sys/policies/acl/default")
        time.sleep(0.5)
        return readings(port)[process] > before

    port = free_port()
    with several(rig, "--health", f"127.0.0.1:{port}") as worker:
        pids = working(worker)
        for _ in range(80):
            rig.admin.read("sys/policies/acl/default")
            time.sleep(0.05)
        # what each says of itself is up to a second old
        wait_for(lambda: readings(port)["1"] > 20)
        assert readings(port)["2"] == 0
        os.kill(pids[1], signal.SIGKILL)
        begun = time.monotonic()
        wait_for(lambda: reads("2"), 6)
        assert time.monotonic() - begun < 4.5


def test_a_reader_that_hangs_keeps_nobody_from_granting_and_ending(rig: Rig, person: Quick, spec: Spec) -> None:
    file = spec()
    with several(rig) as worker:
        pids = working(worker)
        os.kill(pids[1], signal.SIGSTOP)
        rig.use(person("operator", "grant", file, "--json", worker=False).json)
        assert person("operator", "complete", file.stem, "--json", worker=False).json["confirmed"]
        os.kill(pids[1], signal.SIGKILL)


def test_what_allows_one_process_alone_is_refused(rig: Rig) -> None:
    two = ("worker", "--processes", "2")
    assert "--once works in one process" in rig.cli(None, *two, "--once", code=2).stderr
    on_sqlite = {"JITVAULT_LEDGER": str(rig.cli.home / "new.db")}
    assert "need a ledger on PostgreSQL" in rig.cli(None, *two, code=2, extra=on_sqlite).stderr
    assert not (rig.cli.home / "new.db").exists()
    wrapped = {"JITVAULT_WORKER_SECRET_ID_WRAPPED_FROM": "auth/approle/role/worker/secret-id"}
    assert "opens once" in rig.cli(None, *two, code=2, extra=wrapped).stderr
