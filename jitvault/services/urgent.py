"""What has to end at once: a task that touched a tripwire, all of them while everything is frozen, and what an
operator's freeze covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from jitvault.domain.lifecycle import State
from jitvault.domain.revision import Revision
from jitvault.errors import JitvaultError
from jitvault.services.advance import advance
from jitvault.services.context import Worker
from jitvault.services.papers import freezes
from jitvault.services.watch import watch

Reasons = Mapping[str, str]
"""Tasks, each with why it has to end."""


def tripped(worker: Worker, seen: dict[str, int]) -> Reasons:
    """The held tasks that touched a tripwire, and all of them while everything is frozen.

    `seen` remembers how far each task had come, so that only those with news are looked at.
    """
    freeze, held = worker.ledger.freeze(), worker.ledger.held()
    found: dict[str, str] = {}
    for task_id, seq in held.items():
        if freeze is not None:
            found[task_id] = "everything is frozen"
            continue
        if seen.get(task_id) == seq:
            continue
        seen[task_id] = seq
        file = worker.ledger.file(task_id)
        if file and (trips := watch(worker, file)):
            found[task_id] = trips[0].message
    for task_id in seen.keys() - held.keys():
        del seen[task_id]
    return found


def covered(worker: Worker) -> Reasons:
    """The held tasks that are frozen by operators."""
    words, found = freezes(worker), dict[str, str]()
    for task_id in worker.ledger.held() if words else ():
        file = worker.ledger.file(task_id)
        content = Revision.of(file.revision.body).content if file else None
        word = next((word for word in words if content and word.scope.covers(content)), None)
        if word is not None:
            found[task_id] = f"{word.by} froze {word.scope}: {word.reason}"
    return found


def end_all(worker: Worker, reasons: Reasons, tell: Callable[[str], None]) -> dict[str, State]:
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
