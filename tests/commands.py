"""The CLI as people have it: with their environment, in a process of its own or, ten times as fast, in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from unittest import mock

from beside import at_work, end_frozen, is_beside, looks_at, turn
from forked import forked_at, run_forked

from jitvault import shipped_files as shipped
from jitvault.cli import app
from jitvault.engines import installed
from jitvault.errors import JitvaultError
from jitvault.sandbox.binary import find_binary
from jitvault.settings import Settings

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "read-orders.yaml"
PEOPLE = {
    "operator": "JITVAULT_OPERATOR_TOKEN",
    "approver-1": "JITVAULT_APPROVER_1_TOKEN",
    "approver-2": "JITVAULT_APPROVER_2_TOKEN",
    "agent": "JITVAULT_AGENT_TOKEN",
    "auditor": "JITVAULT_AUDITOR_TOKEN",
    "admin": "JITVAULT_ADMIN_TOKEN",
}

# the server's own program, which hints name
SERVER = find_binary().product.command

SPEC = """\
apiVersion: jitvault.dev/v1
kind: Task
metadata: {{id: {id}}}
spec:
  agent: research-agent
  owner: data-owner
  intent: {intent}
  criticality: {criticality}
  access:
    - template: {template}
      with: {{database: app}}
  window: {{for: {window}}}
{more}"""


def without_limits(directory: Path) -> Path:
    """The shipped policies in `directory`, but for what limits an agent by what it did or holds."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in (shipped.policies_dir() / "cedar").iterdir():
        if path.name != "limits.cedar":
            (directory / path.name).write_text(path.read_text())
    return directory


def look_for_engines_once() -> None:
    """Let all commands of this process share what is installed, as long as it looks in the same places for it.

    A command is a process of its own elsewhere, which reads the metadata of all packages for that.
    """

    @cache
    def found(group: str, places: tuple[str, ...]) -> EntryPoints:
        return entry_points(group=group)

    installed.entry_points = lambda *, group: found(group, tuple(sys.path))  # type: ignore[attr-defined,assignment]


def read_each_environment_once() -> None:
    """Let all commands of this process that have the same environment take the settings' texts out of it once.

    A command is a process of its own elsewhere. Here thousands of them run in one, and that took a fifteenth of their
    time. What is made of the texts is made for each.
    """
    take, taken = Settings._settings_build_values, dict[tuple[tuple[str, str], ...], dict[str, Any]]()

    def once(sources: Any, given: dict[str, Any]) -> dict[str, Any]:
        environment = tuple(os.environ.items())
        if environment not in taken:
            taken[environment] = take(sources, given)
        return dict(taken[environment])

    Settings._settings_build_values = staticmethod(once)  # type: ignore[method-assign,assignment]


@dataclass(frozen=True)
class Result:
    """How one command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error that a command with --json printed to stderr."""
        last = self.stderr[self.stderr.index('{\n  "error"') :]
        found: dict[str, Any] = json.loads(last)["error"]
        return found


class Cli:
    """`jitvault …` in a child process with one person's environment.

    A worker takes its turns where a command waits for one, and before `status` (`beside.py`). `alone` is a command with
    the worker's identity where no worker runs; `worker` False is a person's own machine, with no worker beside it
    either.
    """

    def __init__(self, variables: dict[str, str], home: Path) -> None:
        self.variables = variables
        self.home = home
        self.transcript: list[tuple[str, Result]] = []

    def environment(self, who: str | None, *, worker: bool = True) -> dict[str, str]:
        people = {PEOPLE[name] for name in PEOPLE}
        shared = {k: v for k, v in self.variables.items() if k not in people}
        if not worker:
            # a person's own machine: no worker's identity, no ledger, no audit file
            own = ("JITVAULT_WORKER_", "JITVAULT_LEDGER", "JITVAULT_AUDIT_FILE")
            shared = {name: value for name, value in shared.items() if not name.startswith(own)}
        # the last says whose jitvault is tested: a copy with a mutation, or the checkout
        base = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
        token = {"VAULT_TOKEN": self.variables[PEOPLE[who]]} if who else {}
        return {**base, "HOME": str(self.home), "COLUMNS": "100", **shared, **token}

    def turn(self, task: str, *, code: int = 0, extra: dict[str, str] | None = None) -> JitvaultError | None:
        """Let a worker do what is due for the task; `code` is that of what keeps it from that, 0 for nothing."""
        failure = turn({**self.environment(None), **(extra or {})}, task)
        assert (failure.exit_code if failure else 0) == code, failure
        return failure

    def __call__(
        self,
        who: str | None,
        *args: str | Path,
        code: int | None = 0,
        worker: bool = True,
        alone: bool = False,
        given: str = "",
        extra: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run it; `code` is the exit code that is asserted, None for any."""
        environment = {**self.environment(who, worker=worker), **(extra or {})}
        beside = not alone and is_beside(environment)
        if beside and (task := looks_at(args)):
            assert turn(environment, task) is None or code != 0, args
        done = run_forked(args, environment, given, timeout, beside=beside)
        if beside and args[0] == "freeze":
            end_frozen(environment)
        result = Result(done.returncode, done.stdout, done.stderr)
        self.transcript.append((" ".join(map(str, args)), result))
        assert code is None or result.code == code, (args, result)
        assert "Traceback" not in result.stderr, result.stderr
        return result


def at_terminal(
    cli: Cli, who: str, *args: str, answer: str = "", question: str = "[y/N]: ", width: int = 80, **extra: str
) -> Result:
    """The command as it is typed on a terminal, which shows both of its streams; `answer` is typed at its question."""
    ours, its = pty.openpty()
    # both sizes: otherwise a dumb terminal has 80 columns
    plain = {"COLUMNS": str(width), "LINES": "40", "NO_COLOR": "1", "TERM": "dumb"}
    environment = {**cli.environment(who), **plain, **extra}
    seen, is_asked = b"", False
    with forked_at(Path(os.ttyname(its)), args, environment, beside=is_beside(environment)) as process:
        while ours in wait([ours, process.sentinel], timeout=60):
            seen += os.read(ours, 4096)
            if question.encode() in seen and not is_asked:
                is_asked = True
                os.write(ours, f"{answer}\n".encode())
        code = process.wait(60)
    os.close(its)
    os.close(ours)
    return Result(code, seen.decode().replace("\r", ""), "")


class Quick(Cli):
    """The same through the same `main`, without a process for each. Not for two threads at once.

    For tests of what a command decides. Where the process itself matters (its start, its end, two at once, its
    output as a whole), tests use `Cli`.
    """

    def __call__(
        self,
        who: str | None,
        *args: str | Path,
        code: int | None = 0,
        worker: bool = True,
        alone: bool = False,
        given: str = "",
        extra: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        out, err, ended = io.StringIO(), io.StringIO(), 0
        environment = {**self.environment(who, worker=worker), **(extra or {})}
        beside = not alone and is_beside(environment)
        if beside and (task := looks_at(args)):
            assert turn(environment, task) is None or code != 0, args
        with (
            at_work() if beside else contextlib.nullcontext(),
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "argv", ["jitvault", *map(str, args)]),
            mock.patch.object(sys, "stdin", io.StringIO(given)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                app.main()
            except SystemExit as end:
                ended = int(end.code or 0)
        if beside and args[0] == "freeze":
            end_frozen(environment)
        result = Result(ended, out.getvalue(), err.getvalue())
        self.transcript.append((" ".join(map(str, args)), result))
        assert code is None or result.code == code, (args, result)
        assert "Traceback" not in result.stderr, result.stderr
        return result
