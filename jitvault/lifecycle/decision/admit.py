"""Admit a request to the ledger, and decide about it until the grant.

An admitted task is decided about again and again until it is granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import REQUEST_LIFE, is_stale, request_path
from jitvault.documents.published_task import IllegibleDocument, PublishedDocument, PublishedRefusal, PublishedTask
from jitvault.errors import InvalidInput, NotFound, SecurityFinding, WrongState
from jitvault.formats.time_window import format_duration, format_instant
from jitvault.ledger.documents.judgements import Judged, Judgement
from jitvault.ledger.model import Change, Row, TaskRecord, TaskRow
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_above, check_room
from jitvault.lifecycle.decision.evaluate import check_grantable, evaluate, resolve
from jitvault.lifecycle.decision.template_gate import check_templates_tested
from jitvault.lifecycle.record.history import (
    decision_event_body,
    decision_rows,
    lapsed_rows,
    last_decision,
    opened_rows,
    revision_row,
)
from jitvault.lifecycle.record.integrity import published
from jitvault.lifecycle.requests.publish import publish_refusal
from jitvault.lifecycle.requests.reader import Submission, find_request, submission
from jitvault.model.approval import RequestDecision
from jitvault.model.event_chain import GENESIS
from jitvault.model.grant_terms import grant_terms
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.revision_text import difference
from jitvault.model.states import BEFORE_GRANT, EDGES, State
from jitvault.vault.interface import Entity, Stored

_TOO_OLD = "If it is still wanted, sign it anew with `jitvault submit`; under another id if it was granted before."
_TOO_MANY = "Cancel some with `jitvault cancel`, or have them granted; then sign this one again."
_REFUSED = "The request is settled and is not taken up again: correct the spec and run the command again."


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A request as it was read just now, and the decision about it."""

    submitted: Submission
    decision: RequestDecision


def admit_request(worker: WorkerContext, task_id: str, *, hint: str | None) -> Evaluation | None:
    """Admit a task that the ledger does not know.

    The task is admitted by its signed request in Vault. Returns the evaluation when this call admitted the task, so
    that the caller need not read everything again; None when the ledger knew the task. `hint` is the entity whose
    request is looked for first. Raises NotFound, InvalidInput.
    """
    if worker.ledger.task(task_id) is not None:
        return None
    found = find_request(worker, task_id, hint=hint)
    if found is None:
        raise NotFound(f"no one has submitted a task {task_id}")
    requester, stored = found
    path = request_path(requester, task_id, "submit")
    line_at = worker.ledger.newest_line(path)
    judgement = Judgement.INVALID
    try:
        submitted = _submitted(worker, task_id, requester, stored)
        judgement = Judgement.REFUSED
        return _enter(worker, submitted)
    except (InvalidInput, NotFound, SecurityFinding) as error:
        if judgement is Judgement.REFUSED and isinstance(error, SecurityFinding):
            judgement = Judgement.LOST
        # the request need not be read again while this is its newest version
        worker.ledger.judge([Judged(path, stored.version, stored.written_at, judgement, line_at)], worker.now())
        raise


def _submitted(worker: WorkerContext, task_id: str, requester: str, stored: Stored) -> Submission:
    """Return the verified request.

    Raises NotFound where the request counts for nothing.
    """
    submitted = submission(worker, task_id, requester, stored)
    if submitted is None:
        raise NotFound(f"no one has submitted a task {task_id}")
    return submitted


def _enter(worker: WorkerContext, submitted: Submission) -> Evaluation | None:
    """Check a request, decide about it, and create its task in the ledger.

    Returns None where another process created the task first, or where the caller has to read again.
    """
    task_id = submitted.spec.id
    published_copy = published(worker, task_id)
    if (
        isinstance(published_copy, PublishedTask | IllegibleDocument)
        and published_copy.installation == worker.installation
    ):
        if worker.ledger.task(task_id) is not None:
            # another process has admitted the request meanwhile
            return None
        raise SecurityFinding(
            f"task {task_id} is known in Vault (it was {published_copy.state}) and missing in the ledger",
            hint="The ledger was lost or restored: `jitvault ledger recover` imports the task again, as far as "
            "possible.",
        )
    check_not_refused(published_copy, submitted)
    if is_stale(submitted.written_at, worker.now()):
        raise _refused(worker, submitted, _too_old(submitted), _TOO_OLD)
    count = worker.ledger.open_requests(submitted.requester.id)
    if count >= worker.open_requests:
        raise _refused(worker, submitted, _too_many(submitted, count), _TOO_MANY)
    try:
        revision = resolve(worker, submitted, number=1)
        check_grantable(worker, revision)
    except InvalidInput as error:
        raise _refused(worker, submitted, str(error), _REFUSED) from None
    decision = evaluate(worker, revision)
    try:
        _create(worker, submitted, revision, decision)
    except WrongState:
        # another process admitted the same request at the same moment
        return None
    still_holds = submitted.spec.spec.parent is None and not submitted.spec.window.lapsed(worker.now())
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
        revision = resolve(worker, submitted, number=published_copy.revision)
        if revision.digest != published_copy.digest:
            revision = resolve(worker, submitted, number=published_copy.revision + 1)
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


