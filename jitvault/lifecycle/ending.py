"""The last states of a task: revoke, confirm, seal.

The task's credentials are revoked, they are confirmed to be dead, and the task is sealed. One turn does what can be
done now. What Vault does not do yet, and what only time brings, is left to later turns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.backoff import doubled, jittered
from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedDocument
from jitvault.ledger.model import Change, CheckRow, OperationRow, TaskRecord
from jitvault.lifecycle.confirmation.confirm import judge, record_judgement
from jitvault.lifecycle.confirmation.evidence import collect_evidence, collect_reconciled, tokens_of
from jitvault.lifecycle.confirmation.force import close_without_proof, force_revoke
from jitvault.lifecycle.confirmation.quiet_rules import QUIET, settles_at
from jitvault.lifecycle.confirmation.seal import has_late_lease, seal
from jitvault.lifecycle.confirmation.seal_check import list_leases, why_proof_fails_now
from jitvault.lifecycle.confirmation.wrapped_read_probes import revoke_wrappings
from jitvault.lifecycle.decision.evaluate import Evaluation
from jitvault.lifecycle.issuance.unfinished import end_unnamed_tokens
from jitvault.lifecycle.read_for_turn import check_tripwires
from jitvault.lifecycle.record.lookups import BACK, gone_before, is_any_live, proven_before
from jitvault.lifecycle.record.reopenings import MOST_ROUNDS, is_going_round, why_reopened, why_seal_postponed
from jitvault.lifecycle.requests.end_documents import EndRequest, force_request, may_end
from jitvault.lifecycle.revocation.cascade import revoke_tree, unproven_below
from jitvault.lifecycle.revocation.revoke import revoke
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import EndCause, EventBody, Judged
from jitvault.model.evidence import MOST_TEXT, Lack, Missing
from jitvault.model.finding import AFTER_SEAL
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.proof_check import QUIET_N
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State, Verdict

_TRIES = 4
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 1.6
_QUIET_WAITS = 3
"""How often one call of `advance` waits for the quiet second of check 7."""
_JUST_NOW = 10 * QUIET
"""How old a look-up may be where the turn after it goes on to judge: with many ends at once, that turn comes late."""
_SKEW = timedelta(seconds=5)
"""How far this host's clock and Vault's may differ where it is only guessed whether the settle window is over."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn hands to the next one.

    This is besides what the turn wrote to the ledger. `go_on` asks for another turn at once. `evaluated` is the
    evaluation by which the request was admitted just now. `record` is the task as it is now, where the turn knows
    that; before the first turn it was verified just now, and `published` is what was published of it. `publication` is
    the intent to publish what the turn did, where it is committed already. `tries` and `waits` count the retries and
    the quiet seconds so far. `forced` says that Vault was made to forget the task's leases. `is_told` says that the
    state in which the turns leave the task is published.
    """

    go_on: bool = False
    evaluated: Evaluation | None = None
    record: TaskRecord | None = None
    published: PublishedDocument | None = None
    publication: OperationRow | None = None
    decision: RequestDecision | None = None
    tries: int = 0
    waits: int = 0
    forced: bool = False
    is_told: bool = True


FIRST = Step()


def again_after_pause(worker: WorkerContext, last: Step) -> Step | None:
    """Pause and return a step that retries.

    The result is None when tries or time are used up.
    """
    pause_s = jittered(doubled(_FIRST_PAUSE_S, last.tries, _LONGEST_PAUSE_S))
    if last.tries >= _TRIES or worker.is_late(pause_s):
        return None
    worker.clock.sleep(pause_s)
    return replace(last, go_on=True, evaluated=None, record=None, published=None, tries=last.tries + 1)


def revoke_ending(
    worker: WorkerContext, record: TaskRecord, claim: int, last: Step, why: EndCause | None
) -> TaskRecord:
    """Revoke and look up the credentials of a task that ends.

    This includes the credentials of the tasks below. `why` is the reason, where the task is not ending yet. Returns the
    task after it.
    """
    if why is None:
        if not last.tries and _was_gone_just_now(worker, record):
            return record
        record, _ = check_tripwires(worker, record)
    is_later = why is None and not (last.tries or last.waits)
    if is_later and is_any_live(worker, proven_before(record)):
        # checked before anything that can fail: a restored Vault has brought a confirmed credential back
        record = reopen(worker, record, claim, EventKind.UNPROVEN, BACK)
    record_round(worker, record)
    return revoke_tree(worker, record, claim, why=why)


def _was_gone_just_now(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether all credentials were gone when they were looked up or judged just now.

    Only the quiet second and other tasks were waited for since. They are looked up once more before the task is
    confirmed.
    """
    if len(gone_before(record)) < len(record.grants) + len(record.leases):
        return False
    asked = (event for event in reversed(record.events) if event.kind in (EventKind.REVOKED, EventKind.JUDGED))
    last = next(asked, None)
    return last is not None and timedelta(0) <= worker.now() - datetime.fromisoformat(last.at) < _JUST_NOW


