"""What stands above a task that was handed on: read and checked this moment, from the first task down to its parent.

A parent hands on only what it holds: before it is granted, and from its end on, nothing of it can be granted.
"""

from __future__ import annotations

from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput
from jitvault.formats.time_window import format_instant
from jitvault.ledger.model import TaskRecord, TaskRow
from jitvault.lifecycle.record.integrity import check_anchor, check_integrity, is_edited, published
from jitvault.lifecycle.requests.end_documents import end_request, may_end
from jitvault.model.delegation import outlives, over_budget, within
from jitvault.model.revision import Revision
from jitvault.model.spec import TaskSpec
from jitvault.model.states import DELIVERED_STATES, LIVE_STATES, State
from jitvault.policy.decision import NO_OBLIGATIONS, Obligations

LIVING = LIVE_STATES | {State.ENDING}
"""While a task is in one of these, what it has is not proven dead."""


def parent_of(worker: WorkerContext, spec: TaskSpec) -> Revision | None:
    """The revision of the parent that a spec names, None where it names none. Raises InvalidInput."""
    name = spec.spec.parent
    if name is None:
        return None
    if name == spec.id:
        raise InvalidInput(f"task {spec.id}: spec.parent: a task cannot be its own parent")
    file = worker.ledger.file(name)
    if file is None:
        said = published(worker, name)
        foreign = said.get("installation") not in (None, worker.installation)
        where = f"task {name} belongs to another installation" if foreign else f"there is no task {name}"
        raise InvalidInput(f"task {spec.id}: spec.parent: {where}")
    return Revision.of(file.revision.body)


def check_above(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput unless every task above this one has access now; SecurityFinding where a row was edited."""
    for link in revision.delegation:
        said = published(worker, link["task"])
        if (file := worker.ledger.file(link["task"])) is not None:
            check_anchor(worker, file, said)
            check_integrity(worker, file)
    if why := ancestor_end_reason(worker, revision):
        hint = "A task can hand on what it holds, from its grant to its end."
        raise InvalidInput(f"task {revision.content['task']}: spec.parent: {why}", hint=hint)


def ancestor_end_reason(worker: WorkerContext, revision: Revision) -> str | None:
    """Why something above this task has no access any more, or not yet, in words; None where all of it has."""
    for link in revision.delegation:
        name, file = link["task"], worker.ledger.file(link["task"])
        if file is None or file.task.digest != link["digest"]:
            return f"task {name} is not the one that handed it on"
        task = file.task
        # while its token is put in another one's place it holds what it had
        if task.state not in DELIVERED_STATES and not is_replaced(task):
            return f"task {name} is {task.state}"
        if is_edited(worker, file):
            # whoever can write the ledger must not be able to give it more time
            return f"the ledger's record of task {name} was changed"
        if (end := _ends_at(task)) is not None and worker.now() >= end:
            return f"the time of task {name} is over"
        if end_request(worker, name, entitled=may_end(link)) is not None:
            return f"the end of task {name} was asked for"
    return None


def is_replaced(task: TaskRow) -> bool:
    """Whether a task that held access is between its token and the next one, by an extension."""
    return task.state is State.ISSUING and task.ends_at is not None


def check_extends(worker: WorkerContext, revision: Revision, until: datetime) -> None:
    """Raise InvalidInput where a task would end later than something above it."""
    end = _first_end(worker, revision)
    if end is not None and until > end:
        raise InvalidInput(
            f"task {revision.content['task']}: its parent ends at {format_instant(end)}, and it cannot end later",
            hint="Have the parent extended first.",
        )


def check_window(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput where the window is not within what is left of the parent's."""
    end = _first_end(worker, revision)
    if end is not None and (problem := outlives(revision.window, worker.now(), end)):
        raise InvalidInput(f"task {revision.content['task']}: spec.{problem}")


def cap_to_ancestors(
    worker: WorkerContext, revision: Revision, start: datetime, obligations: Obligations = NO_OBLIGATIONS
) -> Obligations:
    """The obligations, with window and TTL capped by what is left at `start` of everything above the task."""
    end = _first_end(worker, revision)
    return obligations if end is None else within(obligations, start, end)


def check_room(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput where the parent's other children hold what this one would, so that both had more than it."""
    if not revision.delegation:
        return
    task, parent = revision.content["task"], _file(worker, revision.delegation[-1]["task"])
    others = [_file(worker, name) for name in worker.ledger.children(parent.task.task_id) if name != task]
    held = [Revision.of(file.revision.body) for file in others if file.task.state in LIVING]
    if problems := over_budget(revision, Revision.of(parent.revision.body), held):
        hint = "End the other one first; it counts until its end is proven."
        raise InvalidInput(f"task {task}: spec.{problems[0]}", hint=hint)


def _first_end(worker: WorkerContext, revision: Revision) -> datetime | None:
    """When the first of the tasks above this one ends; None where nothing is above it. Raises SecurityFinding."""
    above = [worker.ledger.file(link["task"]) for link in revision.delegation]
    for file in filter(None, above):
        check_integrity(worker, file)
    return min((end for file in above if file and (end := _ends_at(file.task))), default=None)


def _ends_at(task: TaskRow) -> datetime | None:
    """When the access of a task that holds some is over, whatever happens."""
    return task.ends_at


def _file(worker: WorkerContext, task_id: str) -> TaskRecord:
    file = worker.ledger.file(task_id)
    if file is None:
        raise InvalidInput(f"there is no task {task_id}")
    return file