def reevaluate(worker: WorkerContext, file: TaskRecord, claim: int) -> Evaluation | None:
    """Decide about a task anew, and move it to the state that follows.

    Everything that the decision rests on is read from Vault and policy again; what the ledger says about requester,
    decisions and obligations is not used. Returns the evaluation of the current revision, None when the window is over
    or the request was removed. Raises WrongState when the spec was changed without `revise`.
    """
    task, old = file.task, Revision.of(file.revision.body)
    stored = worker.documents.read(request_path(task.requester, task.task_id, "submit"))
    if stored is None:
        _cancel_removed(worker, file, claim)
        return None
    submitted = submission(worker, task.task_id, task.requester, stored)
    if submitted is None:
        raise SecurityFinding(f"task {task.task_id} has no request by {task.requester} in Vault")
    if submitted.spec.window.lapsed(worker.now()) and submitted.spec.canonical() == old.content["spec"]:
        _move(worker, file, claim, State.LAPSED, {"why": "its window is over"})
        return None
    revision = resolve(worker, submitted, number=task.revision)
    check_above(worker, revision)
    changed = revision.digest != old.digest
    if changed:
        if submitted.spec.canonical() != old.content["spec"] and not submitted.revise:
            raise WrongState(
                f"task {task.task_id} was submitted with another spec: " + "; ".join(difference(old, revision)[:5]),
                hint="Use --revise to replace it by a new revision, or another id for another task.",
            )
        revision = resolve(worker, submitted, number=task.revision + 1)
        check_grantable(worker, revision)
    decision = evaluate(worker, revision)
    if not changed and _was_denied(file):
        return Evaluation(submitted, decision)
    if changed:
        _revise(worker, file, claim, revision, decision)
    elif _is_news(file, decision):
        counting = decision_rows(task.task_id, decision)
        decided = revision_row(task.task_id, revision, task.revision, decision)
        rows: list[Row] = [decided, *counting, *lapsed_rows(file, counting)]
        _move(worker, file, claim, decision.state, decision_event_body(task.task_id, decision), rows)
    return Evaluation(submitted, decision)


