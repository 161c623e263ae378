"""Why a task that holds access ends: the reasons, in the order in which they count."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.ledger.model import Change, TaskRecord
from jitvault.lifecycle.decision.admit import drift_since_approval
from jitvault.lifecycle.decision.ancestors import ancestor_end_reason
from jitvault.lifecycle.decision.evaluate import why_not_renewed
from jitvault.lifecycle.decision.still_approved import approval_lapse_reason
from jitvault.lifecycle.renewal.renew import TOKEN_EXPIRED
from jitvault.lifecycle.renewal.schedule import claim_by, next_beat_by
from jitvault.lifecycle.requests.end_documents import end_reasons, end_request, may_end
from jitvault.lifecycle.requests.freezes import freeze_of
from jitvault.lifecycle.revocation.revoke import EndCause
from jitvault.model.extension import extended
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State


def frozen(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    """Everything ends while a tripwire's freeze is on, and what an operator's covers."""
    freeze = worker.ledger.freeze()
    if freeze:
        return EndReason.FROZEN, {"note": freeze.reason, "line": freeze.line}
    word = freeze_of(worker, file)
    return (EndReason.FROZEN, {"note": word.reason, "by": word.by, "scope": str(word.scope)}) if word else None


def ended_above(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    """What was handed on ends with whatever is above it."""
    return (
        (EndReason.PARENT, {"note": why})
        if (why := ancestor_end_reason(worker, Revision.of(file.revision.body)))
        else None
    )


def _tripped(trips: Sequence[TripwireHit]) -> EndCause | None:
    """What must not happen happened: the first of it is the reason, all of it are findings."""
    if not trips:
        return None
    first = trips[0]
    return first.reason, {"rule": first.rule.value, "note": first.message, "line": first.line}


def _asked_to_end(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    ended = end_request(worker, file.task.task_id, entitled=entitled(file))
    if ended is not None:
        # cancelling what was granted in the meantime ends it
        return ended.reason or EndReason.OPERATOR, ended.said()
    end = file.task.ends_at
    if end is not None and worker.now() >= end:
        return EndReason.DEADLINE, {"deadline": end.isoformat()}
    return None


def why_end(worker: WorkerContext, file: TaskRecord, trips: Sequence[TripwireHit]) -> EndCause | None:
    """The first reason that holds, None while the task may go on."""
    return frozen(worker, file) or _tripped(trips) or ended_above(worker, file) or _over(worker, file)


def why_end_blind(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    """The reasons that need no evidence from the stream."""
    return frozen(worker, file) or ended_above(worker, file) or _asked_to_end(worker, file)


def why_end_replacing(worker: WorkerContext, file: TaskRecord, trips: Sequence[TripwireHit]) -> EndCause | None:
    """The first reason that holds while an extension puts one token in another's place."""
    above = frozen(worker, file) or _tripped(trips) or ended_above(worker, file)
    return above or _asked_to_end(worker, file) or _forbidden(worker, file) or _drifted(worker, file)


def _over(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    task, grant = file.task, file.grants[-1]
    asked = _asked_to_end(worker, file)
    if asked is not None and asked[0] is not EndReason.DEADLINE:
        return asked
    if worker.ledger.gave_back(grant.accessor_hmac or ""):
        return EndReason.COMPLETED, {"note": "the agent revoked its own token"}
    if asked is not None:
        return asked
    now = worker.now()
    if task.state is State.ISSUED and now > (claim_by(grant) or now) and not unwrapped(worker, file):
        return EndReason.UNCLAIMED, {"wrap_ttl_s": grant.wrap_ttl_s}
    if grant.expires_at is not None and now >= grant.expires_at:
        return TOKEN_EXPIRED
    return _silent(worker, file) or _forbidden(worker, file) or _drifted(worker, file)


def _silent(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    """Its agent gave no sign of life for too long. What is due is judged on a stream that was read up to now."""
    beat = next_beat_by(worker, file)
    if beat is None or worker.now() < beat:
        return None
    return EndReason.HEARTBEAT, {"note": "no audited line of its token came in time", "beat_by": beat.isoformat()}


def _forbidden(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    """Policy does not permit that it goes on, what approved it does not hold, or who asked for it is disabled."""
    revision = Revision.of(file.revision.body)
    requester = revision.content["requester"]
    entity = worker.identity.by_id(requester["entity"])
    if entity is None or entity.disabled:
        return EndReason.POLICY, {"note": f"the requester {requester['name']} is disabled or gone"}
    if said := approval_lapse_reason(worker, file):
        return EndReason.POLICY, said
    longer = extended(file.events)
    window_s = longer[-1].body["extension"]["window_s"] if longer else None
    why = why_not_renewed(worker, revision, window_s)
    return (EndReason.POLICY, {"note": why}) if why else None


def _drifted(worker: WorkerContext, file: TaskRecord) -> EndCause | None:
    what = drift_since_approval(worker, file)
    return (EndReason.DRIFT, {"note": f"it is not what was approved: {what:.300}"}) if what is not None else None


def keep_reasons(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Enter what people said about the end of a task after it had begun: why it ended stays as it was."""
    known = {(event.body.get("by"), event.body.get("note")) for event in file.events}
    for wish in end_reasons(worker, file.task.task_id, entitled=entitled(file)):
        if (wish.by.id, wish.note) not in known:
            worker.ledger.apply(file.task.task_id, Change(EventKind.NOTED, wish.said()), claim=claim, at=worker.now())


def unwrapped(worker: WorkerContext, file: TaskRecord) -> bool:
    """Whether the task's token was taken out of its wrapping, by whomever."""
    hmac = file.grants[-1].accessor_hmac
    return hmac is not None and worker.ledger.was_unwrapped(hmac)


def entitled(file: TaskRecord) -> dict[str, str]:
    """Who may end the task besides operators."""
    return may_end(Revision.of(file.revision.body).content)
