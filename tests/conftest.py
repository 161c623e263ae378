"""What all tests share: one provisioned world of real servers for each test process, and the CLI as a user has it.

There is no mock of Vault, PostgreSQL or the audit log. A server that does not start fails the run.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jitvault import shipped
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background of a script: children would inherit that they cannot be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "read-orders.yaml"
PEOPLE = {
    "operator": "JITVAULT_OPERATOR_TOKEN",
    "approver-1": "JITVAULT_APPROVER_1_TOKEN",
    "approver-2": "JITVAULT_APPROVER_2_TOKEN",
    "agent": "JITVAULT_AGENT_TOKEN",
    "auditor": "JITVAULT_AUDITOR_TOKEN",
    "admin": "JITVAULT_ADMIN_TOKEN",
}

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
    """`jitvault …` in a child process with one person's environment."""

    def __init__(self, variables: dict[str, str], home: Path) -> None:
        self.variables = variables
        self.home = home
        self.transcript: list[tuple[str, Result]] = []

    def environment(self, who: str | None, *, worker: bool = True) -> dict[str, str]:
        people = {PEOPLE[name] for name in PEOPLE}
        shared = {k: v for k, v in self.variables.items() if k not in people}
        if not worker:
            # a person's own machine: no worker's identity, no ledger, no audit file
            for name in ("JITVAULT_WORKER_TOKEN", "JITVAULT_LEDGER", "JITVAULT_AUDIT_FILE"):
                shared.pop(name)
        base = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        token = {"VAULT_TOKEN": self.variables[PEOPLE[who]]} if who else {}
        return {**base, "HOME": str(self.home), "COLUMNS": "100", **shared, **token}

    def __call__(
        self,
        who: str | None,
        *args: str | Path,
        code: int | None = 0,
        worker: bool = True,
        given: str = "",
        extra: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run it; `code` is the exit code that is asserted, None for any."""
        argv = [sys.executable, "-m", "jitvault", *map(str, args)]
        done = subprocess.run(
            argv,
            env={**self.environment(who, worker=worker), **(extra or {})},
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        self.transcript.append((" ".join(map(str, args)), result))
        assert code is None or result.code == code, (args, result)
        assert "Traceback" not in result.stderr, result.stderr
        return result


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """An OpenBao and a PostgreSQL, provisioned. Tests share it, so each uses task ids of its own."""
    with running_servers() as servers:
        yield provisioned(servers)


@pytest.fixture(scope="module")
def variables(world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of everybody, with a ledger for each module: two that are used by turns freeze each other."""
    made = env(world, f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}", EXAMPLE)
    if request.path.parent.name == "integration":
        # one agent trips there on purpose and takes leases by the hundred: that would end with the first test
        made["JITVAULT_POLICIES"] = str(without_limits(tmp_path_factory.mktemp("policies")))
    return made


def without_limits(directory: Path) -> Path:
    """The shipped policies in `directory`, but for what limits an agent by what it did or holds."""
    directory.mkdir(exist_ok=True)
    for path in (shipped.policies_dir() / "cedar").iterdir():
        if path.name != "limits.cedar":
            (directory / path.name).write_text(path.read_text())
    return directory


@pytest.fixture
def cli(variables: dict[str, str], tmp_path: Path) -> Cli:
    return Cli(variables, tmp_path)


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Write a task spec with an id of its own: `spec(criticality="medium")` gives the file; its stem is the id."""
    numbers = itertools.count()

    def write(
        *,
        task: str | None = None,
        criticality: str = "low",
        template: str = "postgres-readonly",
        window: str = "15m",
        intent: str = "Count the orders.",
        choices: str = "{database: app}",
        more: str = "",
    ) -> Path:
        name = task or f"t{secrets.token_hex(4)}-{next(numbers)}"
        path = tmp_path / f"{name}.yaml"
        text = SPEC.format(id=name, criticality=criticality, template=template, window=window, intent=intent, more=more)
        path.write_text(text.replace("{database: app}", choices))
        return path

    return write
