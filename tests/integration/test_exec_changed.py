"""More time that comes with another token: what uses the access begins anew with it, or goes on without.

The former token and its leases are proven dead before the next one is made, so a program never has two. The next one
comes by the inbox, and is checked as the first.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from attended import Attended, wait_for
from forked import Forked
from go_between import Fate, GoBetween
from rig import Rig
from test_exec import command, environment, is_alive, logs_in, own_memory, started

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# each start adds a line: its process, its login and the file with its password; then it lives until it is stopped
SAYS = 'echo "$$ $DATABASE_URL $PGPASSFILE" >> {said}; exec sleep {seconds}'
OVER = ("confirmed", "sealed")


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with own_memory(rig):
        yield rig


@pytest.fixture(autouse=True)
def worker(rig: Rig) -> Iterator[ExitStack]:
    """A worker that works until this is closed."""
    with ExitStack() as worker:
        worker.enter_context(Attended(rig))
        yield worker


@pytest.fixture
def between(rig: Rig) -> Iterator[GoBetween]:
    host, _, port = rig.world.address.removeprefix("http://").partition(":")
    between = GoBetween((host, int(port)))
    yield between
    between.down()


@contextmanager
def running(rig: Rig, what: Path | str, program: str, *options: str, **more: str) -> Iterator[Forked]:
    words = (what, "--preset", "postgres", *options, "--", "sh", "-c", program)
    process = started(rig, *words, leads=True, cwd=rig.cli.home, **more)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def starts(said: Path) -> list[list[str]]:
    return [line.split() for line in said.read_text().splitlines()] if said.exists() else []


def wait_until_started(said: Path, process: Forked) -> None:
    """Wait until the program began; if it did not, show what `exec` printed."""
    wait_for(lambda: starts(said) or process.poll() is not None, 30)
    assert starts(said), process.communicate(timeout=20)


def extended(rig: Rig, task: str, who: str = "operator") -> Any:
    """Move the deadline past the cap of the token's role."""
    return rig(who, "extend", task, "--for", "20m", "--reason", "slow").json


def granted(rig: Rig, spec: Spec) -> str:
    """A task whose token waits in the agent's inbox."""
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    return file.stem


def ended(rig: Rig, task: str) -> str | None:
    wait_for(lambda: rig.state(task) in OVER, 30)
    assert not rig.task_tokens(task)
    return rig.record(task).task.end_reason


@pytest.mark.parametrize("who", ["agent", "operator"])
def test_the_program_is_started_anew_with_the_next_token(rig: Rig, spec: Spec, tmp_path: Path, who: str) -> None:
    """The agent asked for it and extends it itself, or an operator did, for its inbox."""
    said = tmp_path / "said"
    what: Path | str = spec() if who == "agent" else granted(rig, spec)
    task = what.stem if isinstance(what, Path) else what
    with running(rig, what, SAYS.format(said=said, seconds=600), "--on-change", "restart") as process:
        wait_for(lambda: len(starts(said)) == 1 or process.poll() is not None, 30)
        # what the program writes in its directory is no wrapping, whatever its name
        (rig.cli.home / task).write_text("hvs.forged")
        told = extended(rig, task, who)
        # it is left to the process that holds the task
        assert told["replaces"] and not told["wrapping"]
        wait_for(lambda: len(starts(said)) == 2 or process.poll() is not None, 30)
        assert process.poll() is None, process.communicate()
        (old, old_url, old_file), (new, new_url, new_file) = starts(said)
        assert not is_alive(int(old)) and not logs_in(old_url) and not Path(old_file).parent.exists()
        assert is_alive(int(new)) and logs_in(new_url) and Path(new_file).exists()
        assert len(rig.task_tokens(task)) == 1
        if who == "agent":
            # a worker has seen that it was taken
            rig.turn(task)
            again = rig.cli("agent", "extend", task, "--for", "20m", "--reason", "slow")
            assert "The new token was taken" in again.stderr and "waits in the inbox" not in again.stderr
        process.kill()
        wait_for(lambda: not is_alive(int(new)) and not logs_in(new_url), 10)
        _, told = process.communicate(timeout=20)
        assert b"has more time and another token: the program is started anew" in told
    assert ended(rig, task) == "completed"


