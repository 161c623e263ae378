"""What has to end at once: a task that touched a tripwire, all of them while everything is frozen, and what an
operator's freeze covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.documents.paths import Kept
from jitvault.errors import CORRUPT_RECORD_ERRORS, JitvaultError
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.requests.listing import rebuild_index
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement
from jitvault.model.states import State
from jitvault.stream.tripwires import watch

Reasons = Mapping[str, str]
"""Tasks, each with why it has to end."""


def tripped(worker: WorkerContext, seen: dict[str, int], go_on: Callable[[], bool] = lambda: True) -> Reasons:
    """The held tasks that touched a tripwire, and all of them while everything is frozen.

    `seen` remembers how far each task had come, so that only those with news are looked at, and those first that were
    not for the longest. That ends where `go_on`, asked before each of them, says no; the next call goes on there.
    """
    freeze, held = worker.ledger.freeze(), worker.ledger.live_tasks()
    if freeze is not None:
        return dict.fromkeys(held, "everything is frozen")
    for task_id in seen.keys() - held.keys():
        del seen[task_id]
    found: dict[str, str] = {}
    for task_id in [*(held.keys() - seen.keys()), *seen]:
        if seen.get(task_id) == held[task_id]:
            continue
        if not go_on():
            break
        seen.pop(task_id, None)
        seen[task_id] = held[task_id]
        # a row that nobody can read stops this for no other; whoever looks after it, as it is due, tells that
        with suppress(*CORRUPT_RECORD_ERRORS):
            file = worker.ledger.file(task_id)
            if file and (trips := watch(worker, file)):
                found[task_id] = trips[0].message
    return found


def covered_by_freeze(worker: WorkerContext, *, list_again: bool = False) -> Reasons:
    """The held tasks that are frozen by operators. `list_again`: look for freezes that no line has shown."""
    if list_again:
        rebuild_index(worker, Kept.FREEZE, again=worker.is_blind)
    words, found = freezes(worker), dict[str, str]()
    for task_id in worker.ledger.live_tasks() if words else ():
        if (word := next((word for word in words if _covers(worker, word, task_id)), None)) is not None:
            found[task_id] = f"{word.by} froze {word.scope}: {word.reason}"
    return found


def _covers(worker: WorkerContext, word: FreezeStatement, task_id: str) -> bool:
    """Whether a freeze covers a task; one that nobody can read is by any."""
    try:
        file = worker.ledger.file(task_id)
        return file is not None and word.covers(Revision.of(file.revision.body).content)
    except CORRUPT_RECORD_ERRORS:
        return True


def end_all(worker: WorkerContext, reasons: Reasons, tell: Callable[[str], None]) -> dict[str, State]:
    """End them, all doors first; `tell` hears what became of each. Gives the states of those that could be ended."""
    ended: dict[str, State] = {}
    for task_id in reasons:
        # nothing but the first act on its token is done in no time; what fails is done again below, and told
        with suppress(JitvaultError):
            advance(worker, task_id, deadline=worker.clock.monotonic())
    for task_id, why in reasons.items():
        try:
            ended[task_id] = advance(worker, task_id).task.state
        except JitvaultError as error:
            tell(f"{task_id}: {why} It could not be ended: {error}")
        else:
            tell(f"{task_id} is {ended[task_id]}: {why} See `jitvault status {task_id}`.")
    return ended
