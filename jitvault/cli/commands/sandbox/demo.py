"""`jitvault demo`: one task from request to seal on real servers.

It is done by the commands that people type, and by a worker that runs beside them. Each step is a child process with
one person's environment, so what is shown is what the product does. The wrapping token and the database login go
through files with mode 0600, and are never shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from jitvault.cli.commands.sandbox.dev import SPEC, sandbox
from jitvault.cli.folding import folded
from jitvault.cli.options import Server
from jitvault.cli.quiet import is_for_program
from jitvault.cli.views import output
from jitvault.errors import JitvaultError
from jitvault.model.states import State
from jitvault.sandbox.binary import find_binary
from jitvault.sandbox.keeper import keeping
from jitvault.sandbox.world import World

if TYPE_CHECKING:
    import psycopg

TASK = "count-orders"
_SEAL_S = 30.0
"""How long the worker may take to seal the task, with its settle window."""
_POLL_S = 0.2
_PEOPLE = {
    "admin": "JITVAULT_ADMIN_TOKEN",
    "operator": "JITVAULT_OPERATOR_TOKEN",
    "approver-1": "JITVAULT_APPROVER_1_TOKEN",
    "research-agent": "JITVAULT_AGENT_TOKEN",
    "auditor": "JITVAULT_AUDITOR_TOKEN",
}


def demo(server: Server = None) -> None:
    """Run one task from its request to its seal on real servers.

    The demo starts a real Vault and a real PostgreSQL, and stops and removes them at the end.

    Example: jitvault demo
    """
    started = time.monotonic()
    console = output.console(quiet=is_for_program())
    binary = find_binary(server)
    console.print(f"Starting {binary.release} and PostgreSQL, provisioned as an administrator would …")
    with sandbox(binary) as (world, variables), keeping(world.servers.directory, variables):
        story = _Story(world, variables, console, as_json=is_for_program())
        result = story.play()
    result["seconds"] = round(time.monotonic() - started, 1)
    output.print_for_program(result)
    console.print(f"\nReport   {result['report']}\nReceipt  {result['receipt']}", soft_wrap=True)
    console.print(f"Done in {result['seconds']} s; both servers are gone.")


class _Story:
    """Runs the steps of the demo, prints them and collects their answers."""

    def __init__(self, world: World, variables: dict[str, str], console: Console, *, as_json: bool) -> None:
        self.world = world
        self.variables = variables
        self.console = console
        self.as_json = as_json
        self.files = world.servers.directory
        self.steps: list[dict[str, Any]] = []

    def play(self) -> dict[str, Any]:
        """Run all steps and return what `--json` prints. Raises JitvaultError."""
        secrets = self.files / "secrets.json"
        spec = self.files / f"{TASK}.yaml"
        intent = "Count the orders for the weekly report."
        spec.write_text(SPEC.format(id=TASK, intent=intent, criticality="medium"))
        self.step("Vault is provisioned", "admin", "init", "--plan")
        self.step("Medium risk: one approval is missing", "operator", "grant", str(spec), code=4)
        self.step("An approver reads what it grants, and signs", "approver-1", "approve", TASK, "--yes")
        self.step("Granted: a token in a wrapping, in the agent's inbox", "operator", "grant", TASK)
        self.step(
            "The agent unwraps it and reads its own database login",
            *("research-agent", "unwrap", TASK, "--read", "--out", str(secrets)),
        )
        login = json.loads(secrets.read_text())["secrets"][0]["fields"]
        connection = self.use(login)
        proof = self.step("Done: revoke, look up, probe, prove", "operator", "complete", TASK)
        self.check_refused(login, connection)
        settle_s = int(self.variables["JITVAULT_SETTLE_WINDOW"].rstrip("s"))
        self.note(f"The settle window, {settle_s} s: a late lease would appear now")
        self.wait_for_seal()
        sealed = self.step("Sealed: nothing of it can come back", "operator", "status", TASK)
        return {
            "task_id": TASK,
            "state": self.state(sealed),
            "steps": self.steps,
            "proof": proof,
            **self.write_documents(),
        }

    def wait_for_seal(self) -> None:
        """Wait until the worker has sealed the task. Raises JitvaultError where it does not."""
        until = time.monotonic() + _SEAL_S
        while self.run("operator", "status", TASK, "--json")[0]["state"] != State.SEALED:
            if time.monotonic() > until:
                raise JitvaultError(f"the worker has not sealed the task within {_SEAL_S:g} s")
            time.sleep(_POLL_S)

    def use(self, login: dict[str, str]) -> psycopg.Connection[Any]:
        connection = self.connect(login)
        row = connection.execute("SELECT count(*) FROM orders").fetchone()
        self.note(f"The agent's query finds {row[0] if row else 0} orders; its connection stays open")
        return connection

    def check_refused(self, login: dict[str, str], connection: psycopg.Connection[Any]) -> None:
        """Use the connection and the login as an agent would that kept both.

        Raises JitvaultError if one works.
        """
        import psycopg

        tries: dict[str, Callable[[], object]] = {
            "The open connection": lambda: connection.execute("SELECT 1"),
            "The kept login": lambda: self.connect(login),
        }
        for what, attempt in tries.items():
            try:
                attempt()
            except psycopg.OperationalError as error:
                reason = str(error).strip().splitlines()[0].rpartition("FATAL: ")[2].strip()
                self.note(f"{what} is refused: {reason}")
            else:
                raise JitvaultError(f"{what.lower()} still works after the task was confirmed")

    def connect(self, login: dict[str, str]) -> psycopg.Connection[Any]:
        import psycopg

        dsn = self.world.servers.postgres.dsn("app", user=login["username"], password=login["password"])
        return psycopg.connect(dsn, autocommit=True)

    def write_documents(self) -> dict[str, str]:
        """Write report and receipt, and return their paths.

        Their directory stays when the sandbox is removed.
        """
        directory = Path(tempfile.mkdtemp(prefix="jitvault-demo-"))
        report = directory / "report.json"
        receipt = directory / "receipt.json"
        self.step(
            "For the auditor: one row a lease, and the signed receipt",
            *("auditor", "report", TASK, "--out", str(report), "--receipt", str(receipt)),
        )
        return {"report": str(report), "receipt": str(receipt)}

    def state(self, shown: dict[str, Any]) -> str:
        if self.as_json:
            return str(shown["state"])
        return str(self.run("operator", "status", TASK, "--json")[0]["state"])

    def step(self, title: str, who: str, *command: str, code: int = 0) -> dict[str, Any]:
        """Run one command as one person, and show what it prints.

        Returns the command's JSON answer where the demo prints JSON.
        """
        typed = " ".join(Path(word).name if word.startswith("/") else word for word in command)
        self.console.print(f"\n{len(self.steps) + 1}. {title}", style="bold cyan")
        self.console.print(f"{who}$ jitvault {typed}", style="dim")
        wants_json = self.as_json and "--out" not in command
        answer, shown = self.run(who, *command, *(["--json"] if wants_json else []), code=code)
        # in the colours that the command itself printed
        self.console.print(Text.from_ansi("\n".join(map(self._fitting, shown.rstrip().split("\n")))), soft_wrap=True)
        self.steps.append({"title": title, "who": who, "command": typed, "exit_code": code, "answer": answer})
        return answer

    def _fitting(self, line: str) -> str:
        """Fold a line at words, as the command itself does at a terminal.

        It writes to a pipe here, where a message or a hint is one line.
        """
        is_wide = self.console.is_terminal and len(line) > self.console.width and "\x1b" not in line
        return folded(line, self.console.width, rest="  ", keep_commands=True) if is_wide else line

    def run(self, who: str, *command: str, code: int = 0) -> tuple[dict[str, Any], str]:
        environment = {**os.environ, **self.variables, "VAULT_TOKEN": self.variables[_PEOPLE[who]]}
        # what `unwrap` remembers of these wrappings is of no use afterwards
        environment["XDG_STATE_HOME"] = str(self.files)
        hidden = [*_PEOPLE.values(), "JITVAULT_WORKER_TOKEN"]
        for name in hidden:
            environment.pop(name, None)
        environment["COLUMNS"] = str(self.console.width)
        if self.console.is_terminal:
            environment["FORCE_COLOR"] = "1"
        argv = [sys.executable, "-m", "jitvault", *command]
        # one stream, so that errors and results keep the order in which a person would see them
        errors = subprocess.PIPE if "--json" in command else subprocess.STDOUT
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)  # noqa: S603
        if done.returncode != code:
            printed = (done.stderr or done.stdout).strip()
            raise JitvaultError(f"`jitvault {command[0]}` ended with {done.returncode}: {printed}")
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        return answer, done.stdout

    def note(self, text: str) -> None:
        """Print a numbered line without a command; record it as a step."""
        self.console.print(f"\n{len(self.steps) + 1}. {text}", style="bold cyan")
        self.steps.append({"title": text, "who": "", "command": "", "exit_code": 0, "answer": {}})
