"""What stands around the loops: their supervisor, the log, the health endpoint."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from endpoints import get

from jitvault.errors import AuditMissing, JitvaultError, NotConfirmed, ProbeUnusable, UsageError, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.worker import health as health_module
from jitvault.worker.health import Health, metrics, serve, served
from jitvault.worker.logs import log_to_stderr
from jitvault.worker.loop_base import Pace
from jitvault.worker.loops import Loops
from jitvault.worker.supervisor import Supervisor

ROOT = Path(__file__).parents[3]


def test_the_first_loop_that_dies_stops_all_and_is_the_reason() -> None:
    supervisor, ended = Supervisor(), threading.Event()

    def lives() -> None:
        supervisor.stopping.wait()
        ended.set()

    def dies() -> None:
        raise AuditMissing("the file is not there", hint="Bring it back.")

    supervisor.start("lives", lives)
    supervisor.start("dies", dies)
    assert supervisor.stopping.wait(5) and supervisor.join(5) == [] and ended.is_set()
    assert supervisor.death is not None
    error = supervisor.death.as_error()
    assert isinstance(error, AuditMissing) and error.hint == "Bring it back."
    assert str(error) == "the worker's loop 'dies' ended: the file is not there"


class Panic(BaseException):
    """As pyo3's, by which Cedar and pydantic tell a bug in Rust: no Exception."""


@pytest.mark.parametrize("bug", [KeyError("s3cret"), Panic("s3cret"), None], ids=["raises", "panics", "returns"])
def test_a_bug_and_a_loop_that_just_ends_stop_the_worker_as_well_and_tell_no_secret(bug: BaseException | None) -> None:
    supervisor = Supervisor()

    def ends() -> None:
        if bug:
            raise bug

    supervisor.start("ends", ends)
    assert supervisor.stopping.wait(5)
    supervisor.join(5)
    assert supervisor.death is not None
    error = supervisor.death.as_error()
    assert type(error) is JitvaultError and error.exit_code == 1 and "s3cret" not in str(error)


def test_who_does_not_end_in_time_is_named() -> None:
    supervisor, release = Supervisor(), threading.Event()
    supervisor.start("hangs", lambda: bool(release.wait()) and None)
    supervisor.stopping.set()
    assert supervisor.join(0.05) == ["hangs"]
    release.set()
    assert supervisor.join(5) == [] and supervisor.death is None


# -- the log ------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_and_no_secret_and_no_control_character_gets_into_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = Secret("hvs.made-up-for-this-test")
    log_to_stderr(as_json=True).warning("said", error="a\x1b[2Jb\nc", token=str(token))
    line = capsys.readouterr().err
    found = json.loads(line)
    assert found["event"] == "said" and found["level"] == "warning" and found["error"] == "a\\x1b[2Jb\\nc"
    assert token.reveal() not in line and line.count("\n") == 1


def test_for_people_it_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(as_json=False).info("task", task="t-1", error="a\x1b[2Jb\nc")
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "\x1b" not in line and "t-1" in line


def test_a_log_whose_disk_is_full_or_whose_reader_is_gone_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for file in (open(writer, "w"), open("/dev/full", "w")):  # noqa: PTH123, SIM115 - closed as a log is
        monkeypatch.setattr(sys, "stderr", file)
        log = log_to_stderr(as_json=True)
        for _ in range(3):
            log.warning("said", error="x" * 10_000)
        with suppress(OSError):
            file.close()


# -- health -------------------------------------------------------------------------------------------------


@pytest.fixture
def health() -> Iterator[tuple[Health, int]]:
    supervisor = Supervisor()
    found = Health(supervisor)
    endpoint = served(lambda: {"": found.state()}, "127.0.0.1:0")
    supervisor.start("health", lambda: serve(endpoint, supervisor))
    yield found, endpoint.server_port
    supervisor.stopping.set()
    assert supervisor.join(5) == []


