"""The recipes for agent frameworks run as they are, each with a model that a script plays, and speak to no other host.

They run in an environment of their own (`make frameworks`): what a framework pins, jitvault's own tools need not have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import Attended, wait_for
from rig import Rig
from test_agent_sdk import environment
from test_exec import logs_in, own_memory

from jitvault.agent.secret_forms import forms
from jitvault.sandbox.placement import find_programs

pytestmark = pytest.mark.usefixtures("lab")
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RECIPES = ROOT / "docs" / "examples" / "frameworks"
OFFLINE = HERE / "offline"
ENDED_BY_GUARD = 86


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with own_memory(rig), Attended(rig):
        yield rig


@pytest.fixture
def frameworks() -> Path:
    """The Python that has the frameworks; skips where it is not installed, and fails in `.ci/run`."""
    found = ROOT / ".venv" / "frameworks" / "bin" / "python"
    if not found.exists():
        said = "the agent frameworks are not installed: make frameworks"
        if os.environ.get("JITVAULT_TEST_NEEDS_FRAMEWORKS"):
            pytest.fail(said)
        pytest.skip(said)
    return found


def offline(rig: Rig) -> dict[str, str]:
    """An agent's host without a network, with a key that a framework would send its traces with."""
    own = environment(rig)
    programs = f"{Path(sys.executable).parent}:{find_programs() / 'bin'}:{own['PATH']}"
    return {**own, "PATH": programs, "PYTHONPATH": f"{OFFLINE}:{ROOT}", "OPENAI_API_KEY": "none"}


def play(python: Path, rig: Rig, recipe: str, kept: Path) -> tuple[dict[str, Any], str]:
    """Return what the recipe's run was like, and everything else that it printed."""
    done = subprocess.run(
        [python, HERE / "scripted_models.py", recipe, kept],
        cwd=RECIPES,
        env=offline(rig),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    *printed, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(printed) + done.stderr


@pytest.mark.parametrize("recipe", [file.stem for file in sorted(RECIPES.glob("with_*.py"))])
def test_a_model_answers_from_the_database_and_sees_no_secret(
    rig: Rig, frameworks: Path, tmp_path: Path, recipe: str
) -> None:
    told, printed = play(frameworks, rig, recipe, tmp_path / "kept")
    # already when the program ends
    assert not logs_in(told["url"]) and not rig.task_tokens(told["task"])
    password = told["url"].rpartition("@")[0].rpartition(":")[2]
    given = "\n".join([*told["seen"], printed]).encode()
    secrets = (told["url"], password, rig.token_of("agent"))
    assert len(told["seen"]) >= 3 and [form for each in secrets for form in forms(each) if form in given] == []
    with psycopg.connect(rig.world.target_dsn) as connection:
        orders = connection.execute("SELECT count(*) FROM orders").fetchone()
    assert orders and told["answer"] in (f"There are {orders[0]}.", f"There are [({orders[0]},)].")
    wait_for(lambda: rig.state(told["task"]) in ("confirmed", "sealed"), 30)
    assert rig.record(told["task"]).task.end_reason == "completed"


@pytest.mark.parametrize("recipe", [file.stem for file in sorted(RECIPES.glob("with_*.py")) if "mcp" not in file.stem])
def test_a_model_whose_access_was_revoked_reads_why_and_answers(frameworks: Path, tmp_path: Path, recipe: str) -> None:
    """By MCP the server says so itself (`test_mcp.py`)."""
    why = 'task t cannot be used: it is ending (revoked by operator: "look")'
    done = subprocess.run(
        [frameworks, HERE / "scripted_models.py", recipe, tmp_path, why],
        cwd=RECIPES,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{OFFLINE}:{ROOT}", "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert json.loads(done.stdout.splitlines()[-1])["answer"] == f"I was told: {why}"


@pytest.mark.parametrize(
    "speaks",
    [
        "import socket; socket.create_connection(('192.0.2.1', 443), 1)",
        "import socket; socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 443))",
        "import asyncio; asyncio.run(asyncio.open_connection('api.example.org', 443))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))",
    ],
)
def test_the_guard_ends_what_speaks_to_another_host(speaks: str) -> None:
    """Also in a process that the first one starts. It is what the recipes' tests rest on."""
    child = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-P', '-c', {speaks!r}]).returncode)"
    done = subprocess.run(
        [sys.executable, "-c", child], env={"PYTHONPATH": str(OFFLINE)}, capture_output=True, timeout=20, check=False
    )
    assert done.returncode == ENDED_BY_GUARD and b"OFFLINE: socket." in done.stderr, done
