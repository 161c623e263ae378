"""`jitvault mcp` by the official client over stdio: a model works with a task's access and never sees a secret.

The raw frames in both directions are kept, and every test ends with a search for secrets in them and in stderr.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import psycopg
import pytest
from attended import Attended, wait_for
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from rig import Rig

import jitvault
from jitvault.agent.secret_forms import forms

pytestmark = pytest.mark.usefixtures("lab")
READ = {"template": "postgres-readonly", "parameters": {"database": "app"}, "reason": "Count the\norders."}
WRITE = {**READ, "template": "postgres-readwrite"}
# the pid of the server, then the server itself, with what it reads and writes in two files
RECORDED = """
cd "$0" && mkfifo in out
tee frames.out <out & tee frames.in >in <&3 3<&- &
sh -c 'echo $$ >pid; exec "$@"' sh "$@" <in >out 3<&-
wait
"""
KEEP = "import os; open(os.environ['HOME'] + '/known', 'w').write(os.environ['DATABASE_URL']); print('kept')"
COUNT = "import psycopg; print(psycopg.connect().execute('SELECT count(*) FROM orders').fetchone()[0])"
LOSES = """
import psycopg
print('written', flush=True)
try:
    psycopg.connect().execute('SELECT pg_sleep(600)')
except psycopg.Error:
    print('lost')
    raise
"""
WORKS = "import time; print('one', flush=True); time.sleep(4); print('two', flush=True); time.sleep(600)"
SLEEP = "import os, time; open(os.environ['HOME'] + '/tool', 'w').write(str(os.getpid())); time.sleep(600)"


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with Attended(rig):
        yield rig


@dataclass
class Model:
    """What stands for a model: it calls tools, and keeps what the progress notifications said."""

    session: ClientSession
    told: list[str] = field(default_factory=list)

    async def ask(self, tool: str, /, **arguments: Any) -> tuple[bool, dict[str, Any]]:
        """Return whether it is an error, and the answer, which a busy machine gives to `poll`."""

        async def progress(done: float, total: float | None, message: str | None) -> None:
            self.told.append(message or "")

        begun = time.monotonic()
        result = await self.session.call_tool(tool, arguments, progress_callback=progress)
        # it is 3 s; a busy machine misses that
        assert time.monotonic() - begun < 6 or tool == "wait_for_access"
        (content,) = result.content
        assert len(content.text) <= 40_000
        is_error, answer = bool(result.is_error), json.loads(content.text)
        if tool in ("list_access", "request_access", "finish"):
            while answer.get("state") == "running":
                is_error, answer = await self.ask("poll", id=answer["id"])
        return is_error, answer

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        is_error, answer = await self.ask(tool, **arguments)
        assert not is_error, answer
        return answer

    async def refused(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        is_error, answer = await self.ask(tool, **arguments)
        assert is_error and set(answer) == {"error", "hint"}, answer
        return answer

    async def held(self, **asked: Any) -> str:
        """Return a task that holds access."""
        task = (await self.call("request_access", **{**READ, "tools": ["python"], **asked}))["task"]
        facts = await self.call("wait_for_access", seconds=20)
        assert facts["state"] == "held", facts
        return str(task)

    async def lacking(self) -> str:
        """Return what the newest task waits for, once a worker has said it."""
        with anyio.fail_after(60):
            while "approval" not in (waits := await self.call("wait_for_access", seconds=2))["waits_for"]:
                pass
        return str(waits["waits_for"])

    async def python(self, task: str, program: str, *args: str, stdin: str = "") -> dict[str, Any]:
        """Return how a Python program ended."""
        words = ["-c", program, *args]
        answer = await self.call("run", task=task, tool="python", args=words, stdin=stdin)
        while answer["state"] == "running":
            answer = await self.call("poll", id=answer["id"])
        return answer


@dataclass
class Stage:
    """The server's host: its files, and what went over the wire."""

    rig: Rig
    home: Path
    memory: Path

    @property
    def server(self) -> int:
        return int((self.home / "pid").read_text())

    @property
    def url(self) -> str:
        """The login that the test's own program kept."""
        return (self.home / "known").read_text()

    def play(self, model: Callable[[Model], Awaitable[None]], *options: str) -> None:
        """Have a model talk to a server until it is done."""

        async def talk() -> None:
            # the checkout that is tested, also where it is a copy
            where = {"PYTHONPATH": str(Path(jitvault.__file__).parents[1])}
            own = {**self.rig.cli.environment("agent", worker=False), **where, "PGPASSWORD": "of another login"}
            path = f"{Path(sys.executable).parent}:{own['PATH']}"
            command = [sys.executable, "-m", "jitvault", "mcp", "--agent", "research-agent", *options]
            server = StdioServerParameters(
                command="sh",
                args=["-c", f"exec 3<&0; {RECORDED}", str(self.home), *command],
                env={**own, "PATH": path, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.memory)},
            )
            with (self.home / "stderr").open("w") as stderr:
                async with stdio_client(server, stderr) as streams, ClientSession(*streams) as session:
                    await session.initialize()
                    await model(Model(session))

        anyio.run(talk)

    def check_nothing_leaked(self) -> None:
        """Search what went over the wire, and stderr, for the login and the agent's own token."""
        secrets = [self.rig.token_of("agent")]
        if (self.home / "known").exists():
            secrets += [self.url.rpartition("@")[0].rpartition(":")[2], self.url]
        seen = b"".join((self.home / name).read_bytes() for name in ("frames.in", "frames.out", "stderr"))
        found = [form for secret in secrets for form in forms(secret) if form in seen]
        assert found == [] and len(seen) > 500


