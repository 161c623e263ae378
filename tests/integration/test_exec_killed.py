"""`jitvault exec` may be killed anywhere: at each of its requests to Vault, before and after the answer.

The requests come through a go-between, which kills. Either nothing was taken yet, and the next `jitvault exec` of the
task runs it, or the access is over without a worker's look at any deadline.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from attended import Attended, wait_for
from forked import Forked, run_in_bytes
from go_between import REFUSED, Answered, Fate, GoBetween
from rig import Rig
from test_agent_sdk import argv
from test_exec import environment, execute, is_alive, logs_in, own_memory, started

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
OVER = ("ending", "confirmed", "sealed")
# what it does, in this order: a pattern of the request, and how many like it come before
POINTS = {
    "asks": ("PUT jitvault/data/requests/.*/submit", 0),
    "waits": ("GET jitvault/data/tasks/", 2),
    "looks into its inbox": ("GET jitvault-inbox/data/", 0),
    "looks at the wrapping": ("PUT sys/wrapping/lookup", 0),
    "unwraps": ("PUT sys/wrapping/unwrap", 0),
    "empties its inbox": ("DELETE jitvault-inbox/metadata/", 0),
    "reads": ("GET database/creds/", 0),
    "revokes its token": ("PUT auth/token/revoke-self", 0),
    "signs the end": ("PUT jitvault-transit/sign/", 2),
    "writes the end": ("PUT jitvault/data/requests/.*/end", 0),
}
AFTER_THE_PROGRAM = ("revokes its token", "signs the end", "writes the end")
SAYS = "import os, sys; open(sys.argv[1], 'w').write(f'{os.getpid()} {os.environ[\"DATABASE_URL\"]}')"


@pytest.fixture
def between(rig: Rig) -> Iterator[GoBetween]:
    host, _, port = rig.world.address.removeprefix("http://").partition(":")
    between = GoBetween((host, int(port)))
    with own_memory(rig), Attended(rig):
        yield between
    between.down()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_at_whichever_request_exec_is_killed_its_access_is_over_or_not_taken(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path, moment: Literal["before", "after"]
) -> None:
    ends = {}
    for point, (pattern, skip) in POINTS.items():
        said = tmp_path / point.replace(" ", "-")
        between.clear()
        file = spec()
        running: list[Forked] = []
        between.when(pattern, moment, lambda running=running: running[0].kill(), skip=skip)
        running.append(_start(rig, between, file, said))
        output = running[0].communicate(timeout=60)
        assert running[0].returncode == -signal.SIGKILL, (point, output)
        ends[point] = _what_became_of(rig, file, said)
    assert {point for point, end in ends.items() if end == "not taken"} <= {"asks", "waits", "looks into its inbox"}


def test_at_whichever_request_its_monitor_is_killed_nothing_runs_unwatched(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path
) -> None:
    """It sends none of them: before a request is passed on or after its answer came, `exec` goes on with the answer."""
    for point, (pattern, skip) in POINTS.items():
        said = tmp_path / point.replace(" ", "-")
        between.clear()
        file = spec()
        running: list[Forked] = []
        between.when(pattern, "before", lambda running=running: _kill_child(running[0].pid), skip=skip)
        running.append(_start(rig, between, file, said))
        output = running[0].communicate(timeout=60)
        has_run = said.exists()
        # it gives back what it has itself; what the program left behind is killed with the monitor
        assert running[0].returncode == (0 if has_run else 125), (point, output)
        assert has_run == (point in AFTER_THE_PROGRAM), (point, output)
        is_taken = point not in ("asks", "waits", "looks into its inbox")
        assert (_what_became_of(rig, file, said) == "over") == is_taken, (point, output)


def _kill_child(pid: int) -> None:
    (child,) = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    # on a busy machine that is not at once, and the request goes on afterwards
    wait_for(lambda: not is_alive(int(child)), 5)


def _start(rig: Rig, between: GoBetween, file: Path, said: Path) -> Forked:
    words = ("--preset", "postgres", "--", sys.executable, "-c", SAYS, said)
    return started(rig, file, *words, VAULT_ADDR=between.address)


def _what_became_of(rig: Rig, file: Path, said: Path) -> str:
    """Return `over`, or `not taken` for access that the next run could take."""
    task = file.stem
    pid, _, url = said.read_text().partition(" ") if said.exists() else ("", "", "")
    assert not pid or _comes(lambda: not is_alive(int(pid)), 5)
    # the request may have reached Vault after its client was dead
    found = "over" if _comes(lambda: rig.state(task) in OVER, 4) else "not taken"
    if found == "not taken":
        execute(rig, file, "--preset", "postgres", "--", sys.executable, "-c", SAYS, said)
        url = said.read_text().partition(" ")[2]
    # far less than the heartbeat, and than any deadline
    assert _comes(lambda: not rig.task_tokens(task) and not (url and logs_in(url)), 6), said.name
    return found


def _comes(what: Callable[[], bool], seconds: float) -> bool:
    with suppress(AssertionError):
        return bool(wait_for(what, seconds))
    return False


@pytest.mark.parametrize(
    ("moment", "pattern"),
    [("after", "PUT sys/wrapping/lookup"), ("before", "PUT sys/wrapping/unwrap"), ("after", "PUT sys/wrapping/unwrap")],
)
def test_an_answer_that_is_lost_ends_the_task_only_where_its_wrapping_was_opened(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path, moment: Literal["before", "after"], pattern: str
) -> None:
    file, said = spec(), tmp_path / "said"
    is_opened = (moment, pattern) == ("after", "PUT sys/wrapping/unwrap")
    between.when(pattern, moment, fate=Fate.LOSE)
    first = _start(rig, between, file, said)
    error = first.communicate(timeout=60)[1]
    assert first.returncode == 125 and not said.exists(), error
    if is_opened:
        assert b"nobody has" in error and b"another id" in error, error
        assert _comes(lambda: rig.state(file.stem) in OVER and not rig.task_tokens(file.stem), 6)
        assert rig.record(file.stem).task.end_reason == "completed"
    else:
        assert b"un the same command again" in error, error
        again = _start(rig, between, file, said)
        assert again.communicate(timeout=60) and again.returncode == 0 and said.exists()


def test_an_unwrap_by_hand_whose_answer_is_lost_is_not_called_theft_by_the_next(
    rig: Rig, between: GoBetween, spec: Spec
) -> None:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    there = {**environment(rig), "VAULT_ADDR": between.address}
    between.when("PUT sys/wrapping/unwrap", "after", fate=Fate.LOSE)
    for hint in (b"Do not run this again", b"you opened this wrapping token"):
        done = run_in_bytes(["unwrap", file.stem], there)
        assert done.returncode and hint in done.stderr.replace(b"\n  ", b" "), done.stderr
    assert sum("sys/wrapping/unwrap" in each for each in between.seen) == 1
    assert rig.state(file.stem) not in OVER


LEAVES = """
from jitvault.agent import NotConfirmed
try:
    with task(spec) as t:
        print(f"{os.getpid()} {url(t)}", file=open(sys.argv[2], "w"), end="")
