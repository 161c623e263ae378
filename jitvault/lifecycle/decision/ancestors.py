"""Check the ancestors of a delegated task.

They are checked from the first task down to the parent, as they are at this moment. A parent can delegate only the
access that it has: before its grant, and from its end on, nothing below it is granted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import InvalidInput
from jitvault.formats.time_window import format_instant
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.integrity import check_integrity, is_edited, published, verify
from jitvault.lifecycle.requests.end_documents import end_request, may_end
from jitvault.model.delegation import outlives, over_budget, within
from jitvault.model.event_bodies import EndCause
from jitvault.model.revision import Revision
from jitvault.model.spec import TaskSpec
from jitvault.model.states import DELIVERED_STATES, LIVING, EndReason
from jitvault.policy.decision import NO_OBLIGATIONS, Obligations


def parent_of(worker: WorkerContext, spec: TaskSpec) -> Revision | None:
    """Return the revision of the spec's parent; None where it names none.

    Raises InvalidInput where there is no such task.
    """
    name = spec.spec.parent
    if name is None:
        return None
    if name == spec.id:
        raise InvalidInput(f"task {spec.id}: spec.parent: a task cannot be its own parent")
    record = worker.ledger.record(name)
    if record is None:
        published_copy = published(worker, name)
        foreign = isinstance(published_copy, PublishedTask) and published_copy.installation not in (
            "",
            worker.installation,
        )
        where = f"task {name} belongs to another installation" if foreign else f"there is no task {name}"
        raise InvalidInput(f"task {spec.id}: spec.parent: {where}")
    return Revision.of(record.revision.body)


def check_above(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput unless every ancestor of the task has access now.

    Raises SecurityFinding where an ancestor's rows were edited.
    """
    if not revision.delegation:
        return
    names = {link.task for link in revision.delegation}
    known = {task.task_id: verify(worker, task.task_id).record for task in worker.ledger.known_tasks(names)}
    why = _end_reason(worker, revision, known.get)
    if why:
        hint = "A task can delegate its access only from its grant to its end."
        raise InvalidInput(f"task {revision.content.task}: spec.parent: {why}", hint=hint)


def _end_reason(worker: WorkerContext, revision: Revision, read: Callable[[str], TaskRecord | None]) -> str | None:
    """Return why an ancestor has no access now, in words; None where all have.

    `read` returns the record of a task, if there is one.
    """
    for link in revision.delegation:
        name = link.task
        record = read(name)
        if record is None or record.task.digest != link.digest:
            return f"task {name} is not the one that handed it on"
        task = record.task
        # while an extension replaces its token, a task still counts as having access
        if task.state not in DELIVERED_STATES and not task.is_being_replaced:
            return f"task {name} is {task.state}"
        if is_edited(worker, record):
            # someone who can write the ledger must not be able to prolong the ancestor
            return f"the ledger's record of task {name} was changed"
        if task.ends_at is not None and worker.now() >= task.ends_at:
            return f"the time of task {name} is over"
        if end_request(worker, name, entitled=may_end(link)) is not None:
            return f"the end of task {name} was asked for"
    return None


def check_extends(worker: WorkerContext, revision: Revision, until: datetime) -> None:
    """Raise InvalidInput where a task would end after one of its ancestors."""
    end = _first_end(worker, revision)
    if end is not None and until > end:
        raise InvalidInput(
            f"task {revision.content.task}: its parent ends at {format_instant(end)}, and it cannot end later",
            hint="Have the parent extended first.",
        )


def check_window(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput where the window goes beyond the ancestors'.

    The window has to be within the rest of the ancestors' windows.
    """
    end = _first_end(worker, revision)
    problem = outlives(revision.window, worker.now(), end) if end is not None else None
    if problem:
        raise InvalidInput(f"task {revision.content.task}: spec.{problem}")


def cap_to_ancestors(
    worker: WorkerContext, revision: Revision, start: datetime, obligations: Obligations = NO_OBLIGATIONS
) -> Obligations:
    """Return the obligations, capped by the ancestors.

    Window and TTL are at most the time that the ancestors have left at `start`.
    """
    end = _first_end(worker, revision)
    return obligations if end is None else within(obligations, start, end)


def check_room(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput where the parent's children would together exceed it.

    Other children of the parent count with the lease budgets that they hold.
    """
    if not revision.delegation:
        return
    task = revision.content.task
    parent = _file(worker, revision.delegation[-1].task)
    others = [_file(worker, name) for name in worker.ledger.children(parent.task.task_id) if name != task]
    held = [Revision.of(record.revision.body) for record in others if record.task.state in LIVING]
    if problems := over_budget(revision, Revision.of(parent.revision.body), held):
        hint = "End the other one first; it counts until its end is proven."
        raise InvalidInput(f"task {task}: spec.{problems[0]}", hint=hint)


def _first_end(worker: WorkerContext, revision: Revision) -> datetime | None:
    """Return when the first of the task's ancestors ends.

    The result is None where the task has no ancestor. Raises SecurityFinding where an ancestor's rows were edited.
    """
    ends: list[datetime] = []
    ancestors = [worker.ledger.record(link.task) for link in revision.delegation]
    for record in filter(None, ancestors):
        check_integrity(worker, record)
        if record.task.ends_at:
            ends.append(record.task.ends_at)
    return min(ends, default=None)


def _file(worker: WorkerContext, task_id: str) -> TaskRecord:
    """Return a task that has to be in the ledger. Raises InvalidInput."""
    record = worker.ledger.record(task_id)
    if record is None:
        raise InvalidInput(f"there is no task {task_id}")
    return record


def ended_above(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return the end of a task above this one as its cause, or None.

    A delegated task ends with any task that it descends from.
    """
    why = _end_reason(worker, Revision.of(record.revision.body), worker.ledger.record)
    return EndCause(reason=EndReason.PARENT, note=why) if why else None
