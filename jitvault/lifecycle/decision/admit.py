"""Admit a request: check it, decide about it, create its task."""

from __future__ import annotations

from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.documents.paths import REQUEST_LIFE, is_stale, look_at, request_path
from jitvault.documents.published_task import PublishedDocument, PublishedRefusal, PublishedTask
from jitvault.errors import InvalidInput, NotFound, SecurityFinding, WrongState
from jitvault.formats.time_window import format_duration, format_instant
from jitvault.ledger.documents.judgements import Judged, Judgement
from jitvault.ledger.model import Change, TaskRow
from jitvault.lifecycle.decision.evaluate import Evaluation, check_grantable, evaluate, resolve
from jitvault.lifecycle.record.history import (
    decision_rows,
    opened_rows,
    stated_decision,
)
from jitvault.lifecycle.record.integrity import published
from jitvault.lifecycle.record.missing_tasks import is_own, lost
from jitvault.lifecycle.requests.publish import publish_refusal
from jitvault.lifecycle.requests.reader import Submission, find_request, submission
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import PublishedEnd, Submitted
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.stream.kept_facts import let_facts_count
from jitvault.vault.interface import Stored

_TOO_OLD = "If it is still wanted, sign it anew with `jitvault submit`; with `--id ID` if it was granted before."
_TOO_MANY = "Cancel some with `jitvault cancel`, or have them granted; then sign this one again."
_REFUSED = (
    "That settles the request. Correct what the message names, in the spec or elsewhere, and run the command again."
)


def admit_request(worker: WorkerContext, task_id: str, *, hint: str | None) -> Evaluation | None:
    """Admit a task that the ledger does not know.

    The task is admitted by its signed request in Vault. Returns the evaluation when this call admitted the task, so
    that the caller need not read everything again; None when the ledger knew the task. `hint` is the entity whose
    request is looked for first. Raises NotFound, InvalidInput, and LostTask for a task that was admitted before.
    """
    if worker.ledger.task(task_id) is not None:
        return None
    let_facts_count(worker)
    found = find_request(worker, task_id, hint=hint)
    if found is None:
        # its author may have removed it, and must not hide the task by that
        _check_not_lost(worker, task_id, published(worker, task_id))
        raise NotFound(f"no one has submitted a task {task_id}")
    requester, stored = found
    path = request_path(requester, task_id, "submit")
    line_at = worker.ledger.newest_line(path)
    judgement = Judgement.LOST
    try:
        published_copy = published(worker, task_id)
        # whatever this request is worth: anyone may write one, and it must not hide the task
        if _check_not_lost(worker, task_id, published_copy):
            # another process has admitted the request meanwhile
            return None
        judgement = Judgement.INVALID
        submitted = _submitted(worker, task_id, requester, stored)
        judgement = Judgement.REFUSED
        return _enter(worker, submitted, published_copy)
    except (InvalidInput, NotFound, SecurityFinding):
        # the request need not be read again while this is its newest version
        worker.ledger.judge([Judged(path, stored.version, stored.written_at, judgement, line_at)], worker.now())
        raise


def _check_not_lost(worker: WorkerContext, task_id: str, published_copy: PublishedDocument | None) -> bool:
    """Return whether the ledger has the task, which was published then.

    Raises LostTask for one that was published and that the ledger does not have.
    """
    if published_copy is None or not is_own(published_copy, worker.installation):
        return False
    if worker.ledger.task(task_id) is None:
        raise lost(published_copy)
    return True


def _submitted(worker: WorkerContext, task_id: str, requester: str, stored: Stored) -> Submission:
    """Return the verified request.

    Raises NotFound where the request counts for nothing.
    """
    submitted = submission(worker, task_id, requester, stored)
    if submitted is None:
        raise NotFound(f"no one has submitted a task {task_id}")
    return submitted


def _enter(worker: WorkerContext, submitted: Submission, published_copy: PublishedDocument | None) -> Evaluation | None:
    """Check a request, decide about it, and create its task in the ledger.

    Returns None where another process created the task first, or where the caller has to read again.
    """
    check_not_refused(published_copy, submitted)
    if is_stale(submitted.written_at, worker.now()):
        raise _refused(worker, submitted, _too_old(submitted), _TOO_OLD)
    count = worker.ledger.open_requests(submitted.requester.id)
    if count >= worker.open_requests:
        raise _refused(worker, submitted, _too_many(submitted, count), _TOO_MANY)
    try:
        revision = resolve(worker, submitted.requester, submitted.spec, number=1)
        check_grantable(worker, revision)
    except InvalidInput as error:
        raise _refused(worker, submitted, str(error), _REFUSED) from None
    decision = evaluate(worker, revision)
    try:
        _create(worker, submitted, revision, decision)
    except WrongState:
        # another process admitted the same request at the same moment
        return None
    still_holds = submitted.spec.spec.parent is None and worker.now() < submitted.stands_until
    return Evaluation(submitted, decision) if still_holds else None


