"""An agent's host that has no jitvault: the scripts of the documents use a task's access by `bao` or curl alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from attended import Attended, wait_for
from rig import Rig
from test_exec import environment

from jitvault.sandbox.placement import find_programs

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with Attended(rig):
        yield rig


@pytest.fixture(params=["bao", "curl"])
def script(request: pytest.FixtureRequest) -> Path:
    """A script; without curl its own is skipped, and fails in `.ci/run`."""
    if request.param == "curl" and not shutil.which("curl"):
        said = "curl is needed: apt-get install curl"
        if os.environ.get("JITVAULT_TEST_NEEDS_CURL"):
            pytest.fail(said)
        pytest.skip(said)
    return EXAMPLES / {"bao": "unwrap.sh", "curl": "unwrap_by_curl.sh"}[request.param]


def start(rig: Rig, script: Path, *task: str, directory: Path, without: str = "") -> subprocess.Popen[str]:
    """Run it where there is `bao`, and a psql that first leaves what it logs in with in a file.

    The variable `without` is not set.
    """
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    if not (programs / "psql").exists():
        (programs / "bao").symlink_to(Path(sys.executable).parent / "bao")
        # it stays until it is told to go on
        (programs / "psql").write_text(
            f'#!/bin/sh\necho "$PGUSER $PGPASSWORD" >{directory}/part && mv {directory}/part {directory}/login\n'
            f'while test -e {directory}/stay; do sleep 0.05; done\nexec {find_programs() / "bin" / "psql"} "$@"\n'
        )
        (programs / "psql").chmod(0o755)
    target = psycopg.conninfo.conninfo_to_dict(rig.world.target_dsn)
    where = {"PGHOST": str(target["host"]), "PGPORT": str(target["port"]), "PGDATABASE": "app"}
    own = {name: value for name, value in environment(rig).items() if not name.startswith("JITVAULT_")}
    there = {**own, **where, "PATH": f"{programs}:/usr/bin:/bin"}
    return subprocess.Popen(
        ["sh", script, *task],
        env={name: value for name, value in there.items() if name != without},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def granted(rig: Rig, spec: Spec) -> str:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    return file.stem


def is_over_without_findings(rig: Rig, task: str) -> bool:
    wait_for(lambda: rig.state(task) in ("confirmed", "sealed"), 30)
    return rig.record(task).task.end_reason == "completed" and rig.findings(task) == []


def test_a_script_uses_the_access_and_gives_it_back(rig: Rig, spec: Spec, script: Path, tmp_path: Path) -> None:
    task = granted(rig, spec)
    process = start(rig, script, task, directory=tmp_path)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0 and stdout.strip().isdigit() and not stderr, (stdout, stderr)
    user, _ = (tmp_path / "login").read_text().split()
    # Vault drops the login after it has answered, and no worker is needed for that
    wait_for(lambda: user not in rig.database_roles() and not rig.task_tokens(task), 10)
    assert is_over_without_findings(rig, task)
    # what was opened is not there for the next one
    again = start(rig, script, task, directory=tmp_path)
    _, stderr = again.communicate(timeout=30)
    assert again.returncode == 1 and f"the inbox has no token of task {task}" in stderr
    assert is_over_without_findings(rig, task)


def test_a_script_that_lacks_something_takes_nothing(rig: Rig, spec: Spec, script: Path, tmp_path: Path) -> None:
    task = granted(rig, spec)
    needed = ["VAULT_ADDR", "PGHOST", "PGPORT", "PGDATABASE"]
    for name in [*needed, "VAULT_TOKEN"] if "curl" in script.name else needed:
        process = start(rig, script, task, directory=tmp_path, without=name)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode and name in stderr, stderr
    process = start(rig, script, directory=tmp_path)
    assert "names the task" in process.communicate(timeout=30)[1] and process.returncode
    assert rig.state(task) == "issued" and rig.document(f"inbox/{rig.entity('research-agent')}/{task}")["wrapping"]


def test_a_script_that_is_told_to_end_gives_the_access_back(rig: Rig, spec: Spec, script: Path, tmp_path: Path) -> None:
    (tmp_path / "stay").touch()
    task = granted(rig, spec)
    process = start(rig, script, task, directory=tmp_path)
    wait_for(lambda: (tmp_path / "login").exists() or process.poll() is not None)
    assert len(rig.task_tokens(task)) == 1, process.communicate()
    user, _ = (tmp_path / "login").read_text().split()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(20) == 143, process.communicate()
    process.communicate(timeout=20)
    assert user not in rig.database_roles() and not rig.task_tokens(task)
    assert is_over_without_findings(rig, task)


def test_a_script_opens_no_wrapping_that_is_not_jitvaults(rig: Rig, spec: Spec, script: Path, tmp_path: Path) -> None:
    task = granted(rig, spec)
    inbox = f"inbox/{rig.entity('research-agent')}/{task}"
    message = rig.document(inbox)
    other = rig.admin.write("sys/wrapping/wrap", {"a": "b"}, wrap_ttl_s=60)
    message["wrapping"][0]["token"] = other["wrap_info"]["token"]
    rig.put(inbox, message)
    process = start(rig, script, task, directory=tmp_path)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and not stdout and "is not jitvault's, and was not opened" in stderr
    assert rig.is_live(other["wrap_info"]["token"])


def test_a_script_that_was_not_the_first_shows_jitvault_the_theft(
    rig: Rig, spec: Spec, script: Path, tmp_path: Path
) -> None:
    task = granted(rig, spec)
    message = rig.document(f"inbox/{rig.entity('research-agent')}/{task}")
    rig.vault(message["wrapping"][0]["token"]).write("sys/wrapping/unwrap")
    process = start(rig, script, task, directory=tmp_path)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode and not stdout and stderr
    wait_for(lambda: rig.state(task) in ("confirmed", "sealed"), 30)
    assert rig.record(task).task.end_reason == "intercepted" and "unwrap_refused" in rig.findings(task)
