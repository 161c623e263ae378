"""Bring a task that is not granted yet up to what its documents, its templates and policy say now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import REQUEST_LIFE, is_stale, submission_path
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import InvalidInput, NotFound, SecurityFinding, WrongState
from jitvault.formats.time_window import format_duration, format_instant
from jitvault.ledger.judgements import Judged, Judgement
from jitvault.ledger.model import Change, Row, TaskRecord, TaskRow
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_above, check_room
from jitvault.lifecycle.decision.evaluate import Standing, check_grantable, evaluate, resolve
from jitvault.lifecycle.decision.rows import decision_event_body, lapsed_rows, opened_rows, revision_row, vote_rows
from jitvault.lifecycle.decision.template_gate import check_selftested
from jitvault.lifecycle.record.receipt import last_decision
from jitvault.lifecycle.requests.publish import publish_refusal
from jitvault.lifecycle.requests.reader import Submission, find_request, submission
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision, difference, grant_terms
from jitvault.model.states import BEFORE_GRANT, EDGES, State
from jitvault.vault.interface import Entity, Stored

_TOO_OLD = "If it is still wanted, sign it anew with `jitvault submit`; under another id if it was granted before."
_TOO_MANY = "Cancel some with `jitvault cancel`, or have them granted; then sign this one again."
_REFUSED = "The request is settled and is not taken up again: correct the spec and run the command again."


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a decision rests on, as it was read just now, and the decision."""

    submitted: Submission
    standing: Standing


def admit_request(worker: WorkerContext, task_id: str, *, hint: str | None) -> Evaluation | None:
    """Enter a task that the ledger does not know from its signed request in Vault.

    Returns the evaluation when this call entered the task, so that the caller need not read the same again; None when
    the ledger had it. `hint` is the entity whose request is looked for first. Raises NotFound, InvalidInput.
    """
    if worker.ledger.task(task_id) is not None:
        return None
    found = find_request(worker, task_id, hint=hint)
    if found is None:
        raise NotFound(f"nobody has submitted a task {task_id}")
    requester, stored = found
    path = submission_path(requester, task_id)
    line_at, judgement = worker.ledger.newest_line(path), Judgement.INVALID
    try:
        submitted = _submitted(worker, task_id, requester, stored)
        judgement = Judgement.REFUSED
        return _enter(worker, submitted)
    except (InvalidInput, NotFound, SecurityFinding) as error:
        if judgement is Judgement.REFUSED and isinstance(error, SecurityFinding):
            judgement = Judgement.LOST
        # nobody has to read it again while it is the newest version
        worker.ledger.judge([judged(path, stored, judgement, line_at)], worker.now())
        raise


def _submitted(worker: WorkerContext, task_id: str, requester: str, stored: Stored) -> Submission:
    submitted = submission(worker, task_id, requester, stored)
    if submitted is None:
        raise NotFound(f"nobody has submitted a task {task_id}")
    return submitted


def judged(path: str, stored: Stored, judgement: Judgement, line_at: datetime | None) -> Judged:
    """What is remembered of a request that begins no task."""
    return Judged(path, stored.version, stored.written_at, judgement, line_at)


def _enter(worker: WorkerContext, submitted: Submission) -> Evaluation | None:
    task_id = submitted.spec.id
    published = worker.documents.get(f"tasks/{task_id}")
    if published is not None and published.get("installation") == worker.installation:
        if worker.ledger.task(task_id) is not None:
            # another process has taken it in since
            return None
        raise SecurityFinding(
            f"task {task_id} is known in Vault (it was {published.get('state')}) and missing in the ledger",
            hint="The ledger was lost or restored: `jitvault ledger recover` takes it in again, as far as it can.",
        )
    check_not_refused(published or {}, submitted)
    if is_stale(submitted.written_at, worker.now()):
        raise _refused(worker, submitted, _too_old(submitted), _TOO_OLD)
    if (count := worker.ledger.open_requests(submitted.requester.id)) >= worker.open_requests:
        raise _refused(worker, submitted, _too_many(submitted, count), _TOO_MANY)
    try:
        revision = resolve(worker, submitted, number=1)
        check_grantable(worker, revision)
    except InvalidInput as error:
        raise _refused(worker, submitted, str(error), _REFUSED) from None
    standing = evaluate(worker, revision)
    try:
        _create(worker, submitted, revision, standing)
    except WrongState:
        # another process that took it in at the same moment did the same
        return None
    same = submitted.spec.spec.parent is None and not submitted.spec.window.lapsed(worker.now())
    return Evaluation(submitted, standing) if same else None