def _cancel_removed(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Cancel a task whose request its author or an administrator has removed."""
    if State.CANCELLED not in EDGES[file.task.state]:
        return
    requester = Revision.of(file.revision.body).content["requester"]
    body = {"by": requester["entity"], "name": requester["name"], "note": "the request was removed from Vault"}
    change = Change(EventKind.CANCELLED, body, state=State.CANCELLED)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _is_news(file: TaskRecord, decision: RequestDecision) -> bool:
    """Return whether the decision differs from the last one in the chain.

    A decision by another policy set differs even when its result is equal.
    """
    task_id = file.task.task_id
    last = last_decision(file)
    body = decision_event_body(task_id, decision)
    if any(last.get(key) != value for key, value in body.items()):
        return True
    return decision.state is not file.task.state or decision_rows(task_id, decision) != file.decisions


def _was_denied(file: TaskRecord) -> bool:
    """Return whether an approver denied this revision.

    A denial is final, whatever the approver signs afterwards.
    """
    return file.task.state is State.DENIED and last_decision(file).get("denied_by") is not None


def drift_since_approval(worker: WorkerContext, file: TaskRecord) -> str | None:
    """Return how a granted task differs now from what was approved.

    The result is None if it does not.

    The approved spec is resolved again in Vault, whatever spec the request has by now: another spec there waits for its
    own decision, and neither ends this task nor hides a difference in what was approved.
    """
    try:
        submitted = submission(worker, file.task.task_id, file.task.requester)
    except InvalidInput as error:
        return str(error)
    return "its request is gone" if submitted is None else _drift(worker, file, submitted)


def drift_besides_request(worker: WorkerContext, file: TaskRecord) -> str | None:
    """Return how Vault differs from what was approved, the request left aside.

    What the author does to the request afterwards does not change what the target was.
    """
    revision = Revision.of(file.revision.body)
    requester = revision.content["requester"]
    entity = Entity(requester["entity"], requester["name"], disabled=False, group_ids=frozenset())
    submitted = Submission(entity, revision.spec, revise=False, nonce="", written_at=file.task.created_at)
    return _drift(worker, file, submitted)


def _drift(worker: WorkerContext, file: TaskRecord, submitted: Submission) -> str | None:
    """Return the first difference between approved revision and spec.

    The comparison is with the spec as it resolves now.
    """
    approved = Revision.of(file.revision.body)
    try:
        now = resolve(worker, replace(submitted, spec=approved.spec), number=file.task.revision)
    except InvalidInput as error:
        return str(error)
    if now.digest == approved.digest:
        return None
    first, *more = difference(approved, now) or ["its digest"]
    return first + (f", and {len(more)} more" if more else "")


def still_grantable(worker: WorkerContext, file: TaskRecord) -> RequestDecision | None:
    """Return the decision on a task with an unfinished issue.

    It is returned if it still holds. Everything is read again. None where the task must not be issued another time.
    """
    revision = Revision.of(file.revision.body)
    if drift_since_approval(worker, file) is not None:
        return None
    try:
        decision = evaluate(worker, revision)
        check_above(worker, revision)
        check_room(worker, revision)
        grant_terms(
            revision, worker.now(), cap_to_ancestors(worker, revision, worker.now(), decision.policy.obligations)
        )
        check_templates_tested(worker, revision, decision.policy.obligations.confirm)
    except InvalidInput:
        return None
    same = decision.policy.obligations.as_json() == last_decision(file).get("obligations")
    return decision if same and decision.state is State.APPROVED else None


def _create(
    worker: WorkerContext,
    submitted: Submission,
    revision: Revision,
    decision: RequestDecision,
    *,
    recovered_from: Mapping[str, Any] | None = None,
) -> None:
    """Create the task in the ledger. Raises WrongState where it exists."""
    now = worker.now()
    number = int(revision.content["revision"])
    task = TaskRow(
        task_id=submitted.spec.id,
        state=decision.state,
        end_reason=None,
        revision=number,
        digest=revision.digest,
        requester=submitted.requester.id,
        agent=revision.content["agent"]["entity"],
        version=0,
        seq=0,
        head=GENESIS,
        created_at=now,
        due_at=submitted.spec.window.look_at(now),
        ends_at=None,
        ending_at=None,
        dead_ms=None,
        confirmed_ms=None,
        receipt=None,
        parent=submitted.spec.spec.parent,
    )
    rows = (*opened_rows(task.task_id, revision, number, decision), *decision_rows(task.task_id, decision))
    body = {"revision": number, "digest": revision.digest, **decision_event_body(task.task_id, decision)}
    if recovered_from is not None:
        body["recovered_from"] = dict(recovered_from)
    worker.ledger.create(task, Change(EventKind.SUBMITTED, body, rows=rows), at=now)


def _revise(worker: WorkerContext, file: TaskRecord, claim: int, revision: Revision, decision: RequestDecision) -> None:
    """Replace the task's revision by the next one."""
    number = file.task.revision + 1
    if file.task.state not in BEFORE_GRANT:
        raise WrongState(f"task {file.task.task_id} is {file.task.state} and cannot be revised")
    change = Change(
        EventKind.REVISED,
        {"revision": number, "digest": revision.digest, **decision_event_body(file.task.task_id, decision)},
        state=decision.state,
        fields={
            "revision": number,
            "digest": revision.digest,
            "due_at": revision.window.look_at(worker.now()),
            "parent": revision.spec.spec.parent,
        },
        rows=(*opened_rows(file.task.task_id, revision, number, decision), *decision_rows(file.task.task_id, decision)),
    )
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _move(
    worker: WorkerContext,
    file: TaskRecord,
    claim: int,
    state: State,
    body: dict[str, object],
    rows: Sequence[Row] = (),
) -> None:
    """Commit a decision that moves the task to `state`.

    Nothing is committed where the decision changes nothing.
    """
    if not rows and file.task.state is state:
        return
    worker.ledger.apply(
        file.task.task_id,
        Change(EventKind.DECIDED, body, state=state, rows=rows),
        claim=claim,
        at=worker.now(),
    )
