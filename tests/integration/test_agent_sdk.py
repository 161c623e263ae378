"""A Python program has a task's access in a block, and nothing is left of it, however the block or the program ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from rig import Rig
from test_exec import environment, is_alive, logs_in

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# what the programs of these tests begin with; `say` writes a line of JSON
BEGIN = """
import asyncio, json, os, sys, time
from jitvault.agent import Denied, TaskEnded, task
spec = sys.argv[1]
def say(**what):
    print(json.dumps(what), flush=True)
def url(t):
    return t.secret("postgres-readonly.url").reveal()
def holder():
    below = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return int(below[0])
"""
STAYS = """
with task(spec) as t:
    say(url=url(t), holder=holder())
    while not t.is_over:
        time.sleep(0.02)
    say(reason=t.reason)
    try:
        t.secret("password")
    except TaskEnded as error:
        say(refused=str(error))
"""


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with Attended(rig):
        yield rig


def argv(code: str, *words: str | Path) -> list[str]:
    return [sys.executable, "-c", BEGIN + textwrap.dedent(code), *map(str, words)]


def run(rig: Rig, code: str, *words: str | Path, exit_code: int = 0, **more: str) -> tuple[list[dict[str, Any]], str]:
    """Run a program to its end; return what it said, and its standard error."""
    done = subprocess.run(
        argv(code, *words), env={**environment(rig), **more}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == exit_code, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@contextmanager
def running(rig: Rig, code: str, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv(code, *words), env=environment(rig), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return dict(json.loads(line))


def is_over(rig: Rig, file: Path) -> bool:
    wait_for(lambda: rig.file(file.stem).task.state in ("confirmed", "sealed"), 30)
    return not rig.task_tokens(file.stem)


def note(rig: Rig, file: Path) -> str:
    return json.dumps(rig("operator", "status", file.stem).json["ended"])


# -- a block ----------------------------------------------------------------------------------------------------------


def test_a_block_has_the_access_and_gives_it_back(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    import psycopg
    with task(spec) as t:
        kept = t.secret("password")
        count = psycopg.connect(**t.psycopg_kwargs()).execute("SELECT count(*) FROM orders").fetchone()[0]
        say(count=count, url=url(t), id=t.task_id, names=[each.name for each in t.credentials], shown=f"{kept} {t}")
        assert t.ends_at and t.expires_at <= t.ends_at and not t.reason
    try:
        kept.reveal()
    except TaskEnded as error:
        say(refused=str(error), hint=error.__notes__)
    """
    (inside, after), stderr = run(rig, code, file)
    assert inside["count"] >= 0 and inside["id"] == file.stem and inside["names"] == ["postgres-readonly"]
    assert inside["shown"] == f"Secret(postgres-readonly.password) <Task {file.stem}: held>"
    assert after["refused"] == f"task {file.stem} cannot be used: its block was left"
    # already when the program ends, and not only when a worker has looked
    assert not logs_in(inside["url"]) and not rig.task_tokens(file.stem)
    assert is_over(rig, file) and "the block of the Python program was left" in note(rig, file)
    assert stderr == ""
