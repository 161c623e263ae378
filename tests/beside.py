"""The worker beside the tests' commands: it takes its turns in the command's process, where the command waits for it.

What it does is a worker's own, on the real servers: a turn is the call that each thread of `jitvault worker` makes for
a task. Where a turn leaves something undone, the worker tries again after the command's wait, so no test waits for
that. So a command and its turn take no longer than the work, are killed at one point together, and nothing is done
between two commands. `attended.py` and `worker_process.py` have the whole worker, which works all the time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from jitvault.cli import session
from jitvault.cli.waiting import Wait
from jitvault.errors import JitvaultError, WrongState
from jitvault.kill_switch.triggers import covered_by_freeze
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.settings import load
from jitvault.wiring import Wiring

_PATIENCE_S = 30.0
"""How long a worker tries for one task in one turn."""
_TELL_S = 1.0
_LOOK_S = 0.05


def turn(environment: Mapping[str, str], task: str) -> JitvaultError | None:
    """Let a worker with this environment do what is due for the task; give what keeps it from that, if anything."""
    with mock.patch.dict(os.environ, {k: v for k, v in environment.items() if k != "VAULT_TOKEN"}, clear=True):
        try:
            with closing(Wiring(load())) as wiring:
                _take_turn(wiring, task, None)
        except JitvaultError as error:
            return error
    return None


def is_beside(environment: Mapping[str, str]) -> bool:
    """Whether the environment is one of a host with a worker."""
    return any(name.startswith("JITVAULT_WORKER_") and value for name, value in environment.items())


def looks_at(args: Sequence[str | Path]) -> str | None:
    """The task that `status` shows: a worker at work has done what is due for it by then."""
    return str(args[1]) if args[0] == "status" and len(args) > 1 else None


def end_frozen(environment: Mapping[str, str]) -> None:
    """Let a worker end what is frozen, as one at work does when `freeze` has signed one, whatever that waited for."""
    with mock.patch.dict(os.environ, environment, clear=True), suppress(JitvaultError), closing(Wiring(load())) as here:
        _end_frozen(here)


@contextmanager
def at_work() -> Iterator[None]:
    """While the block lasts, a worker takes a turn wherever a command of this process waits for one."""
    beside = _Beside(session.wait_for_worker)

    def rest(wait: Wait) -> None:
        beside.rest(wait)

    with mock.patch.object(session, "wait_for_worker", beside.wait_for_worker), mock.patch.object(Wait, "rest", rest):
        yield


class _Beside:
    """Takes the worker's turn in place of a command's pause; knows what the command waits for."""

    def __init__(self, wait: Callable[..., Any]) -> None:
        self._wait = wait
        self._task: tuple[Wiring, str] | None = None
        self._waits_for_worker = True

    def wait_for_worker(self, wiring: Wiring, task: str, *args: Any, **kwargs: Any) -> Any:
        """The command's wait for what a worker does for a task."""
        self._task, self._waits_for_worker = (wiring, task), True
        try:
            return self._wait(wiring, task, *args, **kwargs)
        finally:
            self._waits_for_worker = False

    def rest(self, wait: Wait) -> None:
        """The command's pause."""
        try:
            if self._task is None:
                _end_frozen(wait.wiring)
            else:
                _take_turn(*self._task, self._task[0].person.entity)
        except WrongState:
            # another process works on the task
            time.sleep(_LOOK_S)
            return
        except JitvaultError:
            pass
        if self._waits_for_worker:
            wait.until = wait.wiring.clock.monotonic()
        else:
            # for people: an approval, the beginning of a window
            time.sleep(min(_LOOK_S, wait.left_s))


def _take_turn(wiring: Wiring, task: str, hint: str | None) -> None:
    deadline = wiring.clock.monotonic() + _PATIENCE_S
    notifier = wiring.teller
    try:
        advance_or_end_lost(wiring.worker, task, hint=hint, deadline=deadline)
    finally:
        notifier.tell_for(_TELL_S)


def _end_frozen(wiring: Wiring) -> None:
    """End what the freezes cover, as the loops of a worker do: the tokens of all first, then the rest of each."""
    worker = wiring.worker
    reasons = covered_by_freeze(worker, list_again=True)
    for patience_s in (0.0, _PATIENCE_S):
        for task in reasons:
            with suppress(JitvaultError):
                advance_or_end_lost(worker, task, deadline=worker.clock.monotonic() + patience_s)
    wiring.teller.tell_for(_TELL_S)


if __name__ == "__main__":
    # a command and the worker beside it, in a process of their own
    from jitvault.cli import app

    if looked_at := looks_at(sys.argv[1:]):
        turn(os.environ, looked_at)
    sys.argv[0] = "jitvault"
    with at_work():
        app.main()
