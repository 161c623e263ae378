"""The story of a task: what is true of it now decides what is done next, until nothing is to be done.

Commands and the worker run this same function under the same claim. It acts on the ledger's state and on what
Vault and the audit stream say at this moment, so it does not matter who ran it last or where they crashed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jitvault.audit.tripwires.trip import TripwireHit
from jitvault.context import WorkerContext
from jitvault.errors import (
    AuditLagging,
    AuditUntrusted,
    DecisionStale,
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
from jitvault.lifecycle.confirmation.reopen import check_not_back, end_late
from jitvault.lifecycle.confirmation.seal import has_late_lease
from jitvault.lifecycle.decision.admit import Evaluation, admit_request, reevaluate, still_grantable
from jitvault.lifecycle.decision.ancestors import is_replaced
from jitvault.lifecycle.decision.evaluate import Standing, admission
from jitvault.lifecycle.end_reasons import (
    ended_above,
    entitled,
    frozen,
    keep_reasons,
    unwrapped,
    why_end,
    why_end_blind,
    why_end_replacing,
)
from jitvault.lifecycle.ending import FIRST, Step, again_after_pause, end, settle
from jitvault.lifecycle.issuance.attempts import check_not_in_vain
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS, issue
from jitvault.lifecycle.issuance.unfinished import resolve_unfinished_issue
from jitvault.lifecycle.record.integrity import check_anchor, check_integrity, check_issuable, problems_of, published
from jitvault.lifecycle.renewal.cached_reads import read_up_to, with_cached_reads
from jitvault.lifecycle.renewal.extend import extend, is_old_open, put_next_token
from jitvault.lifecycle.renewal.renew import renew_due
from jitvault.lifecycle.renewal.schedule import is_due_now
from jitvault.lifecycle.requests.end_documents import end_request, end_request_of_others
from jitvault.lifecycle.requests.freezes import check_not_frozen
from jitvault.lifecycle.requests.publish import publish
from jitvault.lifecycle.requests.reader import wants_grant
from jitvault.lifecycle.requests.retention import check_not_removed
from jitvault.lifecycle.revocation.cascade import revoke_tree
from jitvault.lifecycle.revocation.revoke import EndCause, revoke_superseded_leases
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, EDGES, EndReason, State
from jitvault.stream.reading import canary, observe
from jitvault.stream.tripwires import watch

_JUST_NOW_S = 1.0
_READ_FIRST_S = 1.0
"""For how long the stream is read before it is asked whether a held task has to end whatever stands in the rest."""


def advance(
    worker: WorkerContext, task_id: str, *, hint: str | None = None, deadline: float | None = None
) -> TaskRecord:
    """Do everything that is due for the task now and give its file.

    `hint` is the entity whose documents are looked for first. After `deadline` (by the worker's `clock.monotonic()`)
    nothing new is begun: the first act on each token is made all the same, an act that is under way is finished and
    looked up, and what is left stays due. Raises WaitTimedOut where a lease had no turn.
    """
    if deadline is not None:
        worker = replace(worker, deadline=deadline)
    if hint is not None:
        worker = replace(worker, asked_by=hint)
    entered = admit_request(worker, task_id, hint=hint)
    with worker.ledger.claim(task_id) as claim:
        claimed = worker.clock.monotonic()
        said = published(worker, task_id)
        file = worker.file(task_id)
        try:
            check_anchor(worker, file, said, claim)
            check_not_removed(worker, file, said)
            check_not_back(worker, file, said)
        except SecurityFinding:
            _end_unanchored(worker, file, claim)
            raise
        begun, step = file.task.state is State.ENDING, Step(go_on=True, entered=entered, file=file)
        try:
            # where Vault has been slow to answer since; a claim that was taken just now lasts for a turn
            claimed = _hold(worker, task_id, claim, claimed)
            while (step := _patient_turn(worker, task_id, claim, step)).go_on:
                worker.ledger.extend(task_id, claim)
        except JitvaultError as error:
            # what was done until then is told as well, if Vault takes it; what cannot be believed is not told either
            if isinstance(error, Frozen) or not isinstance(error, SecurityFinding):
                with contextlib.suppress(JitvaultError):
                    file = _closed(worker, file, claim, begun=begun)
                    _tell(worker, file, claim, claimed, step.standing, error)
            raise
        file = _closed(worker, file, claim, begun=begun)
        _tell(worker, file, claim, claimed, step.standing)
        return file


def _hold(worker: WorkerContext, task_id: str, claim: int, since: float) -> float:
    """Keep a claim that was ours at `since`, by the monotonic clock; gives when it was for sure.

    Raises WrongState where another process has taken the task over.
    """
    now = worker.clock.monotonic()
    if now - since < _JUST_NOW_S:
        return since
    worker.ledger.extend(task_id, claim)
    return now


def _tell(
    worker: WorkerContext,
    file: TaskRecord,
    claim: int,
    since: float,
    standing: Standing | None,
    error: JitvaultError | None = None,
) -> None:
    """Publish a task under its claim. Raises WrongState where another process has taken it over.

    A process may be stopped for longer than its claim lives, also right before it writes. Then it wrote over what is
    newer, and publishes that once more.
    """
    task_id = file.task.task_id
    # a ledger that takes nothing gives nobody else the claim either
    with contextlib.suppress(LedgerUnavailable):
        since = _hold(worker, task_id, claim, since)
    publish(worker, file, standing, error)
    try:
        with contextlib.suppress(LedgerUnavailable):
            _hold(worker, task_id, claim, since)
    except WrongState:
        publish(worker, worker.file(task_id), None)
        raise


def _end_unanchored(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Revoke what is known of a task that has to end, although Vault's copy of its state is not the ledger's.

    Whoever holds the worker's token can overwrite that copy, and must not keep anybody's access alive by it. Nothing is
    proven from such a ledger. Rows that disagree with their own chain are left alone: they may name another's token.
    """
    if problems_of(worker, file):
        return
    why = why_end_blind(worker, file) if file.task.state in DELIVERED_STATES or is_old_open(file) else None
    if why is not None or file.task.state is State.ENDING:
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            revoke_tree(worker, file, claim, why=why)


def _closed(worker: WorkerContext, file: TaskRecord, claim: int, *, begun: bool) -> TaskRecord:
    """The file as it is left; where the end had `begun` before, with what people have said about it since."""
    file = worker.ledger.file_again(file)
    if begun and file.task.state in (State.ENDING, State.CONFIRMED):
        # no access waits for it, and none of it keeps a proof from being told
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            keep_reasons(worker, file, claim)
        file = worker.ledger.file_again(file)
    return file


def _patient_turn(worker: WorkerContext, task_id: str, claim: int, last: Step) -> Step:
    """A turn; what Vault does not take now is tried again a few times where access is to be taken away, or it is busy.

    Nothing is dropped: what is left over is due again, and the ledger says when.
    """
    try:
        return _turn(worker, task_id, claim, last)
    except DecisionStale:
        # nothing was begun: what is to be had now is found out anew
        if (again := again_after_pause(worker, last)) is None:
            raise
        return again
    except VaultUnavailable as error:
        state = worker.file(task_id).task.state
        # an issue that did not finish is not begun again at once: each attempt makes a token
        busy = isinstance(error, VaultBusy) and state is not State.ISSUING
        again = again_after_pause(worker, last) if busy or state is State.ENDING else None
        if again is None:
            raise
        return again


def _turn(worker: WorkerContext, task_id: str, claim: int, last: Step) -> Step:
    """One look at what is true now, and what follows from it."""
    if worker.reads_on and last.file is not None and last.file.task.state in BEFORE_GRANT:
        # nothing goes by the stream yet, and what is granted then waits for a canary; a worker's loops read it all the
        # time, and where nobody does it has to be begun as early as can be: what came before is never read
        check_integrity(worker, last.file)
        return _before_grant(worker, last.file, claim, last.entered)
    if (
        worker.reads_on
        and worker.shared is not None
        and last.file is not None
        and last.file.task.state in DELIVERED_STATES
    ):
        # it is looked at because it is due: the look itself sees that the stream was read up to then
        file = last.file
        check_integrity(worker, file)
    else:
        hurries = last.file is not None and last.file.task.state in DELIVERED_STATES
        blind = _why_blind(worker, until=worker.clock.monotonic() + _READ_FIRST_S if hurries else None)
        file = worker.ledger.file_again(last.file) if last.file else worker.file(task_id)
        check_integrity(worker, file)
        if isinstance(blind, AuditLagging):
            _end_before_reading(worker, file, claim)
            blind = _why_blind(worker)
            file = worker.ledger.file_again(file)
        if blind:
            return _blind(worker, file, claim, blind)
    held = file.task.state in DELIVERED_STATES
    if held and worker.ledger.is_long(file) and (ending := why_end_blind(worker, file)):
        # an agent that made many lines must not keep its access while they are read
        revoke_tree(worker, file, claim, why=ending)
        file, held = worker.file(task_id), False
    if held:
        return _holding(worker, file, claim)
    return _next(worker, *_watched(worker, file), claim, last)


def _watched(worker: WorkerContext, file: TaskRecord) -> tuple[TaskRecord, list[TripwireHit]]:
    """The tripwires that the task's lines touched so far, and the file with them."""
    trips = watch(worker, file)
    return (worker.ledger.file_again(file) if trips else file), trips


def _why_blind(worker: WorkerContext, *, until: float | None = None) -> AuditUntrusted | None:
    """Enter what the stream says; gives why it cannot be read, AuditLagging where it was not read whole by `until`."""
    try:
        observe(worker, until=until)
    except AuditUntrusted as error:
        return error
    return None


def _end_before_reading(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Revoke a held task's access before the rest of the stream is read, where it has to end whatever stands there.

    Anybody who may write into Vault can make the stream long, and nobody's revocation is to wait for that.
    """
    if file.task.state not in DELIVERED_STATES:
        return
    ending = why_end_blind(replace(worker, is_blind=True), file)
    if ending is not None:
        revoke_tree(worker, file, claim, why=ending)


def _blind(worker: WorkerContext, file: TaskRecord, claim: int, why: AuditUntrusted) -> Step:
    """Without the stream nothing is issued and nothing is proven, but access is taken away all the same."""
    if file.task.state in DELIVERED_STATES or is_old_open(file):
        ending = why_end_blind(replace(worker, is_blind=True), file)
        if ending is not None:
            revoke_tree(worker, file, claim, why=ending)
    elif file.task.state is State.ENDING:
        revoke_tree(worker, file, claim)
    raise why


def _next(worker: WorkerContext, file: TaskRecord, trips: Sequence[TripwireHit], claim: int, last: Step) -> Step:
    match file.task.state:
        case state if state in BEFORE_GRANT:
            return _before_grant(worker, file, claim, last.entered)
        case State.ISSUING:
            return _replacing(worker, file, claim, trips) if is_replaced(file.task) else _issuing(worker, file, claim)
        case State.ENDING:
            return _ending(worker, file, claim, last)
        case State.CONFIRMED:
            return settle(worker, file, claim, advance)
        case State.SEALED | State.UNVERIFIED if has_late_lease(file):
            end_late(worker, file, claim)
            return Step()
        case _:
            return Step()


def _before_grant(worker: WorkerContext, file: TaskRecord, claim: int, entered: Evaluation | None) -> Step:
    ended = end_request(worker, file.task.task_id, entitled=entitled(file))
    if ended is not None and State.CANCELLED in EDGES[file.task.state]:
        _apply(worker, file, claim, EventKind.CANCELLED, ended.said(), State.CANCELLED)
        return Step()
    # what was read a moment ago, and nobody has changed since, is not read twice
    found = entered if entered and file.task.seq == 1 else reevaluate(worker, file, claim)
    if found is None:
        return Step()
    file, submitted, standing = worker.ledger.file_again(file), found.submitted, found.standing
    due = file.task.state is State.APPROVED and submitted.spec.window.opens(worker.now())
    if not due or not wants_grant(worker, submitted, standing.tally.approved_by):
        look = submitted.spec.window.look_at(worker.now())
        if is_due_now(worker, file) and look != file.task.due_at:
            # its window is open, and nobody has asked for it yet
            worker.ledger.apply(
                file.task.task_id, Change(EventKind.KEPT, fields={"due_at": look}), claim=claim, at=worker.now()
            )
        return Step(standing=standing)
    said = published(worker, file.task.task_id)
    if said.get("chain") != {"seq": file.task.seq, "head": file.task.head}:
        # what is granted has been published before: an approver and the guard below read the same
        worker.ledger.extend(file.task.task_id, claim)
        publish(worker, file, standing)
        said = published(worker, file.task.task_id)
    check_issuable(worker, file, said, claim)
    canary(worker)
    # the lines of until now are there
    if (ended := end_request_of_others(worker, file.task.task_id, entitled=entitled(file))) is not None:
        _apply(worker, file, claim, EventKind.CANCELLED, ended.said(), State.CANCELLED)
        return Step()
    check_not_frozen(worker, file)
    try:
        ground = admission(worker, Revision.of(file.revision.body), standing)
        issue(worker, file, claim, standing.decision.obligations, admission=ground)
    except InvalidInput:
        # between the intent and the create its parent ended
        if (begun := worker.file(file.task.task_id)).task.state is State.ISSUING:
            _issuing(worker, begun, claim)
        raise
    return Step(standing=standing)


def _issuing(worker: WorkerContext, file: TaskRecord, claim: int) -> Step:
    """A run before this one did not finish: end what it may have made, then try again or give up."""
    resolve_unfinished_issue(worker, file, claim)
    file = worker.file(file.task.task_id)
    ended = end_request(worker, file.task.task_id, entitled=entitled(file))
    made = [grant for grant in file.grants if grant.accessor_hmac is not None]
    if stop := frozen(worker, file) or ended_above(worker, file):
        return _ending(worker, file, claim, why=stop)
    standing = still_grantable(worker, file) if ended is None and len(made) < MAX_ATTEMPTS else None
    if standing is None:
        reason = (ended.reason if ended else None) or EndReason.ISSUE_FAILED
        said = ended.said() if ended else {"note": "could not be delivered"}
        return _ending(worker, file, claim, why=(reason, said))
    check_not_in_vain(worker, file, claim)
    check_issuable(worker, file, published(worker, file.task.task_id), claim)
    canary(worker)
    issue(worker, file, claim, standing.decision.obligations)
    return Step()


def _replacing(worker: WorkerContext, file: TaskRecord, claim: int, trips: Sequence[TripwireHit]) -> Step:
    """An extension put an end to the task's token: the next one, unless the task ends by something else."""
    if not is_old_open(file):
        # as for any attempt: what was made and nobody knows of has to be found before anything else is said
        resolve_unfinished_issue(worker, file, claim)
        file = worker.file(file.task.task_id)
    why = why_end_replacing(worker, file, trips) or put_next_token(worker, file, claim)
    return Step() if why is None else _ending(worker, worker.file(file.task.task_id), claim, why=why)


def _holding(worker: WorkerContext, file: TaskRecord, claim: int) -> Step:
    """Keep the task while everything still holds; end it at the first thing that does not."""
    eyes = with_cached_reads(worker)
    if is_due_now(worker, file) and why_end_blind(eyes, file) is None:
        # nothing is kept on a stream that lags or is another Vault's, and nobody is silent before it was read up to
        # now; what ends without evidence waits for no stream
        try:
            read_up_to(worker, file.task.due_at)
        except AuditUntrusted as error:
            return _blind(worker, file, claim, error)
        file = worker.ledger.file_again(file)
    file, trips = _watched(worker, file)
    why = why_end(eyes, file, trips)
    if why is None:
        if file.task.state is State.ISSUED and unwrapped(worker, file):
            _apply(worker, file, claim, EventKind.UNWRAPPED, {}, State.ACTIVE)
            file = worker.file(file.task.task_id)
        extend(worker, file, claim)
        file = worker.ledger.file_again(file)
        if is_replaced(file.task):
            return _replacing(worker, file, claim, trips)
        revoke_superseded_leases(worker, file, claim)
        if (why := renew_due(worker, file, claim)) is not None:
            file = worker.ledger.file_again(file)
    if why is not None:
        # at once: every millisecond from here on is one in which the access is still there
        return _ending(worker, file, claim, why=why)
    return Step()


def _ending(
    worker: WorkerContext, file: TaskRecord, claim: int, last: Step = FIRST, why: EndCause | None = None
) -> Step:
    # what was handed on has the same story: it is gone on with by the same function
    return end(worker, file, claim, last, why, go_on=advance)


def _apply(
    worker: WorkerContext, file: TaskRecord, claim: int, event: EventKind, body: Mapping[str, object], state: State
) -> None:
    change = Change(event, body, state=state)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())
