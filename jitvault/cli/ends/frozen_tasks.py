"""The tasks that a freeze ends, and the wait for a worker to end them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from jitvault.cli import session
from jitvault.cli.ends.kill_switch import Progress
from jitvault.cli.lookups.names_in_tasks import published_in
from jitvault.cli.views.output import warn
from jitvault.cli.waiting import Wait
from jitvault.documents.published_task import ILLEGIBLE, PublishedTask
from jitvault.errors import NotConfirmed
from jitvault.lifecycle.requests.freezes import freezes_seen_by_person
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason, State
from jitvault.wiring import Wiring


def wait_for_frozen(wiring: Wiring, scope: Scope, *, since: datetime, wait: float) -> dict[str, str]:
    """Wait until a worker has ended the tasks of a scope that was frozen, by what is published.

    Returns the state of each after `wait` seconds at most, also of those that a worker has ended since the freeze was
    signed at `since`. Raises NotConfirmed where the freeze does not count.
    """
    _check_in_force(wiring, scope)
    waiting = Wait(wiring, wait, poll_s=0.5)
    found: dict[str, str] = {}
    # a task may have been about to be granted, so it is looked again when all are ended
    while more := [task for task in _covered(wiring, scope, since) if task not in found]:
        found |= _until_done(wiring, more, waiting)
        if waiting.is_over:
            break
    return found


def _until_done(wiring: Wiring, tasks: Collection[str], waiting: Wait) -> dict[str, str]:
    """Return the tasks' states once all are ended, or when the wait is over."""
    progress = Progress()
    states = {task: _published_state(wiring, task) for task in tasks}
    while True:
        left = [task for task, state in states.items() if state not in session.DONE]
        is_last = not left or waiting.is_over
        progress("ended and confirmed", len(tasks) - len(left), len(tasks), final=is_last)
        if is_last:
            return states
        waiting.rest()
        for task in left:
            states[task] = _published_state(wiring, task)


def _check_in_force(wiring: Wiring, scope: Scope) -> None:
    """Raise NotConfirmed where a lift is dated later than the freeze that was signed just now.

    That is seen as the caller sees it: no worker counts a freeze that is lifted already.
    """
    with session.allowed("see what is frozen", "operators, approvers and auditors"):
        in_force = freezes_seen_by_person(wiring.person)
    if not any(Scope(**one["scope"]).is_same(scope) for one in in_force):
        hint = "Vault's clock was set back since an operator lifted it. Freeze it again in some seconds."
        raise NotConfirmed(f"the freeze of {scope} is signed but has no effect: a lift is dated later", hint=hint)


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
