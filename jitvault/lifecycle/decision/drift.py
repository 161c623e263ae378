"""Find drift: what was approved, and what Vault has now, differ."""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.decision.evaluate import resolve
from jitvault.lifecycle.requests.reader import submission
from jitvault.model.revision import Revision
from jitvault.model.revision_text import difference
from jitvault.vault.interface import Entity


def drift_since_approval(worker: WorkerContext, record: TaskRecord) -> str | None:
    """Return how a granted task differs now from what was approved.

    The result is None if it does not.

    The approved spec is resolved again in Vault, whatever spec the request has by now: another spec there waits for its
    own decision, and neither ends this task nor hides a difference in what was approved.
    """
    try:
        submitted = submission(worker, record.task.task_id, record.task.requester)
    except InvalidInput as error:
        return str(error)
    return "its request is gone" if submitted is None else _drift(worker, record, submitted.requester)


def drift_besides_request(worker: WorkerContext, record: TaskRecord) -> str | None:
    """Return how Vault differs from what was approved, the request left aside.

    What the author does to the request afterwards does not change what the target was.
    """
    requester = Revision.of(record.revision.body).content.requester
    entity = Entity(requester.entity, requester.name, disabled=False, group_ids=frozenset())
    return _drift(worker, record, entity)


def _drift(worker: WorkerContext, record: TaskRecord, requester: Entity) -> str | None:
    """Return the first difference between approved revision and spec.

    The comparison is with the spec as it resolves now.
    """
    approved = Revision.of(record.revision.body)
    try:
        now = resolve(worker, requester, approved.spec, number=record.task.revision)
    except InvalidInput as error:
        return str(error)
    if now.digest == approved.digest:
        return None
    first, *more = difference(approved, now) or ["its digest"]
    return first + (f", and {len(more)} more" if more else "")