@pytest.fixture
def stage(rig: Rig, tmp_path: Path) -> Iterator[Stage]:
    home = tmp_path / "home"
    home.mkdir()
    # of its own, since other tests look for what is left in memory, too
    with TemporaryDirectory(dir="/dev/shm") as memory:
        made = Stage(rig, home, Path(memory))
        yield made
        made.check_nothing_leaked()
        wait_for(lambda: not list(made.memory.iterdir()), 10)


def logs_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_server_for_another_agent_than_its_login_says_so_at_once(stage: Stage) -> None:
    async def model(m: Model) -> None:
        offered = await m.call("list_access")
        assert "asks for churn-bot and its login is that of research-agent" in offered["warning"]
        refused = await m.refused("request_access", tools=["python"], **READ)
        assert refused["error"] == offered["warning"] and "Nothing was asked for" in refused["hint"]

    stage.play(model, "--agent", "churn-bot")


def test_a_model_asks_works_and_gives_back(rig: Rig, stage: Stage) -> None:
    async def model(m: Model) -> None:
        tools = {tool.name for tool in (await m.session.list_tools()).tools}
        assert tools == {"list_access", "request_access", "wait_for_access", "run", "poll", "extend", "finish"}
        offered = await m.call("list_access")
        assert {"template": "postgres-readonly", "risk": "low"}.items() <= offered["templates"][1].items()
        task = await m.held()
        held = (await m.call("list_access"))["tasks"][0]
        assert held["task"] == task and held["until"] and "DATABASE_URL" in held["variables"]
        assert (await m.python(task, COUNT))["stdout"].strip().isdigit()
        await m.python(task, KEEP)
        assert logs_in(stage.url)
        finished = await m.call("finish", task=task)
        assert (finished["state"], finished["why"]) == ("ended", f"task {task} was finished: its access is given back")
        assert (await m.refused("run", task=task, tool="python"))["error"] == finished["why"]
        wait_for(lambda: rig.state(task) in ("confirmed", "sealed"))
        assert rig.record(task).task.end_reason == "completed" and not logs_in(stage.url)

    stage.play(model)


