"""The story of a task: what is true of it now decides what is done next, until nothing is to be done.

Commands and the worker run this same function under the same claim. It acts on the ledger's state and on what
Vault and the audit stream say at this moment, so it does not matter who ran it last or where they crashed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.domain.lifecycle import BEFORE_GRANT, EDGES, EndReason, State
from jitvault.domain.quiet import QUIET, settles_at
from jitvault.domain.revision import Revision
from jitvault.domain.trip import Trip
from jitvault.errors import (
    AuditUntrusted,
    InvalidInput,
    JitvaultError,
    Overtaken,
    SecurityFinding,
    VaultBusy,
    VaultRefused,
    VaultUnavailable,
)
from jitvault.ports.ledger import Change, TaskFile
from jitvault.services.confirm import confirmed, still_proven, tokens_of
from jitvault.services.consider import consider, enter, still_grantable
from jitvault.services.context import Worker
from jitvault.services.decide import Standing, admission
from jitvault.services.due import is_due
from jitvault.services.extend import extend, is_old_open, put_next_token
from jitvault.services.family import prove_below, seal_below, take_all_back, unproven
from jitvault.services.force import close, force
from jitvault.services.integrity import check_anchor, check_integrity, check_issuable, published
from jitvault.services.issue import MAX_ATTEMPTS, issue
from jitvault.services.keep import keep
from jitvault.services.late import BACK, begin_again, check_not_back, end_late
from jitvault.services.lineage import is_replaced
from jitvault.services.lookups import is_there, proven_before
from jitvault.services.observe import canary, observe
from jitvault.services.papers import end_request, force_request, wants_grant
from jitvault.services.publish import publish
from jitvault.services.reasons import (
    ended_above,
    entitled,
    frozen,
    keep_reasons,
    unwrapped,
    why_end,
    why_end_blind,
    why_end_replacing,
)
from jitvault.services.reconcile import reconcile
from jitvault.services.recover import settle_attempt
from jitvault.services.revoke import Why, end_ownerless
from jitvault.services.seal import late, seal
from jitvault.services.watch import check_not_frozen, watch

_TRIES = 4
_FIRST_PAUSE_S = 0.2
_QUIET_WAITS = 3
_SKEW = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the story found, besides what it wrote."""

    go_on: bool = False
    standing: Standing | None = None
    tries: int = 0
    waits: int = 0
    forced: bool = False


def advance(worker: Worker, task_id: str, *, hint: str | None = None, deadline: float | None = None) -> TaskFile:
    """Do everything that is due for the task now and give its file.

    `hint` is the entity whose request is looked for first when the ledger does not know the task. After `deadline` (by
    the worker's `clock.monotonic()`) nothing new is begun: the first act on each token is made all the same, an act
    that is under way is finished and looked up, and what is left stays due. Raises WaitTimedOut where a lease had no
    turn.
    """
    if deadline is not None:
        worker = replace(worker, deadline=deadline)
    enter(worker, task_id, hint=hint)
    with worker.ledger.claim(task_id) as claim:
        said = published(worker, task_id)
        file = _file(worker, task_id)
        check_anchor(worker, file, said)
        check_not_back(worker, file, said)
        begun, step = file.task.state is State.ENDING, Step(go_on=True)
        try:
            while step.go_on:
                step = _patient_turn(worker, task_id, claim, step)
        except SecurityFinding:
            # what cannot be believed is not told either
            raise
        except JitvaultError:
            # what was done until then is told as well, if Vault takes it
            with contextlib.suppress(JitvaultError):
                publish(worker, _closed(worker, task_id, claim, begun=begun), step.standing)
            raise
        file = _closed(worker, task_id, claim, begun=begun)
        publish(worker, file, step.standing)
        return file


