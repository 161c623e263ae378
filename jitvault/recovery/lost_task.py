"""End a task that the ledger lost, if somebody who may asks for it.

The ledger does not say what the task holds. Vault and the audit files do, so the task is imported from them, and then
ended and proven like any other. A task that nobody wants to end stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import LostTask
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.integrity import published
from jitvault.lifecycle.requests.end_documents import end_request, may_end
from jitvault.lifecycle.requests.freeze_documents import freeze_covering
from jitvault.model.states import LIVE_STATES, State
from jitvault.recovery.recover import recover_task
from jitvault.recovery.survey import signed_request

_UNHURRIED_S = 5.0
"""How long an imported task's end is tried at least, also by a worker that first revokes the tokens of all tasks."""


def advance_or_end_lost(
    worker: WorkerContext,
    task_id: str,
    *,
    hint: str | None = None,
    deadline: float | None = None,
    shown: Sequence[str] = (),
) -> TaskRecord:
    """Do what is due for the task, as `advance` does.

    A task that was lost with the ledger is imported first if its end is asked for; what that takes is added to
    `deadline`, and then it has a few seconds at least. Raises LostTask for one whose end is not asked for, and where
    nobody said that the ledger has to be rebuilt.
    """
    try:
        return advance(worker, task_id, hint=hint, deadline=deadline, shown=shown)
    except LostTask:
        # in a ledger that is not to be rebuilt, the tokens of all other lost tasks would be those of a thief
        if worker.ledger.recovering() is None or not _has_to_end(replace(worker, asked_by=hint), task_id):
            raise
    begun = worker.clock.monotonic()
    recover_task(worker, task_id)
    if deadline is not None:
        # a token that is revoked in haste, and was not seen alive before, is never proven dead
        deadline = max(deadline, begun + _UNHURRIED_S) + worker.clock.monotonic() - begun
    return advance(worker, task_id, hint=hint, deadline=deadline)


def _has_to_end(worker: WorkerContext, task_id: str) -> bool:
    """Return whether the task may hold access, and has to end.

    It has to if a freeze covers it, or somebody who may has signed its end. Who may is read in what is published:
    whoever could write another name there can also end the task. What is published as over, proven or never granted is
    left to a whole recovery, and so is what cannot be imported alone: each try reads the audit files, and anyone with a
    part in it can cause one. Whether a task without a signed request can be imported only those files say, so they are
    read for an operator: a freeze is an operator's.
    """
    said = published(worker, task_id)
    if not isinstance(said, PublishedTask) or said.state not in LIVE_STATES | {State.ENDING}:
        return False
    parent = said.full_revision.spec.spec.parent
    if parent is not None and worker.ledger.task(parent) is None:
        return False
    content = said.full_revision.content
    if freeze_covering(worker, content) is not None:
        return True
    parties = may_end(content)
    asked = end_request(worker, task_id, entitled=parties)
    if asked is None:
        return False
    is_requested, _ = signed_request(worker, task_id, content.requester.entity)
    return is_requested or asked.by.id not in parties
