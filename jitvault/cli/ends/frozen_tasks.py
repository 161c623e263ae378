"""The tasks that a freeze ends, and the wait for their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime
from functools import partial

from jitvault.cli import session
from jitvault.cli.ends.kill_switch import Progress
from jitvault.cli.ends.lost_tasks import end_lost
from jitvault.cli.lookups.names_in_tasks import published_in
from jitvault.cli.quiet import note
from jitvault.cli.views.output import warn
from jitvault.context import WorkerContext
from jitvault.documents.paths import Kept
from jitvault.documents.published_task import ILLEGIBLE, PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed
from jitvault.kill_switch.kill import is_covered
from jitvault.kill_switch.triggers import covered_by_freeze, end_all
from jitvault.ledger.model import TaskRow
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.requests.scope_names import scope_by_name_and_id
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason, State
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
    if wiring.has_worker:
        return _end_here(wiring, scope, since, deadline)
    return _wait_for_worker(wiring, scope, since, deadline)


def _end_here(wiring: Wiring, scope: Scope, since: datetime, deadline: float) -> dict[str, str]:
    """End the tasks with the worker's identity, more than once if needed."""
    worker = wiring.worker
    # the audit line of this freeze may not have been read yet
    worker.ledger.note_written(Kept.FREEZE, wiring.person.entity, scope.key)
    reasons = covered_by_freeze(worker)
    end_all(worker, reasons, note)
    _check_in_force(wiring, scope)
    covered = partial(_covered, wiring, scope, since)
    lost = end_lost(wiring, worker, covered, f"{scope} was frozen", deadline - time.monotonic())
    tasks = list(dict.fromkeys((*_covered_here(worker, scope, since), *reasons, *lost)))

    def try_again(task: str) -> None:
        # another process may be at it, or its end cannot be proven yet
        with suppress(JitvaultError):
            advance(worker, task, deadline=worker.clock.monotonic() + _PATIENCE_S)

    return _until_done(tasks, partial(_state_here, wiring), deadline, pause_s=_PAUSE_S, try_again=try_again)


def _covered_here(worker: WorkerContext, scope: Scope, since: datetime) -> list[str]:
    """Return the tasks of a scope that have access, or were ended since.

    Those that are delegated below them are included.
    """
    known = worker.ledger.task_ids(session.GRANTED | {State.ENDING, State.CONFIRMED})
    rows = {task: _row(worker, task) for task in known}
    # a task whose row cannot be read counts, since it may be in the scope
    counted = {task: row and row.parent for task, row in rows.items() if row is None or _is_concerned(row, since)}
    scopes = scope_by_name_and_id(worker, scope)
    covered = [task for task in counted if is_covered(worker, scopes, task)]
    while below := [task for task, parent in counted.items() if parent and parent in covered and task not in covered]:
        covered += below
    return covered


def _row(worker: WorkerContext, task: str) -> TaskRow | None:
    with suppress(JitvaultError):
        return worker.ledger.task(task)
    return None


def _is_concerned(row: TaskRow, since: datetime) -> bool:
    """Return whether a task has access, or ended since by a freeze.

    The freeze may be that of its parent.
    """
    by_freeze = row.end_reason in (EndReason.FROZEN, EndReason.PARENT)
    is_ended_since = by_freeze and row.ending_at is not None and row.ending_at >= since
    return row.state in session.GRANTED or is_ended_since


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


def _state_here(wiring: Wiring, task: str) -> str:
    # the ledger may have lost it
    row = _row(wiring.worker, task)
    return row.state.value if row is not None else _published_state(wiring, task)


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


def _check_in_force(wiring: Wiring, scope: Scope) -> None:
    """Raise NotConfirmed where an unfreeze is dated later than a new freeze.

    The freeze was signed just now.
    """
    if not any(one.scope.is_same(scope) for one in freezes(wiring.worker)):
        hint = "Vault's clock was set back since an operator lifted it. Freeze it again in some seconds."
        raise NotConfirmed(f"the freeze of {scope} is signed but has no effect: a lift is dated later", hint=hint)
