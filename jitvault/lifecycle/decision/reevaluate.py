"""Decide about an admitted task again, until it is granted.

Policy, the approvals and the templates' checks are read anew each time, since each of them can change meanwhile.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.documents.paths import look_at, request_path
from jitvault.errors import InvalidInput, SecurityFinding, WrongState
from jitvault.ledger.model import Change, Row, TaskRecord
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_above, check_room
from jitvault.lifecycle.decision.drift import drift_since_approval
from jitvault.lifecycle.decision.evaluate import Evaluation, check_grantable, evaluate, resolve
from jitvault.lifecycle.decision.template_gate import check_provable
from jitvault.lifecycle.record.history import (
    decision_rows,
    lapsed_rows,
    last_decision,
    opened_rows,
    revision_row,
    stated_decision,
)
from jitvault.lifecycle.requests.reader import Submission, submission
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import Decided, EventBody, Revised, Signed
from jitvault.model.grant_terms import grant_terms
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.revision_text import difference
from jitvault.model.states import BEFORE_GRANT, EDGES, State


def reevaluate(worker: WorkerContext, record: TaskRecord, claim: int) -> Evaluation | None:
    """Decide about a task anew, and move it to the state that follows.

    Everything that the decision rests on is read from Vault and policy again; what the ledger says about requester,
    decisions and obligations is not used. Returns the evaluation of the current revision, None when the request
    has lapsed or was removed. Raises WrongState when the spec was changed without `revise`.
    """
    task, old = record.task, Revision.of(record.revision.body)
    stored = worker.documents.read(request_path(task.requester, task.task_id, "submit"))
    if stored is None:
        _cancel_removed(worker, record, claim)
        return None
    submitted = submission(worker, task.task_id, task.requester, stored)
    if submitted is None:
        raise SecurityFinding(f"task {task.task_id} has no request by {task.requester} in Vault")
    if worker.now() >= submitted.stands_until and submitted.spec.canonical() == old.content.spec:
        if _was_denied(record):
            # a lapsed task can be asked for again, and a person denied this revision for ever
            return Evaluation(submitted, evaluate(worker, old))
        why = "its window is over" if submitted.spec.window.until else "it was not granted in time"
        lapsed = Change(EventKind.LAPSED, EventBody(note=why), state=State.LAPSED)
        worker.ledger.apply(task.task_id, lapsed, claim=claim, at=worker.now())
        return None
    revision = resolve(worker, submitted.requester, submitted.spec, number=task.revision)
    check_above(worker, revision)
    changed = revision.digest != old.digest
    if changed:
        if submitted.spec.canonical() != old.content.spec and not submitted.revise:
            raise WrongState(
                f"task {task.task_id} was submitted with another spec: " + "; ".join(difference(old, revision)[:5]),
                hint="`jitvault submit SPEC --revise` replaces it by a new revision. With `--id ID` this spec asks for "
                "another task.",
            )
        revision = resolve(worker, submitted.requester, submitted.spec, number=task.revision + 1)
        check_grantable(worker, revision)
    decision = evaluate(worker, revision)
    if not changed and _was_denied(record):
        return Evaluation(submitted, decision)
    if changed:
        _revise(worker, record, claim, revision, decision, submitted)
    elif _is_news(record, decision):
        counting = decision_rows(task.task_id, decision)
        decided = revision_row(task.task_id, revision, task.revision, decision.policy)
        rows: list[Row] = [decided, *counting, *lapsed_rows(record, counting)]
        body = Decided(decision=stated_decision(task.task_id, decision), note=decision.why_denied)
        change = Change(EventKind.DECIDED, body, state=decision.state, rows=rows)
        worker.ledger.apply(task.task_id, change, claim=claim, at=worker.now())
    return Evaluation(submitted, decision)


def _cancel_removed(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Cancel a task whose request its author or an administrator has removed."""
    if State.CANCELLED not in EDGES[record.task.state]:
        return
    requester = Revision.of(record.revision.body).content.requester
    body = Signed(by=requester.entity, name=requester.name, note="the request was removed from Vault")
    change = Change(EventKind.CANCELLED, body, state=State.CANCELLED)
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())


def _is_news(record: TaskRecord, decision: RequestDecision) -> bool:
    """Return whether the decision differs from the last one in the chain.

    A decision by another policy set differs even when its result is equal.
    """
    task_id = record.task.task_id
    if last_decision(record) != stated_decision(task_id, decision):
        return True
    return decision.state is not record.task.state or decision_rows(task_id, decision) != record.decisions


def _was_denied(record: TaskRecord) -> bool:
    """Return whether an approver denied this revision.

    A denial is final, whatever the approver signs afterwards.
    """
    return record.task.state is State.DENIED and last_decision(record).denied_by is not None


def still_grantable(worker: WorkerContext, record: TaskRecord) -> RequestDecision | None:
    """Return the decision on a task with an unfinished issue.

    It is returned if it still holds. Everything is read again. None where the task must not be issued another time.
    """
    revision = Revision.of(record.revision.body)
    if drift_since_approval(worker, record) is not None:
        return None
    try:
        decision = evaluate(worker, revision)
        check_above(worker, revision)
        check_room(worker, revision)
        grant_terms(
            revision, worker.now(), cap_to_ancestors(worker, revision, worker.now(), decision.policy.obligations)
        )
        check_provable(worker, revision, decision.policy.obligations.confirm)
    except InvalidInput:
        return None
    same = decision.policy.obligations == last_decision(record).policy.obligations
    return decision if same and decision.state is State.APPROVED else None


def _revise(
    worker: WorkerContext,
    record: TaskRecord,
    claim: int,
    revision: Revision,
    decision: RequestDecision,
    submitted: Submission,
) -> None:
    """Replace the task's revision by the next one, of this request."""
    number = record.task.revision + 1
    if record.task.state not in BEFORE_GRANT:
        raise WrongState(f"task {record.task.task_id} is {record.task.state} and cannot be revised")
    decided = stated_decision(record.task.task_id, decision)
    change = Change(
        EventKind.REVISED,
        Revised(
            revision=number,
            digest=revision.digest,
            request=submitted.envelope,
            decision=decided,
            note=decision.why_denied,
        ),
        state=decision.state,
        fields={
            "revision": number,
            "digest": revision.digest,
            "due_at": look_at(revision.window, submitted.written_at, worker.now()),
            "parent": revision.spec.spec.parent,
        },
        rows=(
            *opened_rows(record.task.task_id, revision, number, decision.policy),
            *decision_rows(record.task.task_id, decision),
        ),
    )
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())
