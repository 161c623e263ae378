"""A row of the ledger that nobody can read, whoever wrote it: the worker goes on with everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import Quick
from rig import Rig

from jitvault.worker.health import metrics

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
ROWS = {
    "a request that is no JSON": ("revisions", b"["),
    "a request that is no object": ("revisions", b"[]"),
    "an event that is no JSON": ("events", "["),
}


@pytest.fixture(params=ROWS)
def edited(rig: Rig, spec: Spec, request: pytest.FixtureRequest) -> Iterator[str]:
    """A task that holds access, and of which something cannot be read any more."""
    task, (table, garbage) = rig.active(spec()).task.task_id, ROWS[request.param]
    if table == "events":
        # a server refuses what is no JSON
        assert rig.ledger_path
        rig.drop_triggers()
    ((body,),) = rig.rows(f"SELECT body FROM {table} WHERE task_id = ? ORDER BY 1 LIMIT 1", task)
    edit = f"UPDATE {table} SET body = ? WHERE task_id = ? AND body = ?"
    assert rig.sql(edit, garbage, task, body)
    yield task
    rig.sql(edit, body, task, garbage)
    rig("operator", "complete", task, code=None)


def test_it_stops_no_loop_of_a_worker(rig: Rig, spec: Spec, edited: str, tmp_path: Path) -> None:
    told, command = tmp_path / "told", tmp_path / "tell"
    command.write_text(f"#!/bin/sh\ncat >> {told}\n")
    command.chmod(0o700)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_NOTIFY_COMMAND": str(command)}
    person, file = Quick(rig.cli.variables, rig.cli.home), spec()
    with Attended(rig, sweep_s=0.5, list_s=0.5, tell_s=0.1) as worker:
        granted = person("operator", "grant", file, "--json", worker=False).json
        rig.use(granted)
        # what a freeze covers is looked for among all that is held
        person("operator", "freeze", "--template", "pki-service", "--reason", "x", worker=False)
        wait_for(lambda: "jitvault_worker_sweep_remaining" in metrics({"": worker.started.pool._health.state()}), 20)
        assert person("operator", "complete", file.stem, "--json", worker=False).json["confirmed"]
        # that it was edited is told, without those who had a part in it
        wait_for(lambda: told.exists() and edited in told.read_text(), 20)
        assert worker.supervisor.death is None
    person("operator", "unfreeze", "--template", "pki-service", "--reason", "x", worker=False)


def test_it_is_no_bug_of_any_command(rig: Rig, spec: Spec, edited: str) -> None:
    """`rig` fails for exit code 1."""
    assert "the ledger's record of task" in rig("operator", "status", edited, code=12).error["message"]
    for command in (["list"], ["sweep"], ["audit", "status"], ["freezes"], ["ledger", "check"], ["doctor"]):
        rig("operator", *command, code=None)
    other = spec()
    rig.granted(other)
    report = rig("auditor", "report", code=12)
    assert [row["task_id"] for row in report.json["leases"]] == [other.stem] and edited in report.error["message"]
    rig("auditor", "report", edited, code=12)
    rig("auditor", "status", edited, code=12, extra={"JITVAULT_WORKER_TOKEN": ""})
    rig("operator", "freeze", "--agent", "research-agent", "--reason", "x", "--wait", "0", code=None)
    rig("operator", "unfreeze", "--agent", "research-agent", "--reason", "x")
    for command in (["complete", edited], ["revoke", edited, "--reason", "x"], ["extend", edited, "--for", "5m"]):
        rig("operator", *command, *(["--reason", "x"] if command[0] == "extend" else []), code=None)


@pytest.mark.parametrize("edited", ["an event that is no JSON"], indirect=True)
def test_a_sweep_says_what_it_could_not_judge(rig: Rig, edited: str) -> None:
    (token,) = rig.task_tokens(edited)
    rig.admin.write("auth/token/revoke-accessor", {"accessor": token["accessor"]})
    waiting = rig("operator", "sweep", code=None).json["waiting"]
    assert [one for one in waiting if "cannot be read" in one["why"]]
