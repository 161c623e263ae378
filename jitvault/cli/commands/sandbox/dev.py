"""`jitvault dev`: run the sandbox in the foreground.

It is meant to be used from a second terminal. The demo runs in such a sandbox as well.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from jitvault import settings
from jitvault.cli.options import Server
from jitvault.cli.sandbox.dev_events import EventFeed
from jitvault.cli.sandbox.dev_files import WatchedFiles
from jitvault.cli.views import dev as view
from jitvault.cli.views import output
from jitvault.cli.views.dev import event_line
from jitvault.errors import InvalidInput, UsageError
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import opened, raw, upgrade
from jitvault.sandbox import target
from jitvault.sandbox.binary import Binary, find_binary
from jitvault.sandbox.keeper import keeping
from jitvault.sandbox.processes import ServerProcess
from jitvault.sandbox.role_files import MCP_FILE, remove_role_files, write_env_file, write_role_files
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned, want_of
from jitvault.wiring import Wiring

_POLL_S = 0.2
_AS_SHIPPED = " (the shipped ones)"
_CONNECTED = ", without TLS; agents connect there, whatever a template's connection says"
SPEC = """\
apiVersion: jitvault.dev/v1
kind: Task
metadata:
  id: {id}
spec:
  agent: research-agent
  owner: data-owner
  intent: {intent}
  criticality: {criticality}
  tools: [psql]
  access:
    - template: postgres-readonly
      with: {{database: app}}
      reason: The orders are in the app database.
  window: {{for: 15m}}
  deliver: agent
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants of the sandbox.

    `server` names the server program, see `find_binary`. `templates` and `policies` are directories that the sandbox
    uses instead of the shipped ones. `env_file` gets everybody's tokens, `env_dir` a file for each role; neither may
    exist.
    """

    server: str | None = None
    templates: Path | None = None
    policies: Path | None = None
    env_file: Path | None = None
    env_dir: Path | None = None


@contextmanager
def sandbox(
    binary: Binary, templates: Path | None = None, policies: Path | None = None
) -> Iterator[tuple[World, dict[str, str]]]:
    """Yield a provisioned world and its environment variables.

    Everything is stopped and removed at the end. Raises InvalidInput for directories that cannot be used.
    """
    with _terminable(), _without_other_settings():
        own = {"JITVAULT_TEMPLATES": templates, "JITVAULT_POLICIES": policies}
        _check_directories(templates, policies)
        with running_servers(binary=binary) as servers:
            world = provisioned(servers, templates)
            spec = servers.directory / "read-orders.yaml"
            intent = "Count last week's orders by region."
            spec.write_text(SPEC.format(id="read-orders", intent=intent, criticality="low"))
            ledger = f"sqlite:///{servers.directory / 'ledger.db'}"
            upgrade(raw(ledger))
            # bound here already, so that nobody who is faster than the worker finds a ledger of nobody's
            Ledger(opened(ledger, create=False)).set_installation(world.installation)
            named = {name: str(path.resolve()) for name, path in own.items() if path is not None}
            yield world, {**env(world, ledger, spec), **named}


def _check_directories(templates: Path | None, policies: Path | None) -> None:
    """Raise InvalidInput for directories that cannot be used.

    No server is started for them.
    """
    if templates is not None and not want_of(templates).templates:
        raise InvalidInput(f"there is no template in {templates}", hint="A template is a file *.yaml, *.yml or *.json.")
    if policies is not None:
        Wiring(settings.load()).policies(policies)


def dev(
    env_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a file for each role into this new directory: operator.env, agent.env, approver-1.env, "
            "approver-2.env, auditor.env, worker.env and admin.env. A shell that sources one is that role alone.",
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Write one file with everybody's tokens, for scripts: who sources it can act as anybody. It is "
            "complete once it exists.",
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The access templates to provision and check, instead of the shipped ones. JITVAULT_TEMPLATES is for "
            "other Vaults and is ignored.",
        ),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The Cedar policies of the sandbox's worker, instead of the shipped ones. JITVAULT_POLICIES is for "
            "other Vaults and is ignored.",
        ),
    ] = None,
    server: Server = None,
) -> None:
    """Run a provisioned sandbox in the foreground until Ctrl-C.

    The command prints where everything is, the roles and the first commands, and then a line for each event. Its worker
    reads templates and policies when it starts, and again when you edit them.

    Example: jitvault dev --env-dir dev
    """
    foreground(Wish(server, templates, policies, env_file, env_dir))


def foreground(wish: Wish) -> None:
    """Run the sandbox until Ctrl-C or SIGTERM, and print what happens in it.

    The files that `wish` names are created, complete, when everything is ready. A keeper process renews tasks and does
    what is due. Where that process ends, the servers stay: whoever practises how to refuse a stolen worker needs them
    for the rest. Raises UsageError where one of the files exists.
    """
    for path, what in ((wish.env_file, "file"), (wish.env_dir, "directory")):
        if path is not None and path.exists():
            raise UsageError(f"{path} exists already", hint=f"Another sandbox may be using it. Name a new {what}.")
    ignored = [name for name in ("JITVAULT_TEMPLATES", "JITVAULT_POLICIES") if os.environ.get(name)]
    binary = find_binary(wish.server)
    try:
        with (
            sandbox(binary, wish.templates, wish.policies) as (world, variables),
            keeping(world.servers.directory, variables) as keeper,
        ):
            ledger = Ledger(opened(variables["JITVAULT_LEDGER"], create=False))
            _write_files(wish, variables, binary.path)
            _announce(binary, world, variables, wish, ignored)
            feed = EventFeed(ledger, {entity: name for name, entity in world.entity_ids.items()})
            watched = WatchedFiles(filter(None, (wish.templates, wish.policies)))
            _follow(feed, lambda: keeper.exit_code is None, lambda: _news_of_files(watched, wish, keeper))
            sys.stderr.write(
                f"\nThe sandbox keeps running, but its worker has ended. The end of its log:\n{keeper.last_words()}\n"
                "Nothing renews or ends tasks by itself until you start one in a second terminal: `jitvault worker`.\n"
            )
            _follow(feed, lambda: True, lambda: "")
    except KeyboardInterrupt:
        sys.stderr.write("\nThe sandbox is stopped and removed.\n")
    finally:
        if wish.env_file is not None:
            wish.env_file.unlink(missing_ok=True)
        if wish.env_dir is not None:
            remove_role_files(wish.env_dir)


def _news_of_files(watched: WatchedFiles, wish: Wish, keeper: ServerProcess) -> str:
    """Make the worker read edited files again; return what to print of it."""
    # a worker that has said nothing yet may not handle the signal: it would end
    if not keeper.said() or not watched.changed():
        return ""
    try:
        _check_directories(wish.templates, wish.policies)
    except InvalidInput as error:
        return f"not read; the worker keeps those of before\n  {error}"
    keeper.send(signal.SIGHUP)
    return "edited files are read again"


def _follow(feed: EventFeed, goes_on: Callable[[], bool], news_of_files: Callable[[], str]) -> None:
    """Print each event, and the news of files, as long as `goes_on` says so."""
    console = output.console()
    # a line is cut where a terminal would fold it, and whole in a file or a pipe
    width = console.width if console.is_terminal else sys.maxsize
    while goes_on():
        if news := news_of_files():
            what, *whole = news.split("\n", 1)
            typer.echo("\n".join([event_line(rfc3339(datetime.now(UTC)), "sandbox", what, width), *whole]))
        for line in feed.lines(width):
            typer.echo(line)
        time.sleep(_POLL_S)


def _write_files(wish: Wish, variables: dict[str, str], server: Path) -> None:
    if wish.env_dir is not None:
        write_role_files(wish.env_dir, variables, server)
    if wish.env_file is not None:
        write_env_file(wish.env_file, variables)


def _announce(binary: Binary, world: World, variables: dict[str, str], wish: Wish, ignored: Sequence[str]) -> None:
    """Print where everything is, the roles, and the first commands."""
    postgres = world.servers.postgres
    facts = {
        "server": f"{binary.release} at {world.address}",
        "target": f"postgresql://{postgres.host}:{postgres.port}/{target.DATABASE}{_CONNECTED}",
        "ledger": variables["JITVAULT_LEDGER"],
        "audit log": variables["JITVAULT_AUDIT_FILE"],
        "templates": variables["JITVAULT_TEMPLATES"] + ("" if wish.templates else _AS_SHIPPED),
        "policies": variables.get("JITVAULT_POLICIES", "those that ship with jitvault"),
    }
    console = output.console()
    console.print("The sandbox is ready")
    output.print_facts(console, facts)
    for name in ignored:
        option = f"--{name.removeprefix('JITVAULT_').lower()} DIR"
        console.print(f"{name} is set for another Vault and is not used here: {option} names a directory.")
    for name, check in world.failed_checks.items():
        console.print(f"Nothing is granted by the template {name}: {check.why}")
        console.print(f"  in {check.file}", soft_wrap=True)
        output.print_facts(console, {"mend": check.mend} if check.mend else {})
        console.print(f"  then, as admin: jitvault templates check {name}", soft_wrap=True)
    console.print("Roles")
    output.print_facts(console, view.ROLE_WORDS)
    has_example = "postgres-readonly" in world.templates
    if wish.env_dir is not None:
        be = {role: [f"source {shlex.quote(str(wish.env_dir / f'{role}.env'))}"] for role in ("operator", "agent")}
        commands = view.first_commands(be["operator"], be["agent"], has_example=has_example)
        console.print("In a second terminal, as the operator, then as the agent (each role has such a file):")
    elif wish.env_file is not None:
        source = f"source {shlex.quote(str(wish.env_file))}"
        be_operator, be_agent = (f"export VAULT_TOKEN=$JITVAULT_{role}_TOKEN" for role in ("OPERATOR", "AGENT"))
        commands = view.first_commands([source, be_operator], [be_agent], has_example=has_example)
        console.print("In a second terminal; the file has everybody's tokens, --env-dir DIR makes one for each role:")
    else:
        commands = []
        console.print("A second terminal can use it with --env-dir DIR, which makes a file for each role.")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)
    if wish.env_dir is not None:
        console.print(f"An MCP client whose model is the agent has {wish.env_dir / MCP_FILE}", soft_wrap=True)
    console.print("Ctrl-C stops it and removes everything. What happens (UTC):")


@contextmanager
def _without_other_settings() -> Iterator[None]:
    """Remove the operator's settings from the environment meanwhile.

    Those of PostgreSQL's library are removed as well.
    """
    names = [name for name in os.environ if name in settings.variables() or name.startswith("PG")]
    before = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the sandbox as Ctrl-C does.

    Everything is cleaned up.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
