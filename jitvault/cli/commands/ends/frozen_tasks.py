"""The tasks that a freeze ends, and the wait for their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from jitvault.cli import session
from jitvault.cli.commands.ends.kill_switch import Progress
from jitvault.cli.commands.lookups.known_tasks import published_in
from jitvault.cli.views.output import warn
from jitvault.documents.published_task import ILLEGIBLE, PublishedTask
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason, State

if TYPE_CHECKING:
    from jitvault.wiring import Wiring

_POLL_S = 0.5
_PAUSE_S = 2.0
"""How long this process waits before it tries again to end what is not proven to be ended."""
_PATIENCE_S = 10.0
"""How long it tries for one task."""


def end_frozen(wiring: Wiring, scope: Scope, *, since: datetime, wait: float) -> dict[str, str]:
    """End the tasks of a scope that was frozen, or wait for a worker.

    Returns the state of each after `wait` seconds at most, also of those that a worker has ended since the freeze was
    signed at `since`. Raises NotConfirmed where the freeze does not count.
    """
    deadline = time.monotonic() + wait
    return _wait_for_worker(wiring, scope, since, deadline)


def _wait_for_worker(wiring: Wiring, scope: Scope, since: datetime, deadline: float) -> dict[str, str]:
    """Wait until a worker has ended the tasks, by what is published."""
    found: dict[str, str] = {}
    # a task may have been about to be granted, so it is looked again when all are ended
    while more := [task for task in _covered(wiring, scope, since) if task not in found]:
        found |= _until_done(more, partial(_published_state, wiring), deadline, pause_s=_POLL_S)
        if time.monotonic() >= deadline:
            break
    return found


def _until_done(
    tasks: Collection[str],
    state_of: Callable[[str], str],
    deadline: float,
    *,
    pause_s: float,
    try_again: Callable[[str], None] = lambda task: None,
) -> dict[str, str]:
    """Return the tasks' states once all are ended, or at `deadline`."""
    progress = Progress()
    states = {task: state_of(task) for task in tasks}
    while True:
        left = [task for task, state in states.items() if state not in session.DONE]
        is_last = not left or time.monotonic() + pause_s > deadline
        progress("ended and confirmed", len(tasks) - len(left), len(tasks), final=is_last)
        if is_last:
            return states
        time.sleep(pause_s)
        for task in left:
            try_again(task)
            states[task] = state_of(task)


def _covered(wiring: Wiring, scope: Scope, since: datetime) -> list[str]:
    """Return the published tasks that hold access, or that it ended."""
    found = []
    for task, document in published_in(wiring, scope).items():
        if document is None:
            warn(f"whether the freeze covers task {task} is not known: its document cannot be read")
        elif document.state in session.GRANTED or _is_ended_by_freeze(document, since):
            found.append(task)
    return sorted(found)


def _is_ended_by_freeze(document: PublishedTask, since: datetime) -> bool:
    """Return whether the task ends by a freeze that is no older than this."""
    is_newer = document.written_at >= since
    return is_newer and document.end_reason is EndReason.FROZEN and document.state in (State.ENDING, State.CONFIRMED)


def _published_state(wiring: Wiring, task: str) -> str:
    document = session.published(wiring, task)
    return str(document.state) if document is not None else ILLEGIBLE