def test_it_lives_before_it_is_ready_and_is_ready_once_the_stream_is_trusted(health: tuple[Health, int]) -> None:
    found, port = health
    assert get(port, "healthz")[0] == 200 and get(port, "readyz")[0] == 503
    found.why_not_trusted = None
    assert "rights were not tried yet" in get(port, "readyz")[1]
    found.lacking, found.why_not_granting = [], "the ledger was lost"
    assert get(port, "readyz") == (503, '{"ok": false, "why": ["the ledger was lost"], "frozen": []}\n')
    found.why_not_granting = None
    assert get(port, "readyz") == (200, '{"ok": true, "why": [], "frozen": []}\n')
    found.lacking = ["update sys/leases/revoke/a/*"]
    assert get(port, "readyz")[0] == 503 and "lacks update sys/leases/revoke/a/*" in get(port, "readyz")[1]
    found.lacking = []
    found.frozen = ["everything: a token was stolen"]
    assert get(port, "readyz") == (200, '{"ok": true, "why": [], "frozen": ["everything: a token was stolen"]}\n')
    found.count("failures", kind="VaultBusy")
    found.count("failures", kind="VaultBusy")
    found.set("tasks_waiting", 3)
    text = get(port, "metrics")[1]
    assert (
        'jitvault_worker_failures_total{kind="VaultBusy"} 2\n' in text and "jitvault_worker_tasks_waiting 3\n" in text
    )
    assert "jitvault_worker_ready 1\n" in text and get(port, "else")[0] == 404


def test_every_counter_is_documented_and_there_from_the_start_unless_it_has_a_label() -> None:
    documented = dict(re.findall(r"`(\w+)_total(\{\w+\})?`", (ROOT / "docs/operations/worker.md").read_text()))
    code = "".join(file.read_text() for file in (ROOT / "jitvault/worker").glob("*.py"))
    assert set(re.findall(r'health\.count\("(\w+)"', code)) == set(documented)
    text = metrics({"": Health(Supervisor()).state()})
    at_0 = {name for name in documented if f"jitvault_worker_{name}_total 0\n" in text}
    assert at_0 == {name for name, label in documented.items() if not label}


def test_a_loop_that_says_nothing_is_told(health: tuple[Health, int], monkeypatch: pytest.MonkeyPatch) -> None:
    found, port = health
    found.supervisor.beat("reads")
    monkeypatch.setattr(health_module, "SILENT_S", -1.0)
    code, text = get(port, "healthz")
    assert code == 503 and "the loop reads says nothing" in text


@pytest.mark.parametrize("where", ["0.0.0.0:9200", "10.1.2.3:80", "localhost:80", "127.0.0.1", "127.0.0.1:99999", ":1"])
def test_health_is_shown_on_loopback_alone(where: str) -> None:
    with pytest.raises(UsageError, match="--health"):
        served(dict, where)


def test_an_outage_is_logged_once_and_with_no_hint_for_who_runs_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = Supervisor()
    pace = Pace(retry_s=0)
    loops: Any = Loops(supervisor, None, None, None, log_to_stderr(as_json=True), None, pace)  # type: ignore[arg-type]
    fates = [VaultUnavailable("away"), VaultUnavailable("away"), VaultUnavailable("sealed", hint="Unseal it."), None]

    def act() -> None:
        if not fates:
            supervisor.stopping.set()
        elif (fate := fates.pop(0)) is not None:
            raise fate

    loops.every("canary", 0, act)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    away, sealed, over = lines
    assert away["event"] == "trouble" and "tries again by itself" in away["hint"] and "command" not in away["hint"]
    assert (sealed["error"], sealed["hint"], over["event"]) == ("sealed", "Unseal it.", "trouble is over")


# -- a probe that cannot ask its target ----------------------------------------------------------------------------


class Target:
    """A target that answers each login of its probe with the next of `failures`."""

    def __init__(self, *failures: NotConfirmed | None, supervisor: Supervisor) -> None:
        self.failures = list(failures)
        self.supervisor = supervisor

    def log_in(self, _: object) -> None:
        failure = self.failures.pop(0)
        if not self.failures:
            self.supervisor.stopping.set()
        if failure is not None:
            raise failure


def test_a_probe_that_is_not_let_in_is_an_event_once_for_each_reason_and_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    supervisor = Supervisor()
    health = Health(supervisor)
    pace = Pace(targets_s=0)
    loops: Any = Loops(supervisor, None, None, health, log_to_stderr(as_json=True), None, pace)  # type: ignore[arg-type]
    busy, refused = NotConfirmed("busy"), ProbeUnusable("refused")
    loops._log_in(Target(busy, busy, refused, None, busy, supervisor=supervisor), ("database", "postgres"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"], line.get("why")) for line in lines] == [
        ("warning", "a probe cannot ask its target", "busy"),
        ("error", "a probe cannot ask its target", "refused"),
        ("info", "a probe can ask its target again", None),
    ]
    assert 'jitvault_worker_probe_failures_total{probe="postgres"} 4\n' in metrics({"": health.state()})
