"""`jitvault dev` and `jitvault demo` as a newcomer runs them: real servers that come, and go without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from newcomer import COMMAND, ELSEWHERE, environment

from jitvault.cli.commands.sandbox.demo import _Story
from jitvault.cli.views import output
from jitvault.sandbox.world import World

VARIABLES = {
    *("VAULT_ADDR", "JITVAULT_LEDGER", "JITVAULT_AUDIT_FILE", "JITVAULT_ADMIN_TOKEN", "JITVAULT_WORKER_TOKEN"),
    *("JITVAULT_OPERATOR_TOKEN", "JITVAULT_APPROVER_1_TOKEN", "JITVAULT_APPROVER_2_TOKEN", "JITVAULT_AGENT_TOKEN"),
    *("JITVAULT_AUDITOR_TOKEN", "JITVAULT_TARGET_DSN", "JITVAULT_EXAMPLE_SPEC"),
}


@dataclass
class Dev:
    """A running `jitvault dev`."""

    process: subprocess.Popen[str]
    env_file: Path
    directory: Path
    servers: set[int]

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """What a second terminal would do."""
        whole = f"source {shlex.quote(str(self.env_file))} && {script}"
        argv = ["bash", "-c", whole]
        return subprocess.run(
            argv,
            env={**ELSEWHERE, **environment(self.directory)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def variables(self) -> dict[str, str]:
        lines = self.env_file.read_text().splitlines()
        words = (shlex.split(line)[1] for line in lines if line.startswith("export "))
        return dict(word.split("=", 1) for word in words)

    def gone(self, number: signal.Signals) -> tuple[int, str]:
        """End it with a signal; gives its exit code and what it said. Fails when a server outlives it."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        assert [pid for pid in self.servers if alive(pid)] == []
        return self.process.returncode, said


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def below(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | below(child)
    return found


@contextlib.contextmanager
def developing(directory: Path) -> Iterator[Dev]:
    env_file = directory / "env"
    argv = [*COMMAND, "dev", "--env-file", str(env_file)]
    process = subprocess.Popen(
        argv, env={**ELSEWHERE, **environment(directory)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 40
        while not env_file.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Dev(process, env_file, directory, below(process.pid))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Not pytest's own: as root, PostgreSQL runs as somebody else, who has to get to its files."""
    with tempfile.TemporaryDirectory(prefix="jitvault-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_two_sandboxes_run_side_by_side_and_leave_nothing_behind(directory: Path) -> None:
    with developing(directory / "one") as one, developing(directory / "two") as two:
        for dev in (one, two):
            assert stat.S_IMODE(dev.env_file.stat().st_mode) == 0o600
            assert dev.variables().keys() >= VARIABLES and all(dev.variables().values())
            # both servers, and what keeps tasks alive
            assert len(dev.servers) >= 3 and list((dev.directory / "tmp").iterdir())
            # the same task in both: they share nothing
            script = "VAULT_TOKEN=$JITVAULT_OPERATOR_TOKEN jitvault grant $JITVAULT_EXAMPLE_SPEC --json"
            granted = dev.shell(script)
            assert granted.returncode == 0, granted
            taken = dev.shell("VAULT_TOKEN=$JITVAULT_AGENT_TOKEN jitvault unwrap read-orders --json")
            assert taken.returncode == 0 and json.loads(taken.stdout)["token"], taken
        assert one.variables()["VAULT_ADDR"] != two.variables()["VAULT_ADDR"]
        assert one.servers.isdisjoint(two.servers)

        # the worker of a sandbox ends where somebody refuses it, as those do who practise break glass
        (keeper,) = (pid for pid in one.servers if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
        os.kill(keeper, signal.SIGKILL)
        while alive(keeper):
            time.sleep(0.02)
        time.sleep(0.5)
        shown = one.shell("VAULT_TOKEN=$JITVAULT_OPERATOR_TOKEN jitvault complete read-orders --json")
        assert shown.returncode == 0 and json.loads(shown.stdout)["confirmed"], shown

        for dev, number in ((one, signal.SIGINT), (two, signal.SIGTERM)):
            code, said = dev.gone(number)
            assert ("its worker has ended" in said) is (dev is one)
            assert code == 0 and "The sandbox is stopped and removed." in said and "Traceback" not in said
            assert not dev.env_file.exists()
            assert list((dev.directory / "tmp").iterdir()) == []
            if dev is one:
                shown = two.shell("VAULT_TOKEN=$JITVAULT_OPERATOR_TOKEN jitvault list --json")
                assert [task["task_id"] for task in json.loads(shown.stdout)["tasks"]] == ["read-orders"]


def test_dev_does_not_write_over_a_file_nor_remove_it(directory: Path) -> None:
    env_file = directory / "mine"
    env_file.write_text("precious")
    argv = [*COMMAND, "dev", "--env-file", str(env_file)]
    done = subprocess.run(argv, env=environment(directory), capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, "") and str(env_file) in done.stderr
    assert env_file.read_text() == "precious"


def test_dev_with_a_place_that_cannot_be_written_is_2_and_leaves_nothing(directory: Path) -> None:
    argv = [*COMMAND, "dev", "--env-file", str(directory / "no" / "such" / "env")]
    own = environment(directory / "three")
    done = subprocess.run(argv, env=own, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 2 and "cannot be written" in done.stderr
    assert list(Path(own["TMPDIR"]).iterdir()) == []


def test_the_demo_shows_a_command_in_the_colours_that_it_has_on_a_terminal(
    world: World, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    story = _Story(world, variables, output.console(), as_json=False)
    story.step("What can be asked for", "operator", "templates", "list")
    shown = capsys.readouterr().out
    assert "postgres-readonly" in shown
    assert "\x1b[1m" in shown and r"\x1b" not in shown


def test_the_demo_folds_a_hint_at_words_as_the_command_does_on_a_terminal(
    world: World, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    story = _Story(world, variables, output.console(), as_json=False)
    story.step("What nobody may end", "approver-1", "freeze", "--all", "--reason", "x", "--yes", code=10)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert len(shown) > 5 and max(map(len, shown)) <= 80, shown
