"""Run `jitvault worker` as a child process of a sandbox.

It renews and ends the sandbox's tasks while a person works by hand.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jitvault.sandbox.lifecycle import MINIMAL_ENVIRONMENT
from jitvault.sandbox.processes import Command, ServerProcess

# of all tokens only the worker's
_NEEDED = (
    "VAULT_ADDR",
    "JITVAULT_LEDGER",
    "JITVAULT_AUDIT_FILE",
    "JITVAULT_SETTLE_WINDOW",
    "JITVAULT_SHARED_HOSTS",
    "JITVAULT_SANDBOX_TARGET",
    "JITVAULT_WORKER_TOKEN",
)
# set where the sandbox does not use the shipped files
_POSSIBLE = ("JITVAULT_TEMPLATES", "JITVAULT_POLICIES")


@contextmanager
def keeping(directory: Path, variables: Mapping[str, str]) -> Iterator[ServerProcess]:
    """Yield the running worker, which is stopped at the end of the block.

    It dies with this process. Its output is in `keeper.log`. `variables` are those of `jitvault.sandbox.world.env`.
    """
    own = {name: variables[name] for name in _POSSIBLE if name in variables}
    needed = {name: variables[name] for name in _NEEDED}
    environment = {**MINIMAL_ENVIRONMENT, "HOME": str(directory), **needed, **own}
    keeper = ServerProcess(
        Command(
            arguments=(sys.executable, "-m", "jitvault", "worker", "--sweep-every", "never"),
            directory=directory,
            log_file=directory / "keeper.log",
            environment=environment,
        )
    )
    try:
        yield keeper
    finally:
        keeper.stop(signal.SIGTERM)