def readmit_request(worker: WorkerContext, task_id: str, *, said: PublishedTask) -> Standing:
    """Take a task that was published, never granted, and that the ledger lost, in from its request in Vault.

    It has the number of the revision that was published: while it resolves to the same digest approvals of it count.
    Gives where it stands. Raises NotFound, and InvalidInput for what cannot be granted any more, which is told to
    whoever asked.
    """
    submitted = submission(worker, task_id, said.requester)
    if submitted is None:
        raise NotFound(f"nobody has submitted a task {task_id}")
    try:
        revision = resolve(worker, submitted, number=said.revision)
        if revision.digest != said.digest:
            revision = resolve(worker, submitted, number=said.revision + 1)
        check_grantable(worker, revision)
    except InvalidInput as error:
        raise _refused(worker, submitted, str(error), _REFUSED) from None
    standing = evaluate(worker, revision)
    with suppress(WrongState):
        # a worker that took it in at the same moment did the same
        _create(worker, submitted, revision, standing, recovered_from=said.chain)
    return standing


def check_not_refused(published: Mapping[str, Any], submitted: Submission) -> None:
    """Raise the refusal again: what a person was told is refused is not granted later, when nobody looks."""
    same = (published.get("requester"), published.get("request")) == (submitted.requester.id, submitted.nonce)
    if published.get("state") == "refused" and same:
        raise InvalidInput(str(published["error"]["message"]), hint=str(published["error"]["hint"]))


def _refused(worker: WorkerContext, submitted: Submission, why: str, hint: str) -> InvalidInput:
    """The refusal of a request, which is told to whoever waits as well."""
    refusal = InvalidInput(why, hint=hint)
    publish_refusal(worker, submitted, refusal)
    return refusal


def _too_old(submitted: Submission) -> str:
    """What was published of a task that is over is removed after a time, and a restored ledger does not know it: that a
    request is young is all that tells one that nobody has taken in from one that was granted long ago.
    """
    written = format_instant(submitted.written_at)
    return (
        f"task {submitted.spec.id}: its request was written at {written}, and neither the ledger nor Vault says what "
        f"became of it: a request begins nothing once it is {format_duration(REQUEST_LIFE)} old"
    )


def _too_many(submitted: Submission, count: int) -> str:
    return (
        f"task {submitted.spec.id}: {submitted.requester.name} has {count} requests that are neither granted nor over, "
        "and no more are taken in"
    )


def reevaluate(worker: WorkerContext, file: TaskRecord, claim: int) -> Evaluation | None:
    """Re-read everything that the decision rests on and move the task to where it belongs now.

    Gives what was found about the current revision, None when the window is over or the request was removed. What the
    ledger says about requester, decisions and obligations is not looked at: all of it is read from Vault and policy
    again.
    Raises WrongState when the spec was changed without `revise`.
    """
    task, old = file.task, Revision.of(file.revision.body)
    stored = worker.documents.read(submission_path(task.requester, task.task_id))
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
    standing = evaluate(worker, revision)
    if not changed and _was_denied(file):
        return Evaluation(submitted, standing)
    if changed:
        _revise(worker, file, claim, revision, standing)
    elif _is_news(file, standing):
        cast = vote_rows(task.task_id, standing)
        decided = revision_row(task.task_id, revision, task.revision, standing)
        rows: list[Row] = [decided, *cast, *lapsed_rows(file, cast)]
        _move(worker, file, claim, standing.state, decision_event_body(task.task_id, standing), rows)
    return Evaluation(submitted, standing)


