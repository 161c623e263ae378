"""The reasons for which a task with access ends.

They are in the order in which they count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.ledger.model import Change, TaskRecord
from jitvault.lifecycle.decision.ancestors import ended_above
from jitvault.lifecycle.decision.drift import drift_since_approval
from jitvault.lifecycle.decision.evaluate import why_not_renewed
from jitvault.lifecycle.decision.still_approved import approval_lapse_reason
from jitvault.lifecycle.renewal.schedule import next_heartbeat_deadline
from jitvault.lifecycle.requests.end_documents import end_reasons, end_request, entitled
from jitvault.lifecycle.requests.freezes import freeze_of
from jitvault.model.event_bodies import TOKEN_EXPIRED, EndCause, EventBody, Extended, Signed, said
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State
from jitvault.model.ttl import early_end

REPLACED = "wrapping_replaced"
"""The rule of a finding: what an agent was to unwrap is not what jitvault delivered."""


def frozen(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return the freeze that covers the task as its end's cause, or None.

    A tripwire's freeze ends every task. An operator's freeze ends the tasks of its scope.
    """
    freeze = worker.ledger.freeze()
    if freeze:
        return EndCause(reason=EndReason.FROZEN, note=freeze.reason, line=freeze.line or "")
    statement = freeze_of(worker, record)
    if statement is None:
        return None
    # a freeze that covers the task by another name of its agent or owner does not show by itself that it does
    shows = statement.scope.covers(Revision.of(record.revision.body).content)
    return EndCause(
        reason=EndReason.FROZEN,
        note=statement.reason,
        by=statement.author,
        name=statement.by,
        signed=statement.envelope if shows else None,
        scope=str(statement.scope),
    )


def tripped(trips: Sequence[TripwireHit]) -> EndCause | None:
    """Return the first tripwire hit as the cause; every hit is a finding."""
    if not trips:
        return None
    first = trips[0]
    return EndCause(reason=first.reason, rule=first.rule.value, note=first.message, line=first.line)


def _requested_or_due(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return an entitled entity's request to end the task, or its deadline.

    An access that was given back after its deadline ended by that: a program is stopped then and gives it back. A
    request that reports an interception is a finding.
    """
    request = end_request(worker, record.task.task_id, entitled=entitled(record))
    if request is not None and request.reason is EndReason.INTERCEPTED:
        message = f"{request.by.name} reports: {request.note}"
        worker.ledger.finding(record.task.task_id, REPLACED, message, worker.now())
    if request is None:
        return _past_deadline(record, worker.now())
    late = _past_deadline(record, request.written_at) if request.reason is EndReason.COMPLETED else None
    # a request to cancel has no reason; a task that was granted in the meantime is ended by it
    return late or request.ends_task(EndReason.OPERATOR)


def _past_deadline(record: TaskRecord, at: datetime) -> EndCause | None:
    """Return the task's deadline as the cause of what happened at `at`, if it had passed then."""
    ends_at = record.task.ends_at
    return EndCause(reason=EndReason.DEADLINE, deadline=ends_at) if ends_at is not None and at >= ends_at else None


def why_end(worker: WorkerContext, record: TaskRecord, trips: Sequence[TripwireHit]) -> EndCause | None:
    """Return the first cause to end the task; None while it may go on."""
    return frozen(worker, record) or tripped(trips) or ended_above(worker, record) or _over(worker, record)


def why_end_blind(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return the first cause that needs no evidence from the stream."""
    return frozen(worker, record) or ended_above(worker, record) or _requested_or_due(worker, record)


def why_end_replacing(worker: WorkerContext, record: TaskRecord, trips: Sequence[TripwireHit]) -> EndCause | None:
    """Return the first cause while an extension replaces the task's token."""
    above = frozen(worker, record) or tripped(trips) or ended_above(worker, record)
    return above or _requested_or_due(worker, record) or _forbidden(worker, record) or _drifted(worker, record)


def _over(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return the first cause that lies in the task itself.

    That is a request, the task's token, its agent or its approval.
    """
    grant = record.grants[-1]
    requested = _requested_or_due(worker, record)
    if requested is not None and requested.reason is not EndReason.DEADLINE:
        return requested
    if revoked_at := worker.ledger.self_revoked_at(grant.accessor_hmac or ""):
        given_back = EndCause(reason=EndReason.COMPLETED, note="the agent revoked its own token")
        return _past_deadline(record, revoked_at) or given_back
    if requested is not None:
        return requested
    now = worker.now()
    unclaimed = record.task.state is State.ISSUED and now > (grant.unwrap_deadline or now)
    if unclaimed and not unwrapped(worker, record):
        return EndCause(reason=EndReason.UNCLAIMED, wrap_ttl_s=grant.wrap_ttl_s)
    expired_at = early_end(grant.expires_at, grant.renew_at, record.task.ends_at)
    if expired_at is not None and now >= expired_at:
        return TOKEN_EXPIRED
    return _silent(worker, record) or _forbidden(worker, record) or _drifted(worker, record)


def _silent(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return a missed heartbeat as the cause.

    The caller has read the stream up to now, so that a line of the agent's token is not missed.
    """
    beat_by = next_heartbeat_deadline(worker, record)
    if beat_by is None or worker.now() < beat_by:
        return None
    note = "no audited line of its token came in time"
    return EndCause(reason=EndReason.HEARTBEAT, note=note, beat_by=beat_by)


def _forbidden(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return why the task may not go on by policy, or None.

    Its requester is disabled, its approvals do not hold any more, or the policy does not permit that it is renewed.
    """
    revision = Revision.of(record.revision.body)
    requester = revision.content.requester
    entity = worker.identity.by_id(requester.entity)
    if entity is None or entity.disabled:
        return EndCause(reason=EndReason.POLICY, note=f"the requester {requester.name} is disabled or gone")
    lapse = approval_lapse_reason(worker, record)
    if lapse:
        return lapse
    window_s = next((body.extension.window_s for _, body in said(reversed(record.events), Extended)), None)
    why = why_not_renewed(worker, revision, window_s)
    return EndCause(reason=EndReason.POLICY, note=why) if why else None


def _drifted(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return drift as the cause.

    There is drift where Vault does not have any more what was approved.
    """
    drift = drift_since_approval(worker, record)
    if drift is None:
        return None
    return EndCause(reason=EndReason.DRIFT, note=f"it is not what was approved: {drift:.300}")


def record_end_notes(worker: WorkerContext, record: TaskRecord, claim: int) -> TaskRecord:
    """Record notes that were signed on the task's end after it began to end; return the task.

    The reason of the end that is in the chain does not change. The kill switch has its person sign after the tokens are
    revoked, so that its note is in the chain before, without the signature.
    """
    bodies = (body for _, body in said(record.events, EventBody))
    signed = (body for body in bodies if isinstance(body, Signed) or (isinstance(body, EndCause) and body.signed))
    known = {(body.by, body.note) for body in signed}
    recorded = Counter(by for by, _ in known)
    for request in end_reasons(worker, record.task.task_id, entitled=entitled(record), recorded=recorded):
        if (request.by.id, request.note) not in known:
            noted = Change(EventKind.NOTED, request.event_body(Signed))
            record = worker.ledger.change(record, noted, claim=claim, at=worker.now())
    return record


def unwrapped(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether anyone has unwrapped the task's token."""
    accessor_hmac = record.grants[-1].accessor_hmac
    return accessor_hmac is not None and worker.ledger.was_unwrapped(accessor_hmac)
