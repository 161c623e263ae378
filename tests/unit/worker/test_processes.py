"""Several processes that one keeps: whichever of them dies or hangs, the others go on, and none is left alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydantic import SecretStr

from jitvault.errors import UsageError
from jitvault.settings import Settings
from jitvault.worker import processes
from jitvault.worker.health import State
from jitvault.worker.processes import Link, keep
from jitvault.worker.signals import handled

Run = Callable[[Link], None]


class FileLog:
    """A log that lies in a file, which all processes may write."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()

    def info(self, event: str, **values: object) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"event": event, "logged_at": time.monotonic(), **values}) + "\n")

    warning = error = info

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in map(json.loads, self.file.read_text().splitlines()) if entry["event"] == event]


class Kept:
    """Two processes that a keeper keeps, itself a process of its own. All are gone when the test is over."""

    def __init__(self, file: Path) -> None:
        self.log = FileLog(file)
        self.pid = 0

    def start(self, run: Run, health: str | None = None) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                code = keep(2, health, self.log, run)
            finally:
                os._exit(code)

    def pids(self) -> dict[int, int]:
        return {said["process"]: said["pid"] for said in self.log.said("started a process")}

    def code(self, within_s: float = 5) -> int:
        """Wait for the keeper's end; give its exit code."""
        _, status = wait_for(lambda: found if (found := os.waitpid(self.pid, os.WNOHANG))[0] else None, within_s)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Whatever of it is left is killed."""
        for pid in [said["pid"] for said in self.log.said("started a process")] + ([self.pid] if self.pid else []):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for(what: Callable[[], Any], within_s: float = 5) -> Any:
    begun = time.monotonic()
    while not (found := what()):
        assert time.monotonic() - begun < within_s, what
        time.sleep(0.01)
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path / "log")
    yield found
    found.end()


def works(kept: Kept, *, deaf: bool = False) -> Run:
    """A process that works until it is ended; `deaf`: the second one does not end then."""

    def run(link: Link) -> None:
        stopping = Event()
        with handled(stopping):
            attend(link, stopping)
        kept.log.info("ended", process=link.number)
        os._exit(0)

    def attend(link: Link, stopping: Event) -> None:
        link.watch(stopping)
        link.report(State)
        kept.log.info("works", process=link.number)
        while not stopping.wait(0.02) or (deaf and link.number == 2):
            link.report(State)
            if link.is_reader():
                kept.log.info("reads", process=link.number)

    return run


def all_work(kept: Kept) -> dict[int, int]:
    # the second is started once the first one works
    wait_for(lambda: len(kept.pids()) == 2)
    wait_for(lambda: len(kept.log.said("works")) == len(kept.log.said("started a process")))
    return kept.pids()


def test_sigterm_ends_all_and_the_code_is_0(kept: Kept) -> None:
    kept.start(works(kept))
    pids = all_work(kept)
    # as a service manager does it: each of them gets the signal as well, and none takes that for a second one
    for pid in (kept.pid, *pids.values()):
        os.kill(pid, signal.SIGTERM)
    assert kept.code() == 0 and all(map(is_gone, pids.values()))
    assert {said["process"] for said in kept.log.said("ended")} == {1, 2}


def test_the_first_is_started_alone_and_its_end_before_it_works_is_the_end(kept: Kept) -> None:
    kept.start(lambda link: os._exit(10))
    assert kept.code() == 10
    assert list(kept.pids()) == [1] and len(kept.log.said("started a process")) == 1


def test_a_first_that_is_ended_by_a_signal_or_by_itself_is_no_success(kept: Kept) -> None:
    kept.start(lambda link: os._exit(0))
    assert kept.code() == 1
    kept.start(lambda link: os.kill(os.getpid(), signal.SIGKILL))
    assert kept.code() == 128 + signal.SIGKILL


def test_one_that_dies_is_started_again_ever_later_while_the_other_works(kept: Kept) -> None:
    def run(link: Link) -> None:
        if link.number == 2:
            os._exit(3)
        works(kept)(link)

    kept.start(run)
    ended = wait_for(lambda: (found := kept.log.said("a process ended, and is started again"))[2:] and found, 15)
    assert all((said["process"], said["exit_code"]) == (2, 3) for said in ended)
    started = kept.log.said("started a process")
    assert [said["process"] for said in started] == [1, 2, 2, 2]
    # each time twice as long, give or take a quarter; a busy machine may take longer than it says
    first, second, third = (said["again_in_s"] for said in ended)
    assert first == 1 and second == 2 and 3 <= third <= 5
    pauses = [again["logged_at"] - end["logged_at"] for again, end in zip(started[2:], ended, strict=False)]
    assert pauses[0] > 0.7 and pauses[1] > 1.4, pauses
    os.kill(kept.pid, signal.SIGTERM)
    assert kept.code() == 0


def test_none_outlives_a_keeper_that_was_killed(kept: Kept) -> None:
    kept.start(works(kept))
    pids = all_work(kept)
    # one that was started again has what its keeper had of the others at that time
    os.kill(pids[1], signal.SIGKILL)
    wait_for(lambda: kept.pids()[1] != pids[1])
    pids = all_work(kept)
    os.kill(kept.pid, signal.SIGKILL)
    assert kept.code() == -signal.SIGKILL
    wait_for(lambda: all(map(is_gone, pids.values())))
    assert {said["process"] for said in kept.log.said("ended")} == {1, 2}


def test_none_outlives_a_keeper_that_had_not_read_their_reports(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REPORT_S", 0.0)
    kept.start(works(kept))
    pids = all_work(kept)
    os.kill(kept.pid, signal.SIGSTOP)
    time.sleep(0.3)
    # the system then tells the others of an error, and not of an end
    os.kill(kept.pid, signal.SIGKILL)
    assert kept.code() == -signal.SIGKILL
    wait_for(lambda: all(map(is_gone, pids.values())))


def test_one_that_hangs_keeps_no_other_from_noticing_that_their_keeper_is_gone(kept: Kept) -> None:
    kept.start(works(kept, deaf=True))
    pids = all_work(kept)
    os.kill(kept.pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pids[1]))
    assert not is_gone(pids[2])


def test_one_that_does_not_end_is_killed_and_the_code_says_so(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    kept.start(works(kept, deaf=True))
    pids = all_work(kept)
    os.kill(kept.pid, signal.SIGTERM)
    assert kept.code() == 128 + signal.SIGKILL and all(map(is_gone, pids.values()))
    assert [said["process"] for said in kept.log.said("killed a process that did not end")] == [2]


def test_a_second_signal_ends_all_at_once(kept: Kept) -> None:
    kept.start(works(kept, deaf=True))
    pids = all_work(kept)
    os.kill(kept.pid, signal.SIGTERM)
    wait_for(lambda: kept.log.said("ended"))
    os.kill(kept.pid, signal.SIGINT)
    assert kept.code(1) == 128 + signal.SIGINT
    wait_for(lambda: all(map(is_gone, pids.values())), 1)


def test_one_of_them_reads_and_the_other_once_that_is_gone(kept: Kept) -> None:
    kept.start(works(kept))
    pids = all_work(kept)
    assert {said["process"] for said in kept.log.said("reads")} == {1}
    os.kill(pids[1], signal.SIGKILL)
    wait_for(lambda: any(said["process"] == 2 for said in kept.log.said("reads")), 1)


def test_a_keeper_that_does_not_listen_keeps_nobody_waiting(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REPORT_S", 0.0)
    large = State(frozen=["x" * 50_000])

    def run(link: Link) -> None:
        for n in range(60):
            link.report(lambda: large)
            time.sleep(0.01)
            if n > 50:
                kept.log.info("goes on")
        works(kept)(link)

    kept.start(run)
    wait_for(lambda: len(kept.pids()) == 2)
    os.kill(kept.pid, signal.SIGSTOP)
    wait_for(lambda: len(kept.log.said("goes on")) > 10)
    os.kill(kept.pid, signal.SIGCONT)
    os.kill(kept.pid, signal.SIGTERM)
    # what was left over of a report is continued: it reads none that is cut
    assert kept.code() == 0


def test_how_a_process_is_when_it_says_nothing() -> None:
    process = processes._Process(1)
    assert "started again" in process.shown().trouble[0]
    process.pid = 1
    assert "does not work yet" in process.shown().trouble[0] and process.shown().unready
    process.state, process.heard_at = State(frozen=["all"]), time.monotonic()
    assert process.shown() == process.state
    process.heard_at -= processes.SILENT_S + 1
    assert process.shown().trouble == ["it says nothing"] and process.shown().frozen == ["all"]


def test_a_second_signal_counts_and_not_one_after_a_death() -> None:
    stopping, told = Event(), list[int]()
    with handled(stopping, told.append) as reload:
        os.kill(os.getpid(), signal.SIGHUP)
        assert reload.is_set() and not stopping.is_set()
        # something else has ended it already
        stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not told
        os.kill(os.getpid(), signal.SIGTERM)
        assert told == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("ledger", "wrapped_from"),
    [
        ("/var/lib/jitvault/ledger.db", None),
        ("sqlite:////var/lib/jitvault/ledger.db", None),
        ("postgresql://a@b/c", "auth/approle/role/worker/secret-id"),
    ],
)
def test_settings_that_allow_one_process_alone_are_refused(ledger: str, wrapped_from: str | None) -> None:
    fine = Settings.model_construct(ledger=SecretStr("postgresql://a@b/c"), worker_secret_id_wrapped_from=None)
    processes.check(fine)
    refused = Settings.model_construct(ledger=SecretStr(ledger), worker_secret_id_wrapped_from=wrapped_from)
    with pytest.raises(UsageError, match="--processes"):
        processes.check(refused)
