"""`grant --wait` waits for approvals and takes the token; without it a grant that needs some exits with 4 at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from attended import Attended
from commands import at_terminal
from rig import Rig

from jitvault.documents import paths

Spec = Callable[..., Path]
FOR_AGENT = "  deliver: agent\n"
QUESTION = "waits for 1 approval by jitvault-approvers"


class Waiting:
    """A command of the operator's in a process of its own, which waits."""

    def __init__(self, rig: Rig, *args: str | Path) -> None:
        argv = [sys.executable, "-m", "jitvault", *map(str, args)]
        environment = rig.cli.environment("operator", worker=False)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True)
        self.said = self.next_line()

    def next_line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, self.said + err


@pytest.fixture
def attended(rig: Rig) -> Iterator[None]:
    """A worker that works all the time."""
    with Attended(rig):
        yield


with_a_worker = pytest.mark.usefixtures("attended")


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@with_a_worker
def test_it_takes_the_token_when_the_approvals_are_given(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, out = spec(criticality="high"), tmp_path / "wrapped.json"
    waiting = Waiting(rig, "grant", file, "--wait", "2m", "--out", out)
    both = f"Task {file.stem} {QUESTION} and 1 approval by jitvault-security; this command waits "
    assert waiting.said.startswith(both) and waiting.said.endswith(
        f" more. To approve: `jitvault approve {file.stem}`\n"
    )
    rig("approver-1", "approve", file.stem, "--yes")
    assert waiting.next_line().startswith(f"Task {file.stem} waits for 1 approval by jitvault-security; ")
    rig("approver-2", "approve", file.stem, "--yes")
    code, shown, err = waiting.end()
    assert code == 0 and f"Task {file.stem} is issued" in shown, (shown, err)
    wrapped = json.loads(out.read_text())
    assert wrapped["wrapping"][0]["token"] and rig("agent", "unwrap", out).json["task_id"] == file.stem
    rig("operator", "complete", file.stem)


@with_a_worker
def test_with_json_nothing_is_said_while_it_waits(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file)
    pipe = subprocess.PIPE
    argv = [sys.executable, "-m", "jitvault", "grant", file.stem, "--wait", "60s", "-o", "json"]
    process = subprocess.Popen(
        argv, env=rig.cli.environment("operator", worker=False), stdout=pipe, stderr=pipe, text=True
    )
    time.sleep(2)
    assert process.poll() is None
    rig("approver-1", "approve", file.stem, "--yes")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["wrapping"]
    rig("operator", "complete", file.stem)


def test_without_wait_it_exits_with_4_at_once(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    began = time.monotonic()
    refused = rig("operator", "grant", file, code=4)
    assert time.monotonic() - began < 15
    assert refused.error["message"] == f"task {file.stem} needs approval: 1 of jitvault-approvers"
    assert refused.error["hint"] == (
        f"Ask a member of jitvault-approvers to run `jitvault approve {file.stem}`. "
        f"`jitvault grant {file.stem} --wait 30m` waits for that and takes the token."
    )
    assert refused.json["next"] == f"jitvault grant {file.stem} --wait 30m"
    rig("operator", "cancel", file.stem)


def test_when_the_wait_is_over_the_code_is_4_and_a_later_approval_issues_nothing(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    late = rig("operator", "grant", file, "--wait", "2", code=4)
    assert late.error["message"] == f"task {file.stem} needs approval after 2s: 1 of jitvault-approvers"
    rig("approver-1", "approve", file.stem, "--yes")
    assert rig("operator", "status", file.stem).json["state"] == "approved"
    assert rig("operator", "grant", file.stem).json["state"] == "issued"
    rig("operator", "complete", file.stem)


@with_a_worker
def test_a_denial_ends_the_wait(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    waiting = Waiting(rig, "grant", file, "--wait", "2m")
    rig("approver-1", "deny", file.stem, "--yes", "--reason", "not today")
    code, _, err = waiting.end()
    assert code == 3 and f'task {file.stem} is denied: approver-1 denied it: "not today"' in err


@with_a_worker
def test_a_cancellation_ends_the_wait(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    waiting = Waiting(rig, "grant", file, "--wait", "2m")
    rig("operator", "cancel", file.stem)
    code, _, err = waiting.end()
    assert code == 9 and f"task {file.stem} is cancelled" in err


@with_a_worker
def test_the_end_of_the_window_ends_the_wait(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    file.write_text(file.read_text().replace("{for: 15m}", f"{{until: '{in_s(30)}'}}"))
    code, shown, err = Waiting(rig, "grant", file, "--wait", "2m").end()
    assert code == 9 and f"task {file.stem} is lapsed" in err, (shown, err)


def test_a_request_that_nobody_decides_about_lapses_and_may_be_signed_again(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file)
    with mock.patch.object(paths, "REQUEST_LIFE", timedelta(0)):
        assert rig("operator", "status", file.stem).json["state"] == "lapsed"
    assert rig("operator", "submit", file).json["state"] == "pending_approval"
    rig("operator", "cancel", file.stem)


@with_a_worker
def test_it_waits_for_the_window_to_begin(rig: Rig, spec: Spec) -> None:
    file = spec()
    file.write_text(file.read_text().replace("{for: 15m}", f"{{for: 15m, not_before: '{in_s(15)}'}}"))
    waiting = Waiting(rig, "grant", file, "--wait", "1m")
    assert f"Task {file.stem} waits for its window, which begins at " in waiting.said
    code, shown, err = waiting.end()
    assert code == 0 and f"Task {file.stem} is issued" in shown, err
    rig("operator", "complete", file.stem)


@with_a_worker
def test_what_is_for_the_agent_is_issued_whoever_waits(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", more=FOR_AGENT)
    waiting = Waiting(rig, "grant", file, "--wait", "2m")
    rig("approver-1", "approve", file.stem, "--yes")
    code, out, _ = waiting.end()
    assert code == 0 and "once, by research-agent" in out
    rig("operator", "complete", file.stem)


def test_where_no_worker_answers_it_says_so_while_it_waits(rig: Rig, spec: Spec) -> None:
    file = spec()
    waiting = Waiting(rig, "grant", file, "--wait", "11s")
    assert waiting.said == (
        "No worker has answered yet. If none is running, start one where the worker's identity is (in this sandbox "
        "`source DIR/worker.env`): `jitvault worker`, or `jitvault worker --once` for what is due now. This command "
        "waits 6s more.\n"
    )
    code, _, err = waiting.end()
    assert code == 13 and "no worker has done this within 11 s" in err


@with_a_worker
def test_a_queued_request_waits_on_after_the_command(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    waits = rig("operator", "grant", file, "--wait", "2", "--queue").json
    assert (waits["state"], waits["next"]) == ("pending_approval", f"jitvault cancel {file.stem}")
    waiting = Waiting(rig, "grant", file.stem, "--wait", "2m")
    rig("approver-1", "approve", file.stem, "--yes")
    code, shown, err = waiting.end()
    assert code == 0 and "jitvault unwrap " in shown, err
    rig("operator", "complete", file.stem)


@with_a_worker
@pytest.mark.parametrize(("more", "said"), [("", "issues nothing"), (FOR_AGENT, "The request stays")])
def test_ctrl_c_says_what_becomes_of_the_task(rig: Rig, spec: Spec, more: str, said: str) -> None:
    file = spec(criticality="medium", more=more)
    waiting = Waiting(rig, "grant", file, "--wait", "2m")
    waiting.process.send_signal(signal.SIGINT)
    code, _, err = waiting.end()
    assert code == 130 and "interrupted" in err and said in err and f"jitvault cancel {file.stem}" in err
    assert rig("operator", "status", file.stem).json["state"] == "pending_approval"
    rig("operator", "cancel", file.stem)


def test_what_waits_is_a_success_of_submit(rig: Rig, spec: Spec) -> None:
    width = 80
    file = spec(criticality="high")
    shown = at_terminal(rig.cli, "operator", "submit", str(file), width=width)
    whole = " ".join(shown.stdout.split())
    assert shown.code == 0 and max(map(len, shown.stdout.splitlines())) <= width
    assert "waiting for 1 approval by jitvault-approvers and 1 approval by jitvault-security" in whole
    ask = f"ask a member of jitvault-approvers and one of jitvault-security to run `jitvault approve {file.stem}`"
    assert ask in whole and f"next jitvault grant {file.stem} --wait 30m" in whole
    assert "error" not in whole
    # what status says is for anybody, also without a ledger
    for worker in (True, False):
        said = " ".join(rig.cli("auditor", "status", file.stem, worker=worker).stdout.split())
        assert ask in said and "next" not in said.split("digest")[0]
    rig("operator", "cancel", file.stem)


@pytest.mark.parametrize(
    ("command", "option", "code"),
    [
        (("grant", "t-1"), "--wait", 2),
        (("complete", "t-1"), "--wait", 2),
        (("extend", "t-1", "--reason", "x"), "--for", 8),
        (("tidy",), "--older-than", 2),
        (("worker",), "--sweep-every", 8),
        (("templates", "check", "postgres-readonly"), "--patience", 2),
        (("audit", "receive", "--into", "/nowhere"), "--keep", 2),
        (("ledger", "recover"), "--wait", 2),
    ],
)
def test_a_wrong_duration_is_answered_with_the_forms_that_are_taken(
    rig: Rig, command: tuple[str, ...], option: str, code: int
) -> None:
    for wrong in ("soon", "5x", "1m30", "-3"):
        refused = rig.cli("operator", *command, f"{option}={wrong}", code=code).stderr
        assert option in refused and "seconds such as 30, or a duration such as 30s, 10m" in refused


@pytest.mark.parametrize("spelt", ["900", "900s", "15m"])
def test_a_duration_may_be_seconds_alone(rig: Rig, spec: Spec, spelt: str) -> None:
    file = spec()
    rig("operator", "grant", file, "--wait", spelt)
    more = rig("operator", "extend", file.stem, "--for", spelt, "--reason", "slow", code=None)
    assert more.json["extension"]["seconds"] == 900
    rig("operator", "complete", file.stem, "--wait", spelt)