def test_by_default_the_program_goes_on_without_and_the_next_token_is_for_another(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    said, task = tmp_path / "said", granted(rig, spec)
    go_on = tmp_path / "go-on"
    program = SAYS.format(said=said, seconds=0) + f"; while [ ! -e {go_on} ]; do sleep 0.1; done; exit 7"
    program = program.replace("exec sleep", "sleep")
    with running(rig, task, program) as process:
        wait_until_started(said, process)
        extended(rig, task)
        # longer than its watch takes to see that
        time.sleep(2.5)
        assert process.poll() is None and not logs_in(starts(said)[0][1])
        go_on.touch()
        _, error = process.communicate(timeout=20)
    assert process.returncode == 125 and b"exit code 7" in error, error
    assert b"came with another token" in error and f"jitvault exec {task} -- CMD".encode() in error
    with running(rig, task, SAYS.format(said=said, seconds=600)):
        wait_for(lambda: len(starts(said)) == 2, 30)
        assert logs_in(starts(said)[1][1])


def test_whoever_goes_on_without_is_told_when_the_access_is_lost_and_that_the_task_goes_on(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    said, task, go_on, told = tmp_path / "said", granted(rig, spec), tmp_path / "go-on", tmp_path / "told"
    program = f"echo x >> {said}; while [ ! -e {go_on} ]; do sleep 0.1; done"
    words = command(task, "--preset", "postgres", "--", "sh", "-c", program)
    with told.open("wb") as stderr:
        process = subprocess.Popen(words, env=environment(rig), stderr=stderr)
    wait_for(lambda: starts(said) or process.poll() is not None, 30)
    extended(rig, task)
    wait_for(lambda: "the program goes on without access" in told.read_text() or process.poll() is not None, 20)
    # its watch looks on
    time.sleep(2.5)
    go_on.touch()
    assert process.wait(20) == 0
    lost, goes_on = told.read_text().splitlines()
    assert lost.startswith(f"task {task} has more time, with another token")
    assert goes_on.startswith(f"task {task} goes on until 2") and "research-agent takes its other token" in goes_on


def test_a_program_that_its_lost_login_ends_is_started_anew(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path
) -> None:
    """It ends before anything says that another token comes."""
    said, task = tmp_path / "said", granted(rig, spec)
    query = "import psycopg; psycopg.connect().execute('SELECT pg_sleep(600)')"
    program = SAYS.format(said=said, seconds=0).replace("exec sleep 0", f'exec {sys.executable} -c "{query}"')
    there = {"VAULT_ADDR": between.address}
    with running(rig, task, program, "--on-change", "restart", **there) as process:
        wait_until_started(said, process)
        published = between.when("GET jitvault/data/tasks/", "before", fate=Fate.LOSE, times=10_000)
        extended(rig, task)
        wait_for(lambda: not is_alive(int(starts(said)[0][0])), 20)
        time.sleep(2)
        published.times = 0
        wait_for(lambda: len(starts(said)) == 2 or process.poll() is not None, 30)
        assert process.poll() is None, process.communicate()
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert ended(rig, task) == "completed"


def test_whoever_asks_it_to_end_while_it_changes_means_it(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    said, task, stopping = tmp_path / "said", granted(rig, spec), tmp_path / "stopping"
    program = f"trap 'touch {stopping}; sleep 1; exit 3' TERM; echo x >> {said}; while :; do sleep 0.1; done"
    with running(rig, task, program, "--on-change", "restart") as process:
        wait_until_started(said, process)
        extended(rig, task)
        wait_for(stopping.exists, 20)
        process.terminate()
        assert process.wait(20) == 3 and len(starts(said)) == 1
    assert ended(rig, task) == "completed"


FORGED = pytest.mark.parametrize("forged", ["made elsewhere", "of another task"])


def forge(rig: Rig, task: str, other: str, forged: str) -> None:
    """Put another wrapping into the agent's inbox, with everything else as the worker wrote it."""
    inbox = f"inbox/{rig.entity('research-agent')}"
    message = rig.document(f"{inbox}/{task}")
    wrapping = rig.document(f"{inbox}/{other}")["wrapping"]
    if forged == "made elsewhere":
        made = rig.admin.write("sys/wrapping/wrap", {"a": "b"}, wrap_ttl_s=120)
        wrapping = [{**message["wrapping"][0], "token": made["wrap_info"]["token"]}]
    rig.put(f"{inbox}/{task}", {**message, "wrapping": wrapping})


def is_alarmed(rig: Rig, process: Forked, task: str, other: str, forged: str) -> bool:
    _, error = process.communicate(timeout=30)
    assert process.returncode == 125 and b"You have signed an alarm" in b" ".join(error.split()), error
    if forged == "of another task":
        # it was opened, and nobody uses it
        wait_for(lambda: not rig.task_tokens(other))
    return ended(rig, task) == "intercepted"


@FORGED
def test_a_forged_token_is_an_alarm_and_starts_nothing(rig: Rig, spec: Spec, tmp_path: Path, forged: str) -> None:
    said, task, other = tmp_path / "said", granted(rig, spec), granted(rig, spec)
    forge(rig, task, other, forged)
    with running(rig, task, SAYS.format(said=said, seconds=600)) as process:
        assert is_alarmed(rig, process, task, other, forged) and not starts(said)


@FORGED
def test_a_forged_next_token_is_an_alarm_and_starts_nothing(
    rig: Rig, worker: ExitStack, spec: Spec, tmp_path: Path, forged: str
) -> None:
    """No worker sees the alarm before `exec` is over: an end that it signed as well would stand in its place."""
    said, task, other = tmp_path / "said", granted(rig, spec), granted(rig, spec)
    with running(rig, task, SAYS.format(said=said, seconds=600), "--on-change", "restart") as process:
        wait_until_started(said, process)
        os.kill(process.pid, signal.SIGSTOP)
        extended(rig, task)
        forge(rig, task, other, forged)
        worker.close()
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(30) == 125
        with Attended(rig):
            assert is_alarmed(rig, process, task, other, forged)
        assert len(starts(said)) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("point", ["PUT sys/wrapping/unwrap", "GET database/creds/"])
def test_killed_while_it_changes_the_access_is_over(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path, point: str, moment: Literal["before", "after"]
) -> None:
    said, task = tmp_path / "said", granted(rig, spec)
    there = {"VAULT_ADDR": between.address}
    with running(rig, task, SAYS.format(said=said, seconds=600), "--on-change", "restart", **there) as process:
        between.when(point, moment, process.kill, skip=1)
        wait_until_started(said, process)
        answer = rig("operator", "extend", task, "--for", "20m", "--reason", "slow", code=None)
        # the task may be over before the command looks again
        assert answer.code == 0 or "ended after its deadline was moved" in answer.stderr, answer
        assert process.wait(30) == -signal.SIGKILL
        assert len(starts(said)) == 1
        assert ended(rig, task) == "completed"
        # a token that somebody has is given back by itself, without a worker; the second is the next one
        has_token = point.startswith("GET")
        assert [each for each in between.seen if "revoke-self" in each] == ["PUT auth/token/revoke-self"] * has_token


def test_a_next_token_that_was_lost_on_the_way_ends_the_task_though_its_end_is_hard_to_write(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path
) -> None:
    said, task = tmp_path / "said", granted(rig, spec)
    there = {"VAULT_ADDR": between.address}
    with running(rig, task, SAYS.format(said=said, seconds=600), "--on-change", "restart", **there) as process:
        between.when("PUT sys/wrapping/unwrap", "after", fate=Fate.LOSE, skip=1)
        between.when("PUT jitvault/data/requests/.*/end", "before", fate=Fate.LOSE, times=100)
        wait_until_started(said, process)
        extended(rig, task)
        assert process.wait(30) == 125
        between.clear()
        assert ended(rig, task) == "completed" and len(starts(said)) == 1 and not rig.task_tokens(task)
    notes = [event.body.get("note") or "" for event in rig.record(task).events]
    assert "`jitvault exec` did not receive the token that it unwrapped" in notes


def test_at_a_terminal_what_is_typed_reaches_the_program_that_was_started_anew(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    said, task = tmp_path / "said", granted(rig, spec)
    program = f'echo x >> {said}; read word; echo "got $word"; exit 5'
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(task, "--on-change", "restart", "--", "sh", "-c", program), environment(rig))
    wait_for(lambda: len(starts(said)) == 1, 30)
    extended(rig, task)
    wait_for(lambda: len(starts(said)) == 2, 30)
    os.write(master, b"hello\n")
    seen = b""
    with suppress(OSError):
        while data := os.read(master, 4096):
            seen += data
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert b"got hello" in seen and os.waitstatus_to_exitcode(status) == 5, seen
