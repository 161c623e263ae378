"""The state machine of a task: `advance` does whatever is due for it now.

Commands and the worker daemon both call `advance`, under the task's claim. Each turn (`_turn`) decides by the task's
state in the ledger and by what Vault and the audit stream say at that moment. So it does not matter which process ran
the last turn, or where that process crashed.
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
    LedgerUnavailable,
    SecurityFinding,
    VaultBusy,
    VaultRefused,
    VaultUnavailable,
    WrongState,
)
from jitvault.ledger.model import Change, TaskRecord
from jitvault.lifecycle.confirmation.seal import has_late_lease
from jitvault.lifecycle.decision.admit import admit_request
from jitvault.lifecycle.decision.ancestors import ended_above
from jitvault.lifecycle.decision.evaluate import admission
from jitvault.lifecycle.decision.reevaluate import reevaluate, still_grantable
from jitvault.lifecycle.end_reasons import (
    frozen,
    record_end_notes,
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
from jitvault.lifecycle.read_for_turn import check_tripwires, read_for_turn, revoke_without_stream
from jitvault.lifecycle.record.due_time import is_due_now
from jitvault.lifecycle.record.integrity import check_issuable, is_published, problems_of, verify
from jitvault.lifecycle.renewal.cached_reads import read_up_to, with_cached_reads
from jitvault.lifecycle.renewal.extend import extend, issue_replacement
from jitvault.lifecycle.renewal.renew import renew_due
from jitvault.lifecycle.requests.end_documents import end_request, end_request_of_others, entitled
from jitvault.lifecycle.requests.freezes import check_not_frozen
from jitvault.lifecycle.requests.grant_requests import (
    open_grant_request,
    settle_denied_grant,
    settle_refused_grant,
)
from jitvault.lifecycle.requests.publish import publish
from jitvault.lifecycle.revocation.cascade import children_due, revoke_tree
from jitvault.lifecycle.revocation.revoke import is_replaced_token_unproven, revoke_superseded_leases
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import NOTHING, EndCause, EventBody, Signed
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import DELIVERED_STATES, EDGES, EndReason, State
from jitvault.stream.reading import canary

_JUST_NOW_S = 1.0
"""A claim that was taken or extended less than this ago is not extended again."""


def advance(
    worker: WorkerContext, task_id: str, *, hint: str | None = None, deadline: float | None = None
) -> TaskRecord:
    """Do everything that is due for the task now and return its record.

    `hint` is the entity whose documents are looked for first. After `deadline` (by the worker's `clock.monotonic()`)
    nothing new is started, with one exception: each token is still revoked once. A revocation that is under way is
    finished and looked up, and the rest stays due. Raises WaitTimedOut where a lease had no turn.
    """
    if deadline is not None:
        worker = worker.until(deadline)
    if hint is not None:
        worker = replace(worker, asked_by=hint)
    evaluated = admit_request(worker, task_id, hint=hint)
    with worker.ledger.claim(task_id) as claim:
        claimed = worker.clock.monotonic()
        try:
            verified = verify(worker, task_id, claim)
        except SecurityFinding:
            _revoke_despite_contradiction(worker, task_id, claim)
            raise
        file = verified.file
        was_ending = file.task.state is State.ENDING
        step = Step(go_on=True, evaluated=evaluated, file=file, published=verified.published)
        try:
            # Vault may have answered slowly since the claim was taken; a fresh claim lasts for one turn
            claimed = _extend_claim(worker, task_id, claim, claimed)
            while (step := _turn_with_retries(worker, task_id, claim, step)).go_on:
                worker.ledger.extend(task_id, claim)
        except JitvaultError as error:
            # publish what was done before the error, if Vault takes it. After a security finding the ledger cannot be
            # believed, so nothing of it is published. A freeze is also a SecurityFinding, but the ledger is sound then
            if isinstance(error, Frozen) or not isinstance(error, SecurityFinding):
                with contextlib.suppress(JitvaultError):
                    file = _read_after_turns(worker, file, claim, was_ending=was_ending)
                    _publish(worker, file, claim, claimed, step.decision, error)
            raise
        file = _read_after_turns(worker, step.file or file, claim, was_ending=was_ending)
        _publish(worker, file, claim, claimed, step.decision)
        return file


def _turn(worker: WorkerContext, task_id: str, claim: int, last: Step) -> Step:
    """Do once what the task's state asks for."""
    file, trips = read_for_turn(worker, task_id, claim, last.file)
    match file.task.state:
        case State.PENDING_APPROVAL | State.APPROVED | State.DENIED | State.LAPSED:
            return _before_grant(worker, file, claim, last)
        case State.ISSUING if file.task.is_being_replaced:
            return _replace_token(worker, file, claim, trips)
        case State.ISSUING:
            return _resume_issue(worker, file, claim)
        case State.ISSUED | State.ACTIVE:
            return _renew_or_end(worker, file, claim)
        case State.ENDING:
            return _end(worker, file, claim, last)
        case State.CONFIRMED:
            return _seal(worker, file, claim)
        case State.SEALED | State.UNVERIFIED:
            if has_late_lease(file):
                revoke_late_lease(worker, file, claim)
            return Step()
        case State.CANCELLED:
            return Step()
        case never:
            assert_never(never)


def _extend_claim(worker: WorkerContext, task_id: str, claim: int, since: float) -> float:
    """Extend the claim unless it is fresh, and return when it was last ours.

    `since` and the returned time are by the worker's monotonic clock: at `since` the claim is known to have been ours.
    Raises WrongState where another process has taken the task over.
    """
    now = worker.clock.monotonic()
    if now - since < _JUST_NOW_S:
        return since
    worker.ledger.extend(task_id, claim)
    return now


def _publish(
    worker: WorkerContext,
    file: TaskRecord,
    claim: int,
    since: float,
    decision: RequestDecision | None,
    error: JitvaultError | None = None,
) -> None:
    """Publish the task's state to Vault while this process holds its claim.

    A process may be suspended for longer than its claim lives, even right before it writes to Vault. It has then
    overwritten a newer state, so it publishes the newer state again. Raises WrongState where another process has taken
    the task over.
    """
    task_id = file.task.task_id
    # a ledger that accepts no writes gives no other process the claim either
    with contextlib.suppress(LedgerUnavailable):
        since = _extend_claim(worker, task_id, claim, since)
    publish(worker, file, decision, error)
    try:
        with contextlib.suppress(LedgerUnavailable):
            _extend_claim(worker, task_id, claim, since)
    except WrongState:
        publish(worker, worker.file(task_id), None)
        raise


def _revoke_despite_contradiction(worker: WorkerContext, task_id: str, claim: int) -> None:
    """Revoke a task that has to end, although Vault's copy of it differs.

    The ledger and the published copy in Vault disagree about the task. Whoever holds the worker's token can overwrite
    the published copy, and must not be able to keep an access alive by that. Nothing is confirmed from such a ledger.
    Rows that disagree with their own event chain are left alone: they may name another task's token.
    """
    file = worker.legible(task_id)
    if file is None or problems_of(worker, file):
        return
    has_access = file.task.state in DELIVERED_STATES or is_replaced_token_unproven(file)
    why = why_end_blind(worker, file) if has_access else None
    if why is not None or file.task.state is State.ENDING:
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            revoke_tree(worker, file, claim, why=why)


def _read_after_turns(worker: WorkerContext, file: TaskRecord, claim: int, *, was_ending: bool) -> TaskRecord:
    """Return the task as the turns left it, with people's notes on its end.

    `was_ending` says that the task was ending before the first turn. Only then can entitled people have signed further
    reasons since; they are recorded here.
    """
    file = worker.ledger.refreshed(file)
    if was_ending and file.task.state in (State.ENDING, State.CONFIRMED):
        # the access is already revoked, so a note that cannot be read must not hold up the published proof
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            record_end_notes(worker, file, claim)
        file = worker.ledger.refreshed(file)
    return file


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
        state = worker.file(task_id).task.state
        # an unfinished issue is not retried at once: each attempt makes a token
        busy = isinstance(error, VaultBusy) and state is not State.ISSUING
        retry = again_after_pause(worker, last) if busy or state is State.ENDING else None
        if retry is None:
            raise
        return retry


def _before_grant(worker: WorkerContext, file: TaskRecord, claim: int, last: Step) -> Step:
    """Cancel, decide, or grant a task that has no access yet."""
    cancel = end_request(worker, file.task.task_id, entitled=entitled(file))
    if cancel is not None and State.CANCELLED in EDGES[file.task.state]:
        _apply(worker, file, claim, EventKind.CANCELLED, cancel.event_body(Signed), State.CANCELLED)
        return Step()
    try:
        return _decide_or_grant(worker, file, claim, last)
    except (Denied, Frozen, InvalidInput) as error:
        settle_refused_grant(worker, file.task.task_id, claim, error)
        raise


def _decide_or_grant(worker: WorkerContext, file: TaskRecord, claim: int, last: Step) -> Step:
    """Decide about a task, and grant it if its requester wants that now.

    Raises Denied, Frozen or InvalidInput for what must not be granted.
    """
    # a request that was admitted a moment ago and has not changed is not evaluated twice
    evaluated = last.evaluated if file.task.seq == 1 else None
    evaluation = evaluated or reevaluate(worker, file, claim)
    if evaluation is None:
        return Step()
    # a reevaluation records what is decided now
    file = worker.ledger.refreshed(file)
    submitted, decision = evaluation.submitted, evaluation.decision
    if file.task.state is State.DENIED:
        file = settle_denied_grant(worker, file, claim, submitted.spec)
    due = file.task.state is State.APPROVED and submitted.spec.window.opens(worker.now())
    request = open_grant_request(worker, file, submitted.spec) if due else None
    if request is None or not request.counts(submitted.spec, decision.tally.approved_by):
        look = look_at(submitted.spec.window, submitted.written_at, worker.now())
        if is_due_now(worker, file) and look != file.task.due_at:
            # nothing can be granted now: it is looked at again when that may have changed
            worker.ledger.apply(
                file.task.task_id, Change(EventKind.KEPT, fields={"due_at": look}), claim=claim, at=worker.now()
            )
        return Step(decision=decision)
    if not is_published(last.published, file):
        # the revision that is granted has to be published first: approvers and `check_issuable` read the same document
        worker.ledger.extend(file.task.task_id, claim)
        publish(worker, file, decision)
    check_issuable(worker, file, claim)
    canary(worker)
    # the canary made sure that all lines up to now are in the ledger
    cancel = end_request_of_others(worker, file.task.task_id, entitled=entitled(file))
    if cancel is not None:
        _apply(worker, file, claim, EventKind.CANCELLED, cancel.event_body(Signed), State.CANCELLED)
        return Step()
    check_not_frozen(worker, file)
    try:
        grant_admission = admission(worker, Revision.of(file.revision.body), decision)
        issue(worker, file, claim, decision.policy.obligations, admission=grant_admission)
    except InvalidInput:
        # its parent task ended between the committed intent and the token's creation
        unfinished = worker.file(file.task.task_id)
        if unfinished.task.state is State.ISSUING:
            _resume_issue(worker, unfinished, claim)
        raise
    return Step(decision=decision)


def _resume_issue(worker: WorkerContext, file: TaskRecord, claim: int) -> Step:
    """Revoke what an unfinished issue may have made; retry it or end the task."""
    file = resolve_unfinished_issue(worker, file, claim)
    cancel = end_request(worker, file.task.task_id, entitled=entitled(file))
    made = [grant for grant in file.grants if grant.accessor_hmac is not None]
    if stop := frozen(worker, file) or ended_above(worker, file):
        return _end(worker, file, claim, why=stop)
    if cancel is not None:
        return _end(worker, file, claim, why=cancel.ends_task(EndReason.ISSUE_FAILED))
    decision = still_grantable(worker, file) if len(made) < MAX_ATTEMPTS else None
    if decision is None:
        return _end(worker, file, claim, why=EndCause(reason=EndReason.ISSUE_FAILED, note="could not be delivered"))
    check_attempt_due(worker, file, claim)
    check_issuable(worker, file, claim)
    canary(worker)
    issue(worker, file, claim, decision.policy.obligations)
    return Step()


def _replace_token(worker: WorkerContext, file: TaskRecord, claim: int, trips: Sequence[TripwireHit]) -> Step:
    """Issue the token that an extension needs, or end the task.

    The extension reaches past what the former token can live, so that one is revoked and another takes its place.
    """
    if not is_replaced_token_unproven(file):
        # as after any unfinished issue: a token that was made but is not known has to be found first
        file = resolve_unfinished_issue(worker, file, claim)
    why = why_end_replacing(worker, file, trips)
    if why is None:
        why = issue_replacement(worker, file, claim)
    if why is None:
        return Step()
    return _end(worker, worker.file(file.task.task_id), claim, why=why)


def _renew_or_end(worker: WorkerContext, file: TaskRecord, claim: int) -> Step:
    """Renew a delivered task while everything holds, else end it at once."""
    # what was read a moment ago is enough to find a reason to end; `worker` reads anew, and alone acts
    reader = with_cached_reads(worker)
    if is_due_now(worker, file) and why_end_blind(reader, file) is None:
        # Nothing is renewed on a stream that lags or belongs to another Vault, and an agent counts as silent only once
        # the stream was read up to now. A task that ends without evidence from the stream does not wait for it.
        try:
            read_up_to(worker, file.task.due_at)
        except AuditUntrusted:
            revoke_without_stream(worker, file, claim)
            raise
        # the stream may have shown lines of the task, up to the canary
        file = worker.ledger.refreshed(file)
    file, trips = check_tripwires(worker, file)
    why = why_end(reader, file, trips)
    if why is None:
        if file.task.state is State.ISSUED and unwrapped(worker, file):
            file = _apply(worker, file, claim, EventKind.UNWRAPPED, NOTHING, State.ACTIVE)
        file = extend(worker, file, claim)
        if file.task.is_being_replaced:
            return _replace_token(worker, file, claim, trips)
        file = revoke_superseded_leases(worker, file, claim)
        why = renew_due(worker, file, claim)
        if why is not None:
            file = worker.ledger.refreshed(file)
    if why is not None:
        # in this turn, not the next one: until the revocation the access is still there
        return _end(worker, file, claim, why=why)
    return Step()


def _end(worker: WorkerContext, file: TaskRecord, claim: int, last: Step = FIRST, why: EndCause | None = None) -> Step:
    """Revoke a task and all tasks below it, and confirm their ends.

    The tasks below are confirmed first, then the task. `why` is the reason, where the task is not ending yet.
    """
    file = revoke_ending(worker, file, claim, last, why)
    if why is not None and why.reason is not EndReason.COMPLETED and not worker.mode.is_daemon:
        # whoever was just cut off asks why; the proof would come too late for the answer
        publish(worker, file, None)
    _advance_children(worker, file, claim)
    return confirm_or_retry(worker, file.task.task_id, claim, last)


def _seal(worker: WorkerContext, file: TaskRecord, claim: int) -> Step:
    """Seal a confirmed task after its settle window, or reopen it."""
    if has_late_lease(file):
        reopen(worker, file, claim, EventKind.LATE_LEASE, "a lease appeared after the task was confirmed")
        return Step(go_on=True)
    if not is_settled(worker, file):
        return Step()
    _advance_children(worker, file, claim)
    return seal_or_reopen(worker, file, claim)


def _advance_children(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Advance the tasks below that come first, and keep the claim meanwhile."""
    for child in children_due(worker, file):
        worker.ledger.extend(file.task.task_id, claim)
        # a task below that fails keeps neither the others nor the task above it from their turn
        with others_go_on(child.task_id):
            advance(worker, child.task_id, deadline=child.deadline)


def _apply(
    worker: WorkerContext, file: TaskRecord, claim: int, event: EventKind, body: EventBody, state: State
) -> TaskRecord:
    """Commit one event that moves the task to `state`; return the task."""
    change = Change(event, body, state=state)
    return worker.ledger.change(file, change, claim=claim, at=worker.now())
