"""The last part of a task's story: take all of it back, prove that, and seal what was proven.

One turn of it does what can be done now. What Vault does not take, and what only time brings, is left to the next one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.before_seal import why_not_proven_still
from jitvault.lifecycle.confirmation.confirm import confirmed
from jitvault.lifecycle.confirmation.evidence import collect_evidence, tokens_of
from jitvault.lifecycle.confirmation.force import close, force
from jitvault.lifecycle.confirmation.lookups import is_there, proven_before
from jitvault.lifecycle.confirmation.quiet import QUIET, settles_at
from jitvault.lifecycle.confirmation.reconcile import reconciled
from jitvault.lifecycle.confirmation.reopen import BACK, reopen, tell_round
from jitvault.lifecycle.confirmation.rounds import why_put_off
from jitvault.lifecycle.confirmation.seal import has_late_lease, seal
from jitvault.lifecycle.decision.admit import Evaluation
from jitvault.lifecycle.decision.evaluate import Standing
from jitvault.lifecycle.requests.end_documents import EndRequest, force_request, may_end
from jitvault.lifecycle.revocation.cascade import GoOn, prove_below, revoke_tree, seal_below, unproven
from jitvault.lifecycle.revocation.revoke import EndCause
from jitvault.lifecycle.revocation.wrappings import end_wrappings
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision

_TRIES = 4
_FIRST_PAUSE_S = 0.2
_QUIET_WAITS = 3
_SKEW = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the story found, besides what it wrote. `entered`: what the task was taken in by, just now;
    `file`: what was read of it just now.
    """

    go_on: bool = False
    entered: Evaluation | None = None
    file: TaskRecord | None = None
    standing: Standing | None = None
    tries: int = 0
    waits: int = 0
    forced: bool = False


FIRST = Step()


def again_after_pause(worker: WorkerContext, last: Step) -> Step | None:
    """One try more, after a pause; None where there were enough or the time is over."""
    pause_s = _FIRST_PAUSE_S * 2**last.tries * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
    if last.tries >= _TRIES or worker.is_late(pause_s):
        return None
    worker.clock.sleep(pause_s)
    return replace(last, go_on=True, entered=None, file=None, tries=last.tries + 1)


def end(worker: WorkerContext, file: TaskRecord, claim: int, last: Step, why: EndCause | None, *, go_on: GoOn) -> Step:
    """Revoke, look up, prove; wait for the quiet second, and retry what the backend refused a few times."""
    if why is None and not (last.tries or last.waits) and is_there(worker, proven_before(file)):
        # before anything that can fail: a Vault that was restored has given it back
        reopen(worker, file, claim, EventKind.UNPROVEN, BACK)
        file = worker.file(file.task.task_id)
    tell_round(worker, file)
    revoke_tree(worker, file, claim, why=why)
    prove_below(worker, file.task.task_id, claim, go_on)
    found = reconciled(worker, file.task.task_id, claim)
    if end_wrappings(worker, found, claim):
        found = collect_evidence(worker, file.task.task_id)
    outcome = confirmed(worker, found, claim)
    if outcome.back:
        reopen(worker, worker.file(file.task.task_id), claim, EventKind.UNPROVEN, BACK)
    if outcome.proven and outcome.quiet.ok:
        return Step()
    quiet_s = QUIET.total_seconds()
    if outcome.soon and last.waits < _QUIET_WAITS:
        if not worker.waits or worker.is_late(quiet_s):
            return Step()
        worker.clock.sleep(quiet_s)
        return replace(last, go_on=True, file=None, waits=last.waits + 1)
    if not outcome.proven and (again := again_after_pause(worker, last)):
        return again
    return _not_proven(worker, worker.file(file.task.task_id), claim, last)


def _not_proven(worker: WorkerContext, file: TaskRecord, claim: int, last: Step) -> Step:
    """What was tried is not enough. It is tried again later, unless an operator signed that it is to be closed."""
    worker.ledger.tell_unproven(file.task.task_id, worker.now())
    wish = _force_request(worker, file)
    if wish is None:
        return Step()
    if not last.forced and force(worker, file, claim, wish):
        return Step(go_on=True, tries=_TRIES, forced=True)
    close(worker, file, claim, wish)
    return Step()


def _force_request(worker: WorkerContext, file: TaskRecord) -> EndRequest | None:
    entitled = may_end(Revision.of(file.revision.body).content)
    return force_request(worker, file.task.task_id, entitled=entitled, after=_confirmed_before(file))


def _confirmed_before(file: TaskRecord) -> datetime | None:
    """When all of the task was proven last: a wish of before then had nothing to force, and is not kept for later."""
    return max((datetime.fromisoformat(e.at) for e in file.events if e.kind == EventKind.CONFIRMED), default=None)


def settle(worker: WorkerContext, file: TaskRecord, claim: int, go_on: GoOn) -> Step:
    """Seal what was confirmed once its settle window is over and all of it is still so; else it ends anew."""
    if has_late_lease(file):
        reopen(worker, file, claim, EventKind.LATE_LEASE, "a lease appeared after the task was confirmed")
        return Step(go_on=True)
    settled = settles_at(tokens_of(file), worker.ledger.trail(file), worker.settle_window)
    if settled and worker.now() + _SKEW < settled:
        # not yet by any clock; by whose it counts, `seal` says
        return Step()
    seal_below(worker, file.task.task_id, claim, go_on)
    if open_ := unproven(worker, file.task.task_id):
        why = f"what it handed on to {', '.join(open_)} is not proven any more"
        reopen(worker, file, claim, EventKind.UNPROVEN, why)
        return Step(go_on=True)
    found = reconciled(worker, file.task.task_id, claim)
    if has_late_lease(found.file):
        return Step(go_on=True)
    if doubt := why_not_proven_still(worker, found):
        reopen(worker, found.file, claim, EventKind.UNPROVEN, doubt)
        return Step(go_on=True)
    if not seal(worker, found, claim):
        _close_unsealed(worker, worker.file(file.task.task_id), claim)
    return Step()


def _close_unsealed(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Close a task that cannot be sealed, where an operator signed for that."""
    if why_put_off(file.events) is None:
        return
    wish = _force_request(worker, file)
    if wish is not None:
        close(worker, file, claim, wish)