except NotConfirmed as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("how", "answer"), [("a program", REFUSED), ("a block", REFUSED), ("a program", (202, [], b"queued"))]
)
def test_a_gateways_word_gives_nothing_back_where_no_end_is_signed(
    rig: Rig, between: GoBetween, spec: Spec, tmp_path: Path, how: str, answer: Answered
) -> None:
    """A gateway passes on nothing that ends the access: nobody believes it, and the monitor goes on trying."""
    file, said = spec(), tmp_path / "said"
    running: Forked | subprocess.Popen[bytes]
    between.when("PUT auth/token/revoke-self", "before", fate=Fate.LIE, answer=answer, times=10_000)
    between.when("PUT jitvault/data/requests/.*/end", "before", fate=Fate.LIE, answer=REFUSED, times=10_000)
    if how == "a block":
        there = {**environment(rig), "VAULT_ADDR": between.address}
        words = argv(LEAVES, file, said)
        running = subprocess.Popen(words, env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    else:
        running = _start(rig, between, file, said)
    error = running.communicate(timeout=60)[1]
    assert running.returncode == (125 if how == "a program" else 1), error
    assert b"is not given back" in error, error
    between.seen.clear()
    wait_for(lambda: sum("revoke-self" in each for each in between.seen) > 1, 10)
    url = said.read_text().partition(" ")[2]
    assert logs_in(url) and len(rig.task_tokens(file.stem)) == 1
    between.clear()
    assert _comes(lambda: not rig.task_tokens(file.stem) and not logs_in(url), 6)
    assert _comes(lambda: rig.state(file.stem) in OVER, 6) and rig.record(file.stem).task.end_reason == "completed"