def _closed(worker: Worker, task_id: str, claim: int, *, begun: bool) -> TaskFile:
    """The file as it is left; where the end had `begun` before, with what people have said about it since."""
    file = _file(worker, task_id)
    if begun and file.task.state in (State.ENDING, State.CONFIRMED):
        # no access waits for it, and none of it keeps a proof from being told
        with contextlib.suppress(VaultUnavailable, VaultRefused):
            keep_reasons(worker, file, claim)
        file = _file(worker, task_id)
    return file


def _patient_turn(worker: Worker, task_id: str, claim: int, last: Step) -> Step:
    """A turn; what Vault does not take now is tried again a few times where access is to be taken away, or it is busy.

    Nothing is dropped: what is left over is due again, and the ledger says when.
    """
    try:
        return _turn(worker, task_id, claim, last)
    except Overtaken:
        # nothing was begun: what is to be had now is found out anew
        if (again := _again(worker, last)) is None:
            raise
        return again
    except VaultUnavailable as error:
        state = _file(worker, task_id).task.state
        # an issue that did not finish is not begun again at once: each attempt makes a token
        busy = isinstance(error, VaultBusy) and state is not State.ISSUING
        again = _again(worker, last) if busy or state is State.ENDING else None
        if again is None:
            raise
        return again


def _again(worker: Worker, last: Step) -> Step | None:
    """One try more, after a pause; None where there were enough or the time is over."""
    pause_s = _FIRST_PAUSE_S * 2**last.tries * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
    if last.tries >= _TRIES or worker.is_late(pause_s):
        return None
    worker.clock.sleep(pause_s)
    return replace(last, go_on=True, tries=last.tries + 1)


def _turn(worker: Worker, task_id: str, claim: int, last: Step) -> Step:
    """One look at what is true now, and what follows from it."""
    worker.ledger.extend(task_id, claim)
    blind = _why_blind(worker)
    file = _file(worker, task_id)
    check_integrity(worker, file)
    if blind:
        return _blind(worker, file, claim, blind)
    held = file.task.state in (State.ISSUED, State.ACTIVE)
    if held and worker.ledger.is_long(file) and (ending := why_end_blind(worker, file)):
        # an agent that made many lines must not keep its access while they are read
        take_all_back(worker, file, claim, why=ending)
        file = _file(worker, task_id)
    if trips := watch(worker, file):
        file = _file(worker, task_id)
    return _next(worker, file, claim, last, trips)


def _why_blind(worker: Worker) -> AuditUntrusted | None:
    """Enter what the stream says; gives why it cannot be read."""
    try:
        observe(worker)
    except AuditUntrusted as error:
        return error
    return None


def _blind(worker: Worker, file: TaskFile, claim: int, why: AuditUntrusted) -> Step:
    """Without the stream nothing is issued and nothing is proven, but access is taken away all the same."""
    if file.task.state in (State.ISSUED, State.ACTIVE) or is_old_open(file):
        ending = why_end_blind(worker, file)
        if ending is not None:
            take_all_back(worker, file, claim, why=ending)
    elif file.task.state is State.ENDING:
        take_all_back(worker, file, claim)
    raise why


def _next(worker: Worker, file: TaskFile, claim: int, last: Step, trips: Sequence[Trip]) -> Step:
    match file.task.state:
        case state if state in BEFORE_GRANT:
            return _before_grant(worker, file, claim)
        case State.ISSUING:
            return _replacing(worker, file, claim, trips) if is_replaced(file.task) else _issuing(worker, file, claim)
        case State.ISSUED | State.ACTIVE:
            return _holding(worker, file, claim, trips)
        case State.ENDING:
            return _ending(worker, file, claim, last)
        case State.CONFIRMED:
            return _settling(worker, file, claim)
        case State.SEALED | State.UNVERIFIED if late(file):
            end_late(worker, file, claim)
            return Step()
        case _:
            return Step()


