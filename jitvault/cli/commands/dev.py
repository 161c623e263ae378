"""`jitvault dev`: run the sandbox in the foreground.

It is meant to be used from a second terminal. The demo runs in such a sandbox as well.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jitvault import settings
from jitvault.errors import UsageError
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import opened, raw, upgrade
from jitvault.sandbox.binary import Binary, find_binary
from jitvault.sandbox.keeper import keeping
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned

_POLL_S = 0.2
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
"""


@contextmanager
def sandbox(binary: Binary) -> Iterator[tuple[World, dict[str, str]]]:
    """Yield a provisioned world and its environment variables.

    Everything is stopped and removed at the end.
    """
    with _terminable(), _without_other_settings(), running_servers(binary=binary) as servers:
        world = provisioned(servers)
        spec = servers.directory / "read-orders.yaml"
        spec.write_text(SPEC.format(id="read-orders", intent="Count last week's orders by region.", criticality="low"))
        ledger = f"sqlite:///{servers.directory / 'ledger.db'}"
        upgrade(raw(ledger, create=True))
        # bound here already, so that nobody who is faster than the worker finds a ledger of nobody's
        Ledger(opened(ledger, create=False)).set_installation(world.installation)
        yield world, env(world, ledger, spec)


def foreground(env_file: Path | None, server: str | None) -> None:
    """Run the sandbox until Ctrl-C or SIGTERM.

    `env_file` is created, complete, when everything is ready. `server` names the server program, see `find_binary`. A
    keeper process renews tasks and does what is due. Where that process ends, the servers stay: whoever practises how
    to refuse a stolen worker needs them for the rest. Raises UsageError where `env_file` exists.
    """
    if env_file is not None and env_file.exists():
        raise UsageError(f"{env_file} exists already", hint="Another sandbox may be using it. Name a new file.")
    binary = find_binary(server)
    try:
        with sandbox(binary) as (world, variables), keeping(world.servers.directory, variables) as keeper:
            _announce(binary, world, variables, env_file)
            while keeper.exit_code is None:
                time.sleep(_POLL_S)
            sys.stderr.write(
                f"\nThe sandbox keeps running, but its worker has ended:\n{keeper.last_words()}\n"
                "Nothing renews or ends tasks by itself until you start one in a second terminal: `jitvault worker`.\n"
            )
            while True:
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        sys.stderr.write("\nThe sandbox is stopped and removed.\n")
    finally:
        if env_file is not None:
            env_file.unlink(missing_ok=True)


def _announce(binary: Binary, world: World, variables: dict[str, str], env_file: Path | None) -> None:
    sys.stderr.write(f"{binary.release} is at {world.address}, PostgreSQL on port {world.servers.postgres.port}.\n")
    if env_file is None:
        sys.stderr.write("Without --env-file it cannot be used from a second terminal.")
    else:
        others = [name for name in settings.variables() if name not in variables]
        # what is set there for other servers must not be mixed with this
        lines = f"unset {' '.join(others)}\n"
        lines += "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
        _write_whole(env_file, lines)
        sys.stderr.write(f"In a second terminal: source {env_file}")
    sys.stderr.write("\nCtrl-C stops it and removes everything.\n")


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is complete from the moment it exists.

    Only its owner can read it. Raises UsageError.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


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