def test_what_a_program_prints_is_masked_in_every_spelling(stage: Stage) -> None:
    show = """
import base64, json, os, sys
url = os.environ["DATABASE_URL"]
word = open(os.environ["PGPASSFILE"]).read().strip()
folded = base64.b64encode(b"x" + word.encode()).decode()
for text in (url, word, json.dumps(json.dumps([word])), word.encode().hex(), folded):
    print(text)
    print(text, file=sys.stderr)
"""

    async def model(m: Model) -> None:
        task = await m.held()
        await m.python(task, KEEP)
        said = await m.python(task, show)
        assert said["stdout"].count("[jitvault:postgres-readonly.password]") == 5 == said["stderr"].count("[jitvault:")
        # halves that are told in two answers, which nothing but the runner sees together
        halves = "import os, time; w = os.environ['DATABASE_URL']; c = w.rindex('@') - 9; print(end=w[:c], flush=True)"
        words = ["-c", f"{halves}; time.sleep(4); print(w[c:])"]
        answer = await m.call("run", task=task, tool="python", args=words)
        told = [answer["stdout"]]
        while answer["state"] == "running":
            answer = await m.call("poll", id=answer["id"])
            told.append(answer["stdout"])
        assert len(told) > 1 and "".join(told).count("[jitvault:") == 1
        # the runner's own variable, which has the secrets, is no tool's
        named = await m.python(task, "import os; print([n for n in os.environ if n.startswith(('JITVAULT', 'VAULT'))])")
        assert named["stdout"] == "['JITVAULT_CONTEXT_FILE']\n"

    stage.play(model)


def test_the_secrets_of_another_task_are_masked_also_in_what_was_started_before_it(stage: Stage) -> None:
    waits = """
import os, time
path = os.environ["HOME"] + "/known"
while not os.path.exists(path) or not os.path.getsize(path):
    time.sleep(0.05)
print(open(path).read())
"""

    async def model(m: Model) -> None:
        first = await m.held()
        answer = await m.call("run", task=first, tool="python", args=["-c", waits])
        await m.python(await m.held(), KEEP)
        told = [answer["stdout"]]
        while answer["state"] == "running":
            answer = await m.call("poll", id=answer["id"])
            told.append(answer["stdout"])
        assert ":[jitvault:postgres-readonly.password]@" in "".join(told)
        again = await m.python(first, waits)
        assert ":[jitvault:postgres-readonly.password]@" in again["stdout"]

    stage.play(model)


