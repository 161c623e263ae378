"""Serve `jitvault mcp`: run its runner, and end with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread

from jitvault.agent.credential import secrets_of
from jitvault.agent.execution import mapping
from jitvault.agent.execution.process_tree import die_with_parent
from jitvault.agent.process_end import opened_end
from jitvault.cli.access.access_watch import over_error, why_over, wiring_of_thread
from jitvault.cli.access.held_access import Access, signed_tools
from jitvault.errors import UsageError
from jitvault.formats.rfc3339 import rfc3339
from jitvault.mcp import shared_secrets, task_end
from jitvault.mcp.frames import RUNNER, SETTING, Setting, line


@dataclass(frozen=True, slots=True)
class Serving:
    """What ties this process to the server and to the runner.

    `ends` can be read once the server has ended. `ours` and `its` are the ends of the line on which the runner asks
    whether the task is over.
    """

    ends: Sequence[int]
    ours: socket.socket
    its: socket.socket


def begin(server: int, command: Sequence[str]) -> Serving:
    """Be the process of one task of `jitvault mcp`.

    The kernel kills it with the server, so that nothing is waited for and taken that nobody uses. The monitor looks at
    the server's end, too: not every kernel does that. Raises UsageError for another program than the runner, which
    checks the tools as `exec` checks the program.
    """
    if tuple(command) != RUNNER:
        raise UsageError(
            "--mcp-server is for `jitvault mcp`, which runs its own program",
            hint="Leave it out. Nothing was asked for and nothing was started.",
        )
    die_with_parent()
    end = opened_end(server)
    if os.getppid() != server:
        # it was killed before the kernel knew, or before its end was looked at
        sys.exit(1)
    return Serving(() if end is None else (end,), *socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))


def setting(access: Access, serving: Serving, shared: int | None) -> dict[str, str]:
    """Return the variable that tells the runner about the task.

    The secrets are for masking: the tools get them, or files with them, anyway. The task's token is not among them.
    They are added to those of the server's other tasks, whose memory comes by `shared`, before any tool has them. From
    here on the runner's questions are answered, in a thread.
    """
    asking = serving.its.fileno()
    access.passed = (asking, *(() if shared is None else (shared,)))
    secrets = tuple(secrets_of(access.credentials))
    memory = None if shared is None else shared_secrets.received(shared)
    if memory is not None:
        # it stays open: the line counts for as long
        shared_secrets.add(memory, secrets)
    given = mapping.filled(access.wanted, access.credentials)
    until = access.token.ends_at
    made = Setting(
        access.document.task_id,
        tuple(signed_tools(access.document)),
        secrets,
        tuple(sorted({*given.variables, *given.files})),
        rfc3339(until) if until else None,
        shared,
        asking,
    )
    Thread(target=task_end.serve, args=(serving.ours, _why(access)), daemon=True).start()
    return {SETTING: line(made).decode().strip()}


def _why(access: Access) -> Callable[[], str]:
    """Return what says why the access is over, as a model reads it."""
    wiring = wiring_of_thread(access)

    def why() -> str:
        end = why_over(access, wiring)
        return str(over_error(access, end)) if end else ""

    return why
