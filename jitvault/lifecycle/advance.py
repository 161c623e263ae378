"""The state machine of a task: `advance` does whatever is due for it now.

A worker calls `advance`, under the task's claim, and so does a command that breaks glass. Each turn (`_turn`) decides
by the task's state in the ledger and by what Vault and the audit stream say at that moment. So it does not matter which
process ran the last turn, or where that process crashed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.documents.paths import look_at
from jitvault.errors import (
    AuditUntrusted,
    DecisionStale,
    Denied,
    Frozen,
    InvalidInput,
    JitvaultError,
    SecurityFinding,
    VaultBusy,
    VaultRefused,
    VaultUnavailable,
)
from jitvault.ledger.model import Change, TaskRecord
from jitvault.ledger.upkeep import Upkeep
from jitvault.lifecycle.confirmation.seal import has_late_lease
from jitvault.lifecycle.decision.admit import admit_request
from jitvault.lifecycle.decision.ancestors import ended_above
from jitvault.lifecycle.decision.evaluate import Evaluation, admission
from jitvault.lifecycle.decision.reevaluate import reevaluate, still_grantable
from jitvault.lifecycle.end_reasons import (
    frozen,
    record_end_notes,
    tripped,
    unwrapped,
    why_end,
    why_end_blind,
    why_end_replacing,
)
from jitvault.lifecycle.ending import (
    FIRST,
    Step,
    again_after_pause,
    confirm_or_retry,
    is_settled,
    reopen,
    revoke_ending,
    revoke_late_lease,
    seal_or_reopen,
)
from jitvault.lifecycle.issuance.attempts import check_attempt_due
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS, issue
from jitvault.lifecycle.issuance.unfinished import resolve_unfinished_issue
from jitvault.lifecycle.keeping.look import kept_after_turn
from jitvault.lifecycle.read_for_turn import check_tripwires, read_for_turn, revoke_without_stream
from jitvault.lifecycle.record.due_time import is_due_now
from jitvault.lifecycle.record.integrity import check_issuable, is_published, problems_of, verify
from jitvault.lifecycle.renewal.due_turn import due_turn, read_up_to
from jitvault.lifecycle.renewal.extend import extend, issue_replacement
from jitvault.lifecycle.renewal.renew import renew_due
from jitvault.lifecycle.requests.end_documents import end_request, end_request_of_others, entitled
from jitvault.lifecycle.requests.freezes import check_not_frozen
from jitvault.lifecycle.requests.grant_requests import (
    open_grant_request,
    settle_denied_grant,
    settle_refused_grant,
)
from jitvault.lifecycle.requests.publish import publish, publish_claimed, shows
from jitvault.lifecycle.revocation.cascade import children_due, revoke_tree
from jitvault.lifecycle.revocation.revoke import is_replaced_token_unproven, revoke_superseded_leases
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.event_bodies import NOTHING, EndCause, EventBody, Signed
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import DELIVERED_STATES, EDGES, LIVE_STATES, EndReason, State
from jitvault.stream.kept_facts import let_facts_count, read_first
from jitvault.stream.reading import canary


def advance(
    worker: WorkerContext,
    task_id: str,
    *,
    hint: str | None = None,
    deadline: float | None = None,
    shown: Sequence[str] = (),
) -> TaskRecord:
    """Do everything that is due for the task now and return its record.

    `hint` is the entity whose documents are looked for first. `shown` are the places (`jitvault.audit.changes`) of the
    documents that this call is for, where lines have shown each of them. After `deadline` (by the worker's
    `clock.monotonic()`) nothing new is started, with one exception: each token is still revoked once. A revocation that
    is under way is finished and looked up, and the rest stays due. Raises WaitTimedOut where a lease had no turn.
    """
    if deadline is not None:
        worker = worker.until(deadline)
    if hint is not None:
        worker = replace(worker, asked_by=hint)
    with worker.facts.turn(*shown):
        evaluated = admit_request(worker, task_id, hint=hint)
        with worker.ledger.claim(task_id) as claim:
            if evaluated is not None:
                # what was read for the admission counts for the first turn as well
                return _advance_claimed(worker, task_id, claim, evaluated)
            # another process may have had the task until now, and others may have written since
            with worker.facts.turn(*shown):
                return _advance_claimed(worker, task_id, claim, None)


def _advance_claimed(worker: WorkerContext, task_id: str, claim: int, evaluated: Evaluation | None) -> TaskRecord:
    """Do everything that is due for a task that is claimed here, publish it, and return its record.

    `evaluated` is the decision about a request that was admitted just now. A task that may go on is kept, so that its
    renewals need no such turn for a while.
    """
    drops, begun = worker.facts.drops, worker.kept.begin_turn(task_id)
    record = _take_turns(worker, task_id, claim, evaluated)
    kept = kept_after_turn(worker, record, drops) if worker.mode.is_daemon else None
    worker.kept.end_turn(task_id, begun, kept, has_access=record.task.state in LIVE_STATES)
    if kept is not None and kept.can_wait:
        worker.ledger.stay(task_id)
    return record


def _take_turns(worker: WorkerContext, task_id: str, claim: int, evaluated: Evaluation | None) -> TaskRecord:
    """Take one turn after the other while there is more to do, publish the task, and return its record."""
    try:
        verified = verify(worker, task_id, claim)
    except SecurityFinding:
        _revoke_despite_contradiction(worker, task_id, claim)
        raise
    record = verified.record
    was_ending = record.task.state is State.ENDING
    step = Step(go_on=True, evaluated=evaluated, record=record, published=verified.published)
    try:
        # Vault may have answered slowly since the claim was taken; a fresh claim lasts for one turn
        worker.ledger.extend(task_id, claim)
        step = _turn_with_retries(worker, task_id, claim, step)
        while step.go_on:
            worker.ledger.extend(task_id, claim)
            with worker.facts.turn():
                step = _turn_with_retries(worker, task_id, claim, step)
    except JitvaultError as error:
        # publish what was done before the error, if Vault takes it. After a security finding the ledger cannot be
        # believed, so nothing of it is published. A freeze is also a SecurityFinding, but the ledger is sound then
        if isinstance(error, Frozen) or not isinstance(error, SecurityFinding):
            with contextlib.suppress(JitvaultError):
                record = _with_end_notes(worker, worker.ledger.refreshed(record), claim, was_ending=was_ending)
                publish_claimed(worker, record, claim, step.decision, error)
        raise
    if step.record is not None and not step.is_told:
        return step.record
    record = worker.ledger.with_findings(step.record) if step.record else worker.ledger.refreshed(record)
    record = _with_end_notes(worker, record, claim, was_ending=was_ending)
    if step.publication is not None or not shows(worker, verified.published, record):
        publish_claimed(worker, record, claim, step.decision, intent=step.publication)
    return record


def _turn(worker: WorkerContext, task_id: str, claim: int, last: Step) -> Step:
    """Do once what the task's state asks for."""
    record, trips = read_for_turn(worker, task_id, claim, last.record)
    match record.task.state:
        case State.PENDING_APPROVAL | State.APPROVED | State.DENIED | State.LAPSED:
            return _before_grant(worker, record, claim, last)
        case State.ISSUING if record.task.is_being_replaced:
            return _replace_token(worker, record, claim, trips)
        case State.ISSUING:
            return _resume_issue(worker, record, claim)
        case State.ISSUED | State.ACTIVE:
            return _renew_or_end(worker, record, claim)
        case State.ENDING:
            return _end(worker, record, claim, last)
        case State.CONFIRMED:
            return _seal(worker, record, claim)
        case State.SEALED | State.UNVERIFIED:
            if has_late_lease(record):
                revoke_late_lease(worker, record, claim)
            return Step()
        case State.CANCELLED:
            return Step()
        case never:
            assert_never(never)