def readmit_request(worker: WorkerContext, task_id: str, *, published_copy: PublishedTask) -> RequestDecision:
    """Admit a published task again that the ledger lost before it was granted.

    The task gets the number of the published revision: where its request still resolves to the published digest, the
    approvals of that revision count. Returns the decision about it. Raises NotFound, and InvalidInput for a request
    that cannot be granted any more; such a refusal is published as well.
    """
    submitted = submission(worker, task_id, published_copy.requester)
    if submitted is None:
        raise NotFound(f"no one has submitted a task {task_id}")
    try:
        revision = resolve(worker, submitted.requester, submitted.spec, number=published_copy.revision)
        if revision.digest != published_copy.digest:
            revision = resolve(worker, submitted.requester, submitted.spec, number=published_copy.revision + 1)
        check_grantable(worker, revision)
    except InvalidInput as error:
        raise _refused(worker, submitted, str(error), _REFUSED) from None
    decision = evaluate(worker, revision)
    with suppress(WrongState):
        # another worker may have admitted the same request at the same moment
        _create(worker, submitted, revision, decision, recovered_from=published_copy.chain_and_state)
    return decision


def check_not_refused(published_copy: PublishedDocument | None, submitted: Submission) -> None:
    """Raise InvalidInput again for a request that was refused before.

    A request that its author was told is refused must not be granted later, when the author does not watch it.
    """
    if not isinstance(published_copy, PublishedRefusal):
        return
    if (published_copy.requester, published_copy.request) == (submitted.requester.id, submitted.nonce):
        raise InvalidInput(published_copy.error.message, hint=published_copy.error.hint)


def _refused(worker: WorkerContext, submitted: Submission, why: str, hint: str) -> InvalidInput:
    """Publish the refusal of a request, and return it as an error to raise."""
    refusal = InvalidInput(why, hint=hint)
    refusal.leads_on = True
    publish_refusal(worker, submitted, refusal)
    return refusal


def _too_old(submitted: Submission) -> str:
    """Return the refusal of an old, unknown request.

    Neither ledger nor Vault knows the request. Published results are deleted after their retention, and a restored
    ledger may not know the task. So an old request may have been granted once before; only a recent one is certainly
    new.
    """
    written = format_instant(submitted.written_at)
    return (
        f"task {submitted.spec.id}: its request was written at {written}, and neither the ledger nor Vault says what "
        f"became of it: a request begins nothing once it is {format_duration(REQUEST_LIFE)} old"
    )


def _too_many(submitted: Submission, count: int) -> str:
    return (
        f"task {submitted.spec.id}: {submitted.requester.name} has {count} requests that are neither granted nor over, "
        "and no further request is admitted"
    )


def _create(
    worker: WorkerContext,
    submitted: Submission,
    revision: Revision,
    decision: RequestDecision,
    *,
    recovered_from: PublishedEnd | None = None,
) -> None:
    """Create the task in the ledger. Raises WrongState where it exists."""
    now = worker.now()
    number = revision.content.revision
    task = TaskRow(
        task_id=submitted.spec.id,
        state=decision.state,
        end_reason=None,
        revision=number,
        digest=revision.digest,
        requester=submitted.requester.id,
        agent=revision.content.agent.entity,
        version=0,
        seq=0,
        head=GENESIS,
        created_at=now,
        due_at=look_at(submitted.spec.window, submitted.written_at, now),
        ends_at=None,
        ending_at=None,
        dead_ms=None,
        confirmed_ms=None,
        receipt=None,
        parent=submitted.spec.spec.parent,
    )
    rows = (*opened_rows(task.task_id, revision, number, decision.policy), *decision_rows(task.task_id, decision))
    body = Submitted(
        revision=number,
        digest=revision.digest,
        request=submitted.envelope,
        decision=stated_decision(task.task_id, decision),
        note=decision.why_denied,
        recovered_from=recovered_from,
    )
    worker.ledger.create(task, Change(EventKind.SUBMITTED, body, rows=rows), at=now)