def test_output_that_is_long_or_no_text(stage: Stage) -> None:
    async def model(m: Model) -> None:
        task = await m.held()
        long = await m.python(task, r"print('\x1b\n' * 5_000_000, end='')")
        assert long["exit_code"] == 0 and "characters of stdout are not shown" in long["cut"]
        other = await m.python(task, r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb'); sys.exit(3)")
        assert other["stdout"] == "a\ufffd\ufffdb" and "no UTF-8" in other["note"] and other["exit_code"] == 3
        echoed = await m.python(
            task, "import sys; print(sys.stdin.read().upper(), sys.argv[1])", "§$ x", stdin="häuser"
        )
        assert echoed["stdout"] == "HÄUSER §$ x\n"

    stage.play(model)


def test_a_long_run_is_polled(stage: Stage) -> None:
    async def model(m: Model) -> None:
        task = await m.held()
        program = "import time; print('first', flush=True); time.sleep(6); print('last')"
        answer = await m.call("run", task=task, tool="python", args=["-c", program])
        told = [answer["stdout"]]
        # others go on meanwhile
        assert answer["state"] == "running" and (await m.python(task, "print(1)"))["stdout"] == "1\n"
        while answer["state"] == "running":
            answer = await m.call("poll", id=answer["id"])
            told.append(answer["stdout"])
        # each part once, in whichever answer a busy machine has it
        assert answer["exit_code"] == 0 and "".join(told) == "first\nlast\n" and len(told) > 1
        assert "nothing runs" in (await m.refused("poll", id=answer["id"]))["error"]

    stage.play(model)


def test_what_is_refused_starts_nothing_and_says_why(stage: Stage) -> None:
    async def model(m: Model) -> None:
        task = await m.held()
        for asked, why in (
            ({"tool": "sh", "args": ["-c", "echo ran"]}, f"task {task} is for python, and not for sh"),
            ({"tool": shutil.which("python")}, "is no name of a tool"),
            ({"tool": "no-such-program"}, "there is no program 'no-such-program' in PATH"),
            ({"tool": "python", "args": ["a\0b"]}, "an argument has a NUL character"),
        ):
            assert why in (await m.refused("run", task=task, **asked))["error"]
        for tool, arguments, why in (
            ("run", {"task": "another", "tool": "python"}, "this server has no task another"),
            ("run", {"task": task}, "run: tool: a value is required"),
            ("extend", {"task": "another", "minutes": 1, "reason": "x"}, "this server has no task another"),
            ("poll", {"id": "run-99"}, "nothing runs by the id"),
            ("nonsense", {}, "there is no tool 'nonsense'"),
            ("request_access", {**READ, "tools": ["sh"]}, "this server does not run sh; it runs python"),
            ("request_access", {**READ, "tools": ["nowhere"]}, "there is no program nowhere"),
            ("request_access", {**READ, "tools": ["python"], "minutes": 90}, "is for 1h at most"),
            ("request_access", {**READ, "tools": ["python"], "parameters": {}}, "parameter database is missing"),
            ("request_access", {**READ, "tools": ["python"], "template": "postgres"}, "there is no template postgres"),
        ):
            assert why in (await m.refused(tool, **arguments))["error"], tool

    stage.play(model, "--tool", "python")


def test_an_approval_is_waited_for_with_progress(rig: Rig, stage: Stage) -> None:
    async def model(m: Model) -> None:
        asked = await m.call("request_access", **WRITE, tools=["python"])
        task = asked["task"]
        assert asked["state"] == "waiting" and asked["next"] == "call wait_for_access"
        assert "jitvault-approvers" in await m.lacking() and m.told
        assert "waits for" in (await m.refused("run", task=task, tool="python"))["error"]
        await anyio.to_thread.run_sync(lambda: rig("approver-1", "approve", task, "--yes"))
        assert (await m.call("wait_for_access", seconds=30))["state"] == "held"
        assert (await m.python(task, COUNT))["exit_code"] == 0

    stage.play(model)


def test_a_denial_and_a_revocation_are_told(rig: Rig, stage: Stage) -> None:
    async def model(m: Model) -> None:
        task = (await m.call("request_access", **WRITE, tools=["python"]))["task"]
        await m.lacking()
        await anyio.to_thread.run_sync(
            lambda: rig("approver-1", "deny", task, "--yes", "--reason", "Not today.", code=None)
        )
        assert f"task {task} is denied" in (await m.refused("wait_for_access", seconds=30))["error"]
        task = await m.held()
        runs = [await m.call("run", task=task, tool="python", args=["-c", each]) for each in (LOSES, WORKS)]
        told = [each["stdout"] for each in runs]
        await anyio.sleep(3)
        await anyio.to_thread.run_sync(lambda: rig("operator", "revoke", task, "--reason", "look", code=None))
        for number, run in enumerate(runs):
            is_error = False
            while not is_error:
                is_error, answer = await m.ask("poll", id=run["id"])
                assert is_error or answer["state"] == "running", answer
                told[number] += answer["stdout"]
            # no program of the model is meant by that of the server
            assert answer["error"].startswith(f"task {task} is over: it is ")
            assert answer["error"].endswith('(revoked by operator: "look")')
        # what was done is told, also where nobody asked before the end
        assert told == ["written\nlost\n", "one\ntwo\n"]

    stage.play(model)


def test_more_time_moves_the_end(rig: Rig, stage: Stage) -> None:
    async def model(m: Model) -> None:
        task = await m.held(minutes=5)
        before = (await m.call("list_access"))["tasks"][0]["until"]
        answer = await m.call("extend", task=task, minutes=5, reason="One table is left.")
        while answer["state"] == "running":
            answer = await m.call("poll", id=answer["id"])
        assert answer["until"] > before and answer["state"] == "held"
        # more than that its token cannot live, and a new one would end its programs
        assert "can be extended until" in (await m.refused("extend", task=task, minutes=6, reason="More."))["error"]
        assert (await m.python(task, COUNT))["exit_code"] == 0

    stage.play(model)


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGKILL"])
def test_however_the_server_ends_nothing_is_left(rig: Rig, stage: Stage, how: str) -> None:
    begun = 0.0
    task = ""

    async def model(m: Model) -> None:
        nonlocal begun, task
        task = await m.held()
        await m.python(task, KEEP)
        await m.call("run", task=task, tool="python", args=["-c", SLEEP])
        assert len(rig.task_tokens(task)) == 1 and logs_in(stage.url)
        begun = time.monotonic()
        if how != "end of input":
            os.kill(stage.server, signal.Signals[how])
            wait_for(lambda: not is_alive(stage.server), 5)

    stage.play(model)
    wait_for(lambda: not is_alive(stage.server), 5)
    ended_s = time.monotonic() - begun
    wait_for(lambda: not is_alive(int((stage.home / "tool").read_text())), 5)
    wait_for(lambda: not rig.task_tokens(task), 5)
    dead_s = time.monotonic() - begun
    wait_for(lambda: not logs_in(stage.url), 10)
    wait_for(lambda: rig.state(task) in ("confirmed", "sealed"), 30)
    assert rig.record(task).task.end_reason == "completed"
    if how != "SIGKILL":
        # by exec itself, and not by the monitor of one that was killed; a kernel that is slow to kill lets it, too
        assert rig("operator", "status", task).json["ended"]["note"] == "the program ended with exit code 0"
    # far from the 2 s that a client waits, which a busy machine misses
    assert ended_s < 5 and dead_s < 6, (ended_s, dead_s)


def test_a_server_that_is_killed_while_it_waits_leaves_nobody_waiting(stage: Stage) -> None:
    def read(path: Path) -> bytes:
        # a process may end meanwhile
        with suppress(OSError):
            return path.read_bytes()
        return b""

    def waiting(task: str) -> list[str]:
        lines = [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [path.parent.name for path in lines if task.encode() in read(path)]

    async def model(m: Model) -> None:
        task = (await m.call("request_access", **WRITE, tools=["python"]))["task"]
        assert waiting(task)
        os.kill(stage.server, signal.SIGKILL)
        wait_for(lambda: not waiting(task), 2)

    stage.play(model)


def test_exec_serves_no_other_program_than_the_runner(rig: Rig, spec: Callable[..., Path]) -> None:
    file = spec(more="  tools: [psql]\n")
    words = ("exec", file, "--mcp-server", str(os.getpid()), "--", "sh", "-c", "echo ran")
    refused = rig.cli("agent", *words, code=125)
    assert "runs its own program" in refused.stderr and "ran\n" not in refused.stdout and rig.state(file.stem) is None


def test_a_request_that_waits_is_withdrawn_at_the_end(rig: Rig, stage: Stage) -> None:
    asked: list[str] = []

    async def model(m: Model) -> None:
        for _ in range(2):
            asked.append((await m.call("request_access", **WRITE, tools=["python"]))["task"])
        await m.call("wait_for_access", seconds=2)
        await m.call("finish", task=asked[0])

    stage.play(model)
    for task in asked:
        wait_for(lambda task=task: rig.state(task) == "cancelled", 10)