def _is_quiet_second(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether it is too early to judge: the quiet second after the last revocation is not over.

    What was judged before is judged again at once, and so is what nobody waits or comes back for. Look-ups since do not
    count: a task whose looks are late would be looked up for ever.
    """
    kinds = (OperationKind.REVOKE_TOKEN, OperationKind.REVOKE_LEASE)
    revoked = [op.answered_at for op in record.operations if op.kind in kinds and op.answered_at]
    goes_on = worker.mode.is_daemon or not worker.is_late(QUIET.total_seconds())
    if record.checks or not revoked or not goes_on or not _was_gone_just_now(worker, record):
        return False
    return worker.now() - max(revoked) < QUIET


def confirm_or_retry(worker: WorkerContext, record: TaskRecord, claim: int, last: Step) -> Step:
    """Confirm that a revoked task's credentials are dead.

    The tasks below had their turn. Waits for the quiet second of check 7 before anything is judged, and retries a few
    times what a backend refused.
    """
    if not last.tries and _is_quiet_second(worker, record):
        return _after_quiet_second(worker, record, last)
    found = collect_reconciled(worker, record, claim)
    if end_unnamed_tokens(worker, found, claim):
        found = collect_reconciled(worker, found.record, claim)
    if revoke_wrappings(worker, found, claim):
        found = collect_evidence(worker, found.record)
    record, _ = check_tripwires(worker, found.record, found.trail)
    outcome = record_judgement(worker, replace(found, record=record), claim)
    record = outcome.record
    if outcome.back:
        record = reopen(worker, record, claim, EventKind.UNPROVEN, BACK)
    if outcome.proven and outcome.quiet.ok:
        return Step(record=record, publication=outcome.publication)
    if outcome.soon and last.waits < _QUIET_WAITS:
        return _after_quiet_second(worker, record, replace(last, waits=last.waits + 1))
    if not outcome.proven:
        retry = again_after_pause(worker, last)
        if retry is not None:
            return retry
    return _leave_unconfirmed(worker, record, claim, last)


def _after_quiet_second(worker: WorkerContext, record: TaskRecord, last: Step) -> Step:
    """Wait for the quiet second, and return a step that goes on.

    A worker daemon comes back to the task instead.
    """
    quiet_s = QUIET.total_seconds()
    if worker.mode.is_daemon or worker.is_late(quiet_s):
        # whoever gave the access back asks for nothing but the proof
        return Step(record=record, is_told=record.task.end_reason is not EndReason.COMPLETED)
    worker.clock.sleep(quiet_s)
    return replace(last, go_on=True, record=record)


def _leave_unconfirmed(worker: WorkerContext, record: TaskRecord, claim: int, last: Step) -> Step:
    """Leave the task for a later try, or force it closed.

    It is forced closed if an operator signed a request for that. With a signed request, Vault is first made to forget
    the leases that it still holds, and the next turn looks up and judges once more. Only after that is the task closed
    without proof.
    """
    worker.ledger.tell_unproven(record.task.task_id, worker.now())
    request = _force_request(worker, record)
    if request is None:
        return Step()
    if not last.forced and force_revoke(worker, record, claim, request):
        return Step(go_on=True, tries=_TRIES, forced=True)
    close_without_proof(worker, record, claim, request)
    return Step()


def _force_request(worker: WorkerContext, record: TaskRecord) -> EndRequest | None:
    """Return an operator's signed request to close the task without proof."""
    entitled = may_end(Revision.of(record.revision.body).content)
    return force_request(worker, record.task.task_id, entitled=entitled, after=_last_confirmed_at(record))


def _last_confirmed_at(record: TaskRecord) -> datetime | None:
    """Return when the task was last confirmed; None if it never was.

    A request to force that was signed before then had nothing to force, and does not count for what came later.
    """
    times = [datetime.fromisoformat(event.at) for event in record.events if event.kind == EventKind.CONFIRMED]
    return max(times, default=None)


def is_settled(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether a confirmed task's settle window may be over.

    Near its end this says yes too early, and `seal` decides by Vault's clock.
    """
    settled = settles_at(tokens_of(record), worker.ledger.trail(record), worker.settle_window)
    return settled is None or worker.now() + _SKEW >= settled


def seal_or_reopen(worker: WorkerContext, record: TaskRecord, claim: int) -> Step:
    """Seal a task whose settle window is over, or reopen it.

    The task is reopened where a late lease appeared or its proof does not hold any more. The tasks below had their
    turn.
    """
    open_below = unproven_below(worker, record.task.task_id)
    if open_below:
        why = f"tasks below it are not proven any more: {', '.join(open_below)}"
        reopen(worker, record, claim, EventKind.UNPROVEN, why)
        return Step(go_on=True)
    found = collect_reconciled(worker, record, claim)
    if has_late_lease(found.record):
        return Step(go_on=True)
    listed = list_leases(worker, found.record)
    doubt = why_proof_fails_now(worker, found, listed)
    if doubt:
        reopen(worker, found.record, claim, EventKind.UNPROVEN, doubt)
        return Step(go_on=True)
    publication = seal(worker, found, listed, claim)
    if publication is None:
        _close_unsealed(worker, worker.record(record.task.task_id), claim)
    return Step(publication=publication)


def _close_unsealed(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Close a task that cannot be sealed, where an operator signed for that."""
    if why_seal_postponed(record.events) is None:
        return
    request = _force_request(worker, record)
    if request is not None:
        close_without_proof(worker, record, claim, request)


def reopen(worker: WorkerContext, record: TaskRecord, claim: int, event: EventKind, why: str) -> TaskRecord:
    """Reopen a task whose proof does not hold, and return it.

    The task has to end again. After a restore of Vault, nothing observed before it counts, and a late lease can be the
    sign of a restore. So every credential is looked up and revoked again. Until the task is judged anew, check 7 says
    why it was reopened: should this process die here, the rows of the other checks still hold.
    """
    task_id = record.task.task_id
    issued = [grant for grant in record.grants if grant.verdict is not Verdict.NEVER_ISSUED]
    grants = [replace(grant, verdict=Verdict.ACKNOWLEDGED) for grant in issued]
    leases = [replace(lease, verdict=Verdict.ACKNOWLEDGED) for lease in record.leases]
    again = Missing(lack=Lack.REOPENED, about=why[:MOST_TEXT])
    check = CheckRow(QUIET_N, ok=False, evidence=again, task_id=task_id, subject=task_id)
    change = Change(event, EventBody(note=why), state=State.ENDING, rows=(*grants, *leases, check))
    record = worker.ledger.change(record, change, claim=claim, at=worker.now())
    record_round(worker, record)
    return record


def record_round(worker: WorkerContext, record: TaskRecord) -> None:
    """Record a finding for a task that was confirmed and reopened repeatedly."""
    if not is_going_round(record.events):
        return
    task_id = record.task.task_id
    message = (
        f"its end was called proven {MOST_ROUNDS} times and did not stay so, the last time because "
        f"{why_reopened(record.events)}. It is called proven again only when it can be sealed; "
        f"`jitvault revoke {task_id} --force --reason WHY` closes it without proof"
    )
    worker.ledger.finding(task_id, "goes_round", message, worker.now())


def revoke_late_lease(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Revoke a lease that appeared after the task was closed.

    A finding is recorded. The task stays sealed.
    """
    worker.ledger.finding(record.task.task_id, *AFTER_SEAL, worker.now())
    revoke(worker, record, claim)
    found = collect_evidence(worker, record)
    judged = judge(worker, found)
    change = Change(EventKind.JUDGED, Judged(canary=found.newest.place.offset), rows=(*judged.leases, *judged.checks))
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())