def _cancel_removed(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Cancel a task whose request is not there any more: its author has removed it, or an administrator."""
    if State.CANCELLED not in EDGES[file.task.state]:
        return
    requester = Revision.of(file.revision.body).content["requester"]
    body = {"by": requester["entity"], "name": requester["name"], "note": "the request was removed from Vault"}
    change = Change(EventKind.CANCELLED, body, state=State.CANCELLED)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _is_news(file: TaskRecord, standing: Standing) -> bool:
    """Whether the chain does not say yet what stands now; also another policy set that decides the same is news."""
    said, task_id = last_decision(file), file.task.task_id
    told = {key: value for key, value in decision_event_body(task_id, standing).items() if said.get(key) != value}
    return standing.state is not file.task.state or bool(told) or vote_rows(task_id, standing) != file.decisions


def _was_denied(file: TaskRecord) -> bool:
    """Whether an approver denied this very revision: that is final, whatever they sign afterwards."""
    return file.task.state is State.DENIED and last_decision(file).get("denied_by") is not None


def drift_since_approval(worker: WorkerContext, file: TaskRecord) -> str | None:
    """What a granted task's request and templates resolve to now and is not what was approved; None for no difference.

    What was approved is resolved anew, whatever lies in the request by now: another spec there waits for its own
    decision, and neither ends this one nor hides what became of it.
    """
    try:
        submitted = submission(worker, file.task.task_id, file.task.requester)
    except InvalidInput as error:
        return str(error)
    return "its request is gone" if submitted is None else _drift(worker, file, submitted)


def drift_besides_request(worker: WorkerContext, file: TaskRecord) -> str | None:
    """The difference to what was approved that is not in the request: what its author does to it afterwards changes
    nothing about what the target was.
    """
    revision = Revision.of(file.revision.body)
    requester = revision.content["requester"]
    entity = Entity(requester["entity"], requester["name"], disabled=False, group_ids=frozenset())
    asked = Submission(entity, revision.spec, revise=False, nonce="", written_at=file.task.created_at)
    return _drift(worker, file, asked)


def _drift(worker: WorkerContext, file: TaskRecord, submitted: Submission) -> str | None:
    approved = Revision.of(file.revision.body)
    try:
        now = resolve(worker, replace(submitted, spec=approved.spec), number=file.task.revision)
    except InvalidInput as error:
        return str(error)
    if now.digest == approved.digest:
        return None
    first, *more = difference(approved, now) or ["its digest"]
    return first + (f", and {len(more)} more" if more else "")


def still_grantable(worker: WorkerContext, file: TaskRecord) -> Standing | None:
    """Where a task stands whose issue did not finish, if it may be issued again: all of it still holds, read now."""
    revision = Revision.of(file.revision.body)
    if drift_since_approval(worker, file) is not None:
        return None
    try:
        standing = evaluate(worker, revision)
        check_above(worker, revision)
        check_room(worker, revision)
        grant_terms(
            revision, worker.now(), cap_to_ancestors(worker, revision, worker.now(), standing.decision.obligations)
        )
        check_selftested(worker, revision, standing.decision.obligations.confirm)
    except InvalidInput:
        return None
    same = standing.decision.obligations.as_json() == last_decision(file).get("obligations")
    return standing if same and standing.state is State.APPROVED else None


def _create(
    worker: WorkerContext,
    submitted: Submission,
    revision: Revision,
    standing: Standing,
    *,
    recovered_from: Mapping[str, Any] | None = None,
) -> None:
    now, number = worker.now(), int(revision.content["revision"])
    task = TaskRow(
        task_id=submitted.spec.id,
        state=standing.state,
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
    rows = (*opened_rows(task.task_id, revision, number, standing), *vote_rows(task.task_id, standing))
    body = {"revision": number, "digest": revision.digest, **decision_event_body(task.task_id, standing)}
    if recovered_from is not None:
        body["recovered_from"] = dict(recovered_from)
    worker.ledger.create(task, Change(EventKind.SUBMITTED, body, rows=rows), at=now)


def _revise(worker: WorkerContext, file: TaskRecord, claim: int, revision: Revision, standing: Standing) -> None:
    number = file.task.revision + 1
    if file.task.state not in BEFORE_GRANT:
        raise WrongState(f"task {file.task.task_id} is {file.task.state} and cannot be revised")
    change = Change(
        EventKind.REVISED,
        {"revision": number, "digest": revision.digest, **decision_event_body(file.task.task_id, standing)},
        state=standing.state,
        fields={
            "revision": number,
            "digest": revision.digest,
            "due_at": revision.window.look_at(worker.now()),
            "parent": revision.spec.spec.parent,
        },
        rows=(*opened_rows(file.task.task_id, revision, number, standing), *vote_rows(file.task.task_id, standing)),
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
    if not rows and file.task.state is state:
        return
    worker.ledger.apply(
        file.task.task_id,
        Change(EventKind.DECIDED, body, state=state, rows=rows),
        claim=claim,
        at=worker.now(),
    )
