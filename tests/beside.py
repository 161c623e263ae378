"""The worker beside the tests' commands: a real one, in threads of the test's process.

It is the only place where tests start one for commands. A test about a worker itself has `attended.py` and
`worker_process.py`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from unittest import mock

from jitvault.errors import JitvaultError
from jitvault.settings import Settings, load
from jitvault.worker.loop_base import Pace
from jitvault.worker.once import Once
from jitvault.worker.process import Plan, start
from jitvault.worker.supervisor import Supervisor

_WAITING = frozenset(
    ("submit", "grant", "extend", "complete", "approve", "deny", "withdraw", "cancel", "freeze", "revoke")
)
"""The commands that wait for a worker."""
_PACE = Pace(sweep_s=0, canary_s=0.2, wake_s=0.05, due_s=0.02)
"""Faster than a worker that stays: a test waits for each of its rounds."""
_SETTINGS = Lock()
"""Settings are read from the environment of the process, which threads share."""
_JOIN_S = 15.0
_LOOK_S = 0.02


class _Silent:
    """A log that nobody reads."""

    def info(self, event: str, **values: object) -> None: ...

    warning = error = info


def needs_worker(args: Sequence[str | Path]) -> bool:
    """Whether a worker has to run beside the command. The kill switch acts by itself."""
    scoped = {"--all", "--agent", "--template", "--owner"} & {*map(str, args)}
    return str(args[0]) in _WAITING and not (args[0] == "revoke" and scoped)


@contextlib.contextmanager
def working(environment: Mapping[str, str]) -> Iterator[None]:
    """A worker with this environment while the block lasts.

    Where it cannot start, the command meets what keeps it from that.
    """
    supervisor, started = Supervisor(), None
    with contextlib.suppress(JitvaultError):
        started = start(_settings(environment), supervisor, Plan(pace=_PACE), _Silent())
    try:
        yield
    finally:
        supervisor.stopping.set()
        supervisor.join(_JOIN_S)
        if started is not None:
            started.close()


def take_turns(environment: Mapping[str, str], wait_s: float) -> JitvaultError | None:
    """Let a worker do everything that is due, as `jitvault worker --once`; give why something is left, if so.

    Raises JitvaultError where it cannot start.
    """
    supervisor, once = Supervisor(), Once(wait_s)
    started = start(_settings(environment), supervisor, Plan(pace=_PACE), _Silent())
    try:
        while once.goes_on(started):
            time.sleep(_LOOK_S)
    finally:
        supervisor.stopping.set()
        supervisor.join(_JOIN_S)
        started.close()
    return once.failure


def _settings(environment: Mapping[str, str]) -> Settings:
    """The settings of a worker, which has nobody's own token."""
    own = {name: value for name, value in environment.items() if name != "VAULT_TOKEN"}
    with _SETTINGS, mock.patch.dict(os.environ, own, clear=True):
        return load()