def _revoke_despite_contradiction(worker: WorkerContext, task_id: str, claim: int) -> None:
    """Revoke a task that has to end, although Vault's copy of it differs.

    The ledger and the published copy in Vault disagree about the task. Whoever holds the worker's token can overwrite
    the published copy, and must not be able to keep an access alive by that. Nothing is confirmed from such a ledger.
    Rows that disagree with their own event chain are left alone: they may name another task's token.
    """
    record = worker.legible(task_id)
    if record is None or problems_of(worker, record):
        return
    has_access = record.task.state in DELIVERED_STATES or is_replaced_token_unproven(record)
    why = why_end_blind(worker, record) if has_access else None
    if why is not None or record.task.state is State.ENDING:
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            revoke_tree(worker, record, claim, why=why)


def _with_end_notes(worker: WorkerContext, record: TaskRecord, claim: int, *, was_ending: bool) -> TaskRecord:
    """Return the task with people's notes on its end.

    `was_ending` says that the task was ending before the first turn. Only then can entitled people have signed further
    reasons since; they are recorded here.
    """
    if was_ending and record.task.state in (State.ENDING, State.CONFIRMED):
        # the access is already revoked, so a note that cannot be read must not hold up the published proof
        with contextlib.suppress(VaultUnavailable, VaultRefused), worker.facts.turn():
            record = record_end_notes(worker, record, claim)
    return record