def _before_grant(worker: Worker, file: TaskFile, claim: int) -> Step:
    ended = end_request(worker, file.task.task_id, entitled=entitled(file))
    if ended is not None and State.CANCELLED in EDGES[file.task.state]:
        _apply(worker, file, claim, "cancelled", ended.said(), State.CANCELLED)
        return Step()
    found = consider(worker, file, claim)
    if found is None:
        return Step()
    file, submitted, standing = _file(worker, file.task.task_id), found.submitted, found.standing
    due = file.task.state is State.APPROVED and submitted.spec.window.opens(worker.now())
    if not due or not wants_grant(worker, submitted, standing.tally.approved_by):
        return Step(standing=standing)
    said = published(worker, file.task.task_id)
    if said.get("chain") != {"seq": file.task.seq, "head": file.task.head}:
        # what is granted has been published before: an approver and the guard below read the same
        publish(worker, file, standing)
        said = published(worker, file.task.task_id)
    check_issuable(worker, file, said)
    canary(worker)
    check_not_frozen(worker, file)
    try:
        ground = admission(worker, Revision.of(file.revision.body), standing)
        issue(worker, file, claim, standing.decision.obligations, admission=ground)
    except InvalidInput:
        # between the intent and the create its parent ended
        if (begun := _file(worker, file.task.task_id)).task.state is State.ISSUING:
            _issuing(worker, begun, claim)
        raise
    return Step(standing=standing)


def _issuing(worker: Worker, file: TaskFile, claim: int) -> Step:
    """A run before this one did not finish: end what it may have made, then try again or give up."""
    settle_attempt(worker, file, claim)
    file = _file(worker, file.task.task_id)
    ended = end_request(worker, file.task.task_id, entitled=entitled(file))
    made = [grant for grant in file.grants if grant.accessor_hmac is not None]
    if stop := frozen(worker, file) or ended_above(worker, file):
        return _ending(worker, file, claim, Step(), stop)
    standing = still_grantable(worker, file) if ended is None and len(made) < MAX_ATTEMPTS else None
    if standing is None:
        reason = (ended.reason if ended else None) or EndReason.ISSUE_FAILED
        said = ended.said() if ended else {"note": "could not be delivered"}
        return _ending(worker, file, claim, Step(), (reason, said))
    check_issuable(worker, file, published(worker, file.task.task_id))
    canary(worker)
    issue(worker, file, claim, standing.decision.obligations)
    return Step()


def _replacing(worker: Worker, file: TaskFile, claim: int, trips: Sequence[Trip]) -> Step:
    """An extension put an end to the task's token: the next one, unless the task ends by something else."""
    if not is_old_open(file):
        # as for any attempt: what was made and nobody knows of has to be found before anything else is said
        settle_attempt(worker, file, claim)
        file = _file(worker, file.task.task_id)
    why = why_end_replacing(worker, file, trips) or put_next_token(worker, file, claim)
    return Step() if why is None else _ending(worker, _file(worker, file.task.task_id), claim, Step(), why)


def _holding(worker: Worker, file: TaskFile, claim: int, trips: Sequence[Trip]) -> Step:
    """Keep the task while everything still holds; end it at the first thing that does not."""
    if is_due(worker, file) and why_end_blind(worker, file) is None:
        # nothing is kept on a stream that lags or is another Vault's, and nobody is silent before it was read up to
        # now; what ends without evidence waits for no stream
        canary(worker)
        file = _file(worker, file.task.task_id)
        trips = watch(worker, file)
    why = why_end(worker, file, trips)
    if why is None:
        if file.task.state is State.ISSUED and unwrapped(worker, file):
            _apply(worker, file, claim, "unwrapped", {}, State.ACTIVE)
            file = _file(worker, file.task.task_id)
        extend(worker, file, claim)
        file = _file(worker, file.task.task_id)
        if is_replaced(file.task):
            return _replacing(worker, file, claim, trips)
        end_ownerless(worker, file, claim)
        why = keep(worker, file, claim)
        file = _file(worker, file.task.task_id)
    if why is not None:
        # at once: every millisecond from here on is one in which the access is still there
        return _ending(worker, file, claim, Step(), why)
    return Step()


