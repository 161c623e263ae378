"""The worker beside the tests' commands: it takes its turns in the command's process, where the command waits for it.

What it does is a worker's own, on the real servers: a turn is the call that each thread of `jitvault worker` makes for
a task. Where a turn leaves something undone, the worker tries again after the command's wait, so no test waits for
that. So a command and its turn take no longer than the work, are killed at one point together, and nothing is done
between two commands. `attended.py` and `worker_process.py` have the whole worker, which works all the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from jitvault.cli import session
from jitvault.cli.waiting import Wait
from jitvault.errors import JitvaultError, WrongState
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.settings import load
from jitvault.wiring import Wiring

_PATIENCE_S = 30.0
"""How long a worker tries for one task in one turn."""
_TELL_S = 1.0


def turn(environment: Mapping[str, str], task: str) -> JitvaultError | None:
    """Let a worker with this environment do what is due for the task; give what keeps it from that, if anything."""
    with mock.patch.dict(os.environ, {k: v for k, v in environment.items() if k != "VAULT_TOKEN"}, clear=True):
        wiring = Wiring(load())
        try:
            _take_turn(wiring, task, None)
        except JitvaultError as error:
            return error
        finally:
            wiring.close()
    return None


def is_beside(environment: Mapping[str, str]) -> bool:
    """Whether the environment is one of a host with a worker."""
    return any(name.startswith("JITVAULT_WORKER_") and value for name, value in environment.items())


@contextmanager
def at_work() -> Iterator[None]:
    """While the block lasts, a worker takes a turn wherever a command of this process waits for one."""
    wait_for_worker, pause = session.wait_for_worker, Wait.rest

    def waiting(wiring: Wiring, task: str, *args: Any, **kwargs: Any) -> Any:
        def rest(wait: Wait) -> None:
            try:
                _take_turn(wiring, task, wiring.person.entity)
            except WrongState:
                # another process works on the task
                pause(wait)
                return
            except JitvaultError:
                pass
            wait.until = wiring.clock.monotonic()

        with mock.patch.object(Wait, "rest", rest):
            return wait_for_worker(wiring, task, *args, **kwargs)

    with mock.patch.object(session, "wait_for_worker", waiting):
        yield


def _take_turn(wiring: Wiring, task: str, hint: str | None) -> None:
    deadline = wiring.clock.monotonic() + _PATIENCE_S
    notifier = wiring.teller
    try:
        advance_or_end_lost(wiring.worker, task, hint=hint, deadline=deadline)
    finally:
        notifier.tell_for(_TELL_S)