def _turn_with_retries(worker: WorkerContext, task_id: str, claim: int, last: Step) -> Step:
    """Run one turn; after some failures of Vault, return a step that retries.

    A failed turn is retried a few times, after a pause, while the task is ending or where Vault was busy. What is left
    after the retries stays due, and the ledger says when.
    """
    try:
        return _turn(worker, task_id, claim, last)
    except DecisionStale:
        # nothing was issued: decide again by what holds now
        retry = again_after_pause(worker, last)
        if retry is None:
            raise
        return retry
    except VaultUnavailable as error:
        state = worker.record(task_id).task.state
        # an unfinished issue is not retried at once: each attempt makes a token
        busy = isinstance(error, VaultBusy) and state is not State.ISSUING
        retry = again_after_pause(worker, last) if busy or state is State.ENDING else None
        if retry is None:
            raise
        return retry


def _before_grant(worker: WorkerContext, record: TaskRecord, claim: int, last: Step) -> Step:
    """Cancel, decide, or grant a task that has no access yet."""
    let_facts_count(worker)
    cancel = end_request(worker, record.task.task_id, entitled=entitled(record))
    if cancel is not None and State.CANCELLED in EDGES[record.task.state]:
        _apply(worker, record, claim, EventKind.CANCELLED, cancel.event_body(Signed), State.CANCELLED)
        return Step()
    try:
        return _decide_or_grant(worker, record, claim, last)
    except (Denied, Frozen, InvalidInput) as error:
        settle_refused_grant(worker, record.task.task_id, claim, error)
        raise


def _decide_or_grant(worker: WorkerContext, record: TaskRecord, claim: int, last: Step) -> Step:
    """Decide about a task, and grant it if its requester wants that now.

    Raises Denied, Frozen or InvalidInput for what must not be granted.
    """
    # a request that was admitted a moment ago and has not changed is not evaluated twice
    evaluated = last.evaluated if record.task.seq == 1 else None
    evaluation = evaluated or reevaluate(worker, record, claim)
    if evaluation is None:
        return Step()
    # a reevaluation records what is decided now
    record = worker.ledger.refreshed(record)
    submitted, decision = evaluation.submitted, evaluation.decision
    if record.task.state is State.DENIED:
        record = settle_denied_grant(worker, record, claim, submitted.spec)
    due = record.task.state is State.APPROVED and submitted.spec.window.opens(worker.now())
    request = open_grant_request(worker, record, submitted.spec) if due else None
    if request is None or not request.counts(submitted.spec, decision.tally.approved_by):
        look = look_at(submitted.spec.window, submitted.written_at, worker.now())
        if is_due_now(worker, record) and look != record.task.due_at:
            # nothing can be granted now: it is looked at again when that may have changed
            worker.ledger.keep_up(record, Upkeep(record.task.task_id, claim, fields={"due_at": look}))
        return Step(decision=decision)
    if not is_published(last.published, record):
        # the revision that is granted has to be published first: approvers and `check_issuable` read the same document
        worker.ledger.extend(record.task.task_id, claim)
        publish(worker, record, decision)
    check_issuable(worker, record, claim)
    canary(worker)
    # the canary made sure that all lines up to now are in the ledger
    cancel = end_request_of_others(worker, record.task.task_id, entitled=entitled(record))
    if cancel is not None:
        _apply(worker, record, claim, EventKind.CANCELLED, cancel.event_body(Signed), State.CANCELLED)
        return Step()
    check_not_frozen(worker, record)
    try:
        grant_admission = admission(worker, Revision.of(record.revision.body), decision)
        publication, record = issue(worker, record, claim, decision.policy.obligations, admission=grant_admission)
    except InvalidInput:
        # its parent task ended between the committed intent and the token's creation
        unfinished = worker.record(record.task.task_id)
        if unfinished.task.state is State.ISSUING:
            _resume_issue(worker, unfinished, claim)
        raise
    return Step(decision=decision, publication=publication, record=record)


def _resume_issue(worker: WorkerContext, record: TaskRecord, claim: int) -> Step:
    """Revoke what an unfinished issue may have made; retry it or end the task."""
    record = resolve_unfinished_issue(worker, record, claim)
    cancel = end_request(worker, record.task.task_id, entitled=entitled(record))
    made = [grant for grant in record.grants if grant.accessor_hmac is not None]
    if stop := frozen(worker, record) or ended_above(worker, record):
        return _end(worker, record, claim, why=stop)
    if cancel is not None:
        return _end(worker, record, claim, why=cancel.ends_task(EndReason.ISSUE_FAILED))
    decision = still_grantable(worker, record) if len(made) < MAX_ATTEMPTS else None
    if decision is None:
        return _end(worker, record, claim, why=EndCause(reason=EndReason.ISSUE_FAILED, note="could not be delivered"))
    check_attempt_due(worker, record, claim)
    check_issuable(worker, record, claim)
    canary(worker)
    publication, record = issue(worker, record, claim, decision.policy.obligations)
    return Step(publication=publication, record=record)