def _ending(worker: Worker, file: TaskFile, claim: int, last: Step, why: Why | None = None) -> Step:
    """Revoke, look up, prove; wait for the quiet second, and retry what the backend refused a few times."""
    if why is None and not (last.tries or last.waits) and is_there(worker, proven_before(file)):
        # before anything that can fail: a Vault that was restored has given it back
        begin_again(worker, file, claim, "unproven", BACK)
        file = _file(worker, file.task.task_id)
    take_all_back(worker, file, claim, why=why)
    prove_below(worker, file.task.task_id, claim, advance)
    # the canary first: the leases that are read on the way to it have to be in the file
    newest = canary(worker)
    if reconcile(worker, _file(worker, file.task.task_id), claim, newest):
        newest = canary(worker)
    outcome = confirmed(worker, _file(worker, file.task.task_id), claim, newest)
    if outcome.back:
        begin_again(worker, _file(worker, file.task.task_id), claim, "unproven", BACK)
    if outcome.proven and outcome.quiet.ok:
        return Step()
    quiet_s = QUIET.total_seconds()
    if outcome.proven and last.waits < _QUIET_WAITS and not unproven(worker, file.task.task_id):
        # only time is missing, or the answer to a request that is in flight
        if worker.is_late(quiet_s):
            return Step()
        worker.clock.sleep(quiet_s)
        return replace(last, go_on=True, waits=last.waits + 1)
    if not outcome.proven and (again := _again(worker, last)):
        return again
    return _not_proven(worker, _file(worker, file.task.task_id), claim, last)


def _not_proven(worker: Worker, file: TaskFile, claim: int, last: Step) -> Step:
    """What was tried is not enough. It is tried again later, unless an operator signed that it is to be closed."""
    worker.ledger.tell_unproven(file.task.task_id, worker.now())
    wish = force_request(worker, file.task.task_id, after=_confirmed_before(file))
    if wish is None:
        return Step()
    if not last.forced and force(worker, file, claim, wish):
        return Step(go_on=True, tries=_TRIES, forced=True)
    close(worker, file, claim, wish)
    return Step()


def _confirmed_before(file: TaskFile) -> datetime | None:
    """When all of the task was proven last: a wish of before then had nothing to force, and is not kept for later."""
    return max((datetime.fromisoformat(e.at) for e in file.events if e.kind == "confirmed"), default=None)


def _settling(worker: Worker, file: TaskFile, claim: int) -> Step:
    if late(file):
        begin_again(worker, file, claim, "late_lease", "a lease appeared after the task was confirmed")
        return Step(go_on=True)
    settled = settles_at(tokens_of(file), worker.ledger.trail(file), worker.settle_window)
    if settled and worker.now() + _SKEW < settled:
        # not yet by any clock; by whose it counts, `seal` says
        return Step()
    seal_below(worker, file.task.task_id, claim, advance)
    if open_ := unproven(worker, file.task.task_id):
        why = f"what it handed on to {', '.join(open_)} is not proven any more"
        begin_again(worker, file, claim, "unproven", why)
        return Step(go_on=True)
    newest = canary(worker)
    if reconcile(worker, _file(worker, file.task.task_id), claim, newest):
        newest = canary(worker)
    file = _file(worker, file.task.task_id)
    if late(file):
        return Step(go_on=True)
    if not still_proven(worker, file, newest):
        begin_again(worker, file, claim, "unproven", "the evidence does not carry it")
        return Step(go_on=True)
    seal(worker, file, claim, newest)
    return Step()


def _apply(worker: Worker, file: TaskFile, claim: int, event: str, body: Mapping[str, object], state: State) -> None:
    change = Change(event, body, state=state)
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _file(worker: Worker, task_id: str) -> TaskFile:
    file = worker.ledger.file(task_id)
    if file is None:
        raise JitvaultError(f"task {task_id} vanished from the ledger")
    return file