def _replace_token(worker: WorkerContext, record: TaskRecord, claim: int, trips: Sequence[TripwireHit]) -> Step:
    """Issue the token that an extension needs, or end the task.

    The extension reaches past what the former token can live, so that one is revoked and another takes its place.
    """
    if not is_replaced_token_unproven(record):
        # as after any unfinished issue: a token that was made but is not known has to be found first
        record = resolve_unfinished_issue(worker, record, claim)
    why = why_end_replacing(worker, record, trips)
    if why is None:
        issued = issue_replacement(worker, record, claim)
        if isinstance(issued, tuple):
            publication, record = issued
            return Step(publication=publication, record=record)
        why = issued
    return _end(worker, worker.record(record.task.task_id), claim, why=why)


def _renew_or_end(worker: WorkerContext, record: TaskRecord, claim: int) -> Step:
    """Renew a delivered task while everything holds, else end it at once."""
    due_at = record.task.due_at
    with due_turn(worker, due_at):
        is_due = is_due_now(worker, record)
        (read_first if is_due and worker.mode.is_scheduled else let_facts_count)(worker)
        waits_for_stream = is_due and why_end_blind(worker, record) is None
    if waits_for_stream:
        # Nothing is renewed on a stream that lags or belongs to another Vault, and an agent counts as silent only once
        # the stream was read up to now. A task that ends without evidence from the stream does not wait for it.
        try:
            read_up_to(worker, due_at)
        except AuditUntrusted:
            revoke_without_stream(worker, record, claim)
            raise
        # the stream may have shown lines of the task, up to the canary
        record = worker.ledger.refreshed(record)
    record, trips = check_tripwires(worker, record)
    with due_turn(worker, due_at):
        why = why_end(worker, record, trips)
    if why is not None and why.reason is EndReason.POLICY:
        # policy counts findings, also that of a line which was entered since the tripwires were looked at
        record, trips = check_tripwires(worker, worker.ledger.refreshed(record))
        why = tripped(trips) or why
    if why is None:
        is_for_unwrapping = record.task.state is State.ISSUED and unwrapped(worker, record)
        if is_for_unwrapping:
            record = _apply(worker, record, claim, EventKind.UNWRAPPED, NOTHING, State.ACTIVE)
        if not (is_for_unwrapping and worker.mode.is_scheduled):
            # a request for an extension is news of its own, and one that no line shows is found by later turns
            record = extend(worker, record, claim)
        if record.task.is_being_replaced:
            return _replace_token(worker, record, claim, trips)
        record = revoke_superseded_leases(worker, record, claim)
        why = renew_due(worker, record, claim)
        if why is not None:
            record = worker.ledger.refreshed(record)
    if why is not None:
        # in this turn, not the next one: until the revocation the access is still there
        return _end(worker, record, claim, why=why)
    return Step()


def _end(
    worker: WorkerContext, record: TaskRecord, claim: int, last: Step = FIRST, why: EndCause | None = None
) -> Step:
    """Revoke a task and all tasks below it, and confirm their ends.

    The tasks below are confirmed first, then the task. `why` is the reason, where the task is not ending yet.
    """
    record = revoke_ending(worker, record, claim, last, why)
    if why is not None and why.reason is not EndReason.COMPLETED and not worker.mode.is_daemon:
        # whoever was just cut off asks why; the proof would come too late for the answer
        publish(worker, record, None)
    _advance_children(worker, record, claim)
    return confirm_or_retry(worker, record, claim, last)


def _seal(worker: WorkerContext, record: TaskRecord, claim: int) -> Step:
    """Seal a confirmed task after its settle window, or reopen it."""
    if has_late_lease(record):
        reopen(worker, record, claim, EventKind.LATE_LEASE, "a lease appeared after the task was confirmed")
        return Step(go_on=True)
    if not is_settled(worker, record):
        return Step()
    _advance_children(worker, record, claim)
    return seal_or_reopen(worker, record, claim)


def _advance_children(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Advance the tasks below that come first, and keep the claim meanwhile."""
    for child in children_due(worker, record):
        worker.ledger.extend(record.task.task_id, claim)
        # a task below that fails keeps neither the others nor the task above it from their turn
        with others_go_on(child.task_id):
            advance(worker, child.task_id, deadline=child.deadline)


def _apply(
    worker: WorkerContext, record: TaskRecord, claim: int, event: EventKind, body: EventBody, state: State
) -> TaskRecord:
    """Commit one event that moves the task to `state`; return the task."""
    change = Change(event, body, state=state)
    return worker.ledger.change(record, change, claim=claim, at=worker.now())
