"""The kill switch: end every task of a scope at once, and prove each.

First every door is closed (the task tokens), then each lease is ended, then each task is proven dead by the same story
as any other. Whatever stops this process, what was begun is in the ledger: the same command goes on with the rest.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from jitvault.context import Person, WorkerContext
from jitvault.errors import (
    CORRUPT_RECORD_ERRORS,
    Denied,
    JitvaultError,
    LedgerUnavailable,
    NotConfirmed,
    NotFound,
    SecurityFinding,
)
from jitvault.kill_switch.ended_before import shows_no_access
from jitvault.kill_switch.pool import TaskPool, Tell, ThreadContext
from jitvault.ledger.model import OpState, TaskRecord, TaskRow
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.receipt import proof_of, rung_of, unproven_because
from jitvault.lifecycle.requests.renamed import covers_any, scope_by_name_and_id
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.lifecycle.revocation.cascade import live_below, with_task_claim
from jitvault.lifecycle.revocation.results import Verdicts
from jitvault.lifecycle.revocation.revoke import (
    DEAD,
    PendingLeases,
    look_up_ended,
    revoke_leases,
    revoke_pending_leases,
    revoke_tokens_first,
)
from jitvault.lifecycle.revocation.without_ledger import revoke_without_ledger
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope
from jitvault.model.states import DELIVERED_STATES, PROVEN, EndReason, State, Verdict
from jitvault.policy.decision import OPERATORS, ProofLevel

_PAUSE_S = 2.0
# for one task, with what it has to wait for
_PATIENCE_S = 10.0
_GONE = frozenset({Verdict.GONE})
_ANSWERED = _GONE | {Verdict.ACKNOWLEDGED}
_STILL_THERE = DELIVERED_STATES | {State.ISSUING, State.ENDING}


@dataclass(frozen=True, slots=True)
class Result:
    """How one task came out. `error`: what kept it from being ended or proven.

    `ended_earlier` tells a task that had ended long before this run, of which nothing shows any access: see `earlier`.
    `not_proven` is what no check of its proof looks at.
    """

    task_id: str
    state: State | None
    error: JitvaultError | None = None
    ended_earlier: bool = False
    not_proven: Sequence[str] = ()

    @property
    def proven(self) -> bool:
        return self.error is None and self.state in PROVEN


@dataclass
class _SlowTasks:
    """The tasks whose leases hang, and until when they are waited for, by `time.monotonic()`."""

    until: float
    tasks: set[str] = field(default_factory=set)

    def bounded(self, worker: WorkerContext) -> WorkerContext:
        """The same worker; once something hangs one that begins nothing when the time is over."""
        return replace(worker, deadline=self.until) if self.tasks else worker

    def patience_s(self, task_id: str) -> float:
        left_s = max(0.0, self.until - time.monotonic())
        return min(_PATIENCE_S, left_s) if task_id in self.tasks else _PATIENCE_S


def tasks_in_scope(worker: WorkerContext, scope: Scope) -> list[str]:
    """The tasks of a scope that hold access, or whose end is not proven yet."""
    held, scopes = worker.ledger.tasks(_STILL_THERE), scope_by_name_and_id(worker, scope)
    tasks = dict.fromkeys(task.task_id for task in held if _is_covered(worker, scopes, task))
    # what was handed on ends as well: its doors are closed with the others
    return list(tasks | dict.fromkeys(child for task in tasks for child in live_below(worker, task)))


def _is_covered(worker: WorkerContext, scopes: Sequence[Scope], task: TaskRow) -> bool:
    """Whether a task is in one of the scopes; one whose row cannot be read is not left out because of that."""
    try:
        file = worker.ledger.file(task.task_id)
        return file is not None and covers_any(scopes, file.revision.body)
    except (JitvaultError, *CORRUPT_RECORD_ERRORS):
        return True


def was_ever_in_scope(worker: WorkerContext, scope: Scope) -> bool:
    """Whether any task was ever in the scope. With a million of them that takes seconds."""
    # what only Vault knows is told in the end: a ledger that lost it must not make it a wrong name
    if any(one.state for one in published_but_unknown(worker, scope, ())):
        return True
    scopes = scope_by_name_and_id(worker, scope)
    for body in worker.ledger.revision_bodies():
        with suppress(JitvaultError, *CORRUPT_RECORD_ERRORS):
            if covers_any(scopes, body):
                return True
    return False


def published_but_unknown(worker: WorkerContext, scope: Scope, results: Sequence[Result]) -> list[Result]:
    """The tasks of a scope that are held by what was published in Vault, and not ended here: granted meanwhile, or a
    ledger that was restored or edited does not know them or says that they are over. What cannot be read may be one of
    them, and has no state.
    """
    known, scopes = {result.task_id for result in results}, scope_by_name_and_id(worker, scope)
    found = []
    for task_id in worker.documents.names("tasks/"):
        said = worker.documents.get(f"tasks/{task_id}") or {}
        try:
            if task_id in known or said.get("state") not in _STILL_THERE or "body" not in said:
                continue
            covered = covers_any(scopes, base64.b64decode(said["body"]))
        except CORRUPT_RECORD_ERRORS:
            found.append(unreadable(task_id))
            continue
        if covered:
            here = worker.ledger.task(task_id)
            if here is not None and here.state in _STILL_THERE:
                found.append(Result(task_id, here.state, NotConfirmed(f"task {task_id} was granted meanwhile")))
                continue
            message = f"Vault says that task {task_id} is {said['state']}, which the ledger does not hold"
            hint = "`jitvault sweep` shows what lives on; `jitvault ledger recover` corrects an older ledger."
            found.append(Result(task_id, State(said["state"]), SecurityFinding(message, hint=hint)))
    return found


def unreadable(task_id: str) -> Result:
    """What is told of a task whose published document cannot be read: whether the scope has it, nobody can say."""
    hint = "`jitvault status TASK` shows what the ledger has of it, `jitvault sweep` what lives on."
    return Result(task_id, None, SecurityFinding(f"what Vault says of task {task_id} cannot be read", hint=hint))


def check_known(scope: Scope, covers_any: bool) -> None:
    """Raise NotFound for a name that no task ever had: in a hurry a wrong name must not look like a success."""
    if not scope.is_all and not covers_any:
        named = scope.agent or scope.template or scope.owner
        raise NotFound(f"no task ever had {named!r:.80}: nothing was revoked")


def check_operator(worker: WorkerContext, person: Person) -> None:
    """Raise Denied for whoever may end their own tasks only."""
    entity = worker.identity.by_id(person.entity)
    if entity is None or entity.disabled or not worker.identity.groups_of(entity, (OPERATORS,)):
        raise Denied("only members of jitvault-operators can end the tasks of others", hint="End your own by its id.")


def kill(
    hire: Callable[[], ThreadContext],
    tasks: Sequence[str],
    *,
    note: str,
    wait: float,
    tell: Tell,
    earlier: Collection[str] = (),
) -> list[Result]:
    """End all of `tasks`; gives each one's result, in order. One that cannot be ended stops none of the others.

    Those of `earlier` get their turn like the others, but nothing waits for a proof of them.

    What is not proven at once is tried again for `wait` seconds. Vault's own queue and our revocations can meet at a
    target, and then Vault takes some 10 s until it tries again (docs/vault-facts.md, "Revocation"). Where Vault gives
    no answer nothing is begun later than `wait` seconds from now; that there is much to do cuts nothing off.
    """
    crew = TaskPool(hire, tell)
    failed: dict[str, JitvaultError] = {}
    behind: dict[str, PendingLeases] = {}
    hanging = _SlowTasks(time.monotonic() + wait)
    end = partial(_end_leases, behind=behind, hanging=hanging)
    close = partial(_close_door, behind=behind)
    for what, act in (("doors closed", close), ("leases revoked", end), ("seen gone", _look_up)):
        failed |= crew.each(what, act, [task for task in tasks if task not in failed], note)
    # the quiet second of each passes while the others are worked on
    crew.each("credentials proven dead", _prove_credentials, tasks, note)
    proofs: dict[str, TaskRecord] = {}

    def prove(hand: ThreadContext, task_id: str, note: str) -> bool:
        proofs[task_id] = _prove(hand, task_id, note, patience_s=hanging.patience_s(task_id))
        return _is_proven(proofs[task_id])

    unproven = crew.each("proven", prove, tasks, note)
    deadline = time.monotonic() + wait
    hoped_for = [task for task in tasks if task not in earlier]
    while left := [task for task in hoped_for if not _is_proven(proofs.get(task)) and hanging.patience_s(task)]:
        if time.monotonic() + _PAUSE_S > deadline:
            break
        time.sleep(_PAUSE_S)
        unproven = crew.each("proven later", prove, left, note)
    failed |= unproven
    return [_result(task, proofs.get(task), failed.get(task), ended_earlier=task in earlier) for task in tasks]


def _is_proven(file: TaskRecord | None) -> bool:
    return file is not None and file.task.state in PROVEN


def _result(task_id: str, file: TaskRecord | None, error: JitvaultError | None, *, ended_earlier: bool) -> Result:
    """How a task came out, with what kept it from being proven; what came right later is forgotten.

    A finding counts in every run, also of a task that ended earlier.
    """
    if file is None:
        return Result(task_id, None, error)
    proof = proof_of(file)
    left: Sequence[str] = proof["not_proven"] if proof else ()
    if _is_proven(file):
        return Result(task_id, file.task.state, not_proven=left)
    because = unproven_because(proof) if proof else None
    nothing_to_end = ended_earlier and not isinstance(error, SecurityFinding) and shows_no_access(file)
    error = error or (NotConfirmed(because) if because else None)
    return Result(task_id, file.task.state, error, ended_earlier=nothing_to_end, not_proven=left)


def _close_door(hand: ThreadContext, task_id: str, note: str, *, behind: dict[str, PendingLeases]) -> bool:
    """End the task's token: what it has, kept in `behind`, can be taken away one by one then. Gives whether Vault says
    that it ended it.
    """
    why = (EndReason.OPERATOR, {"by": hand.person.entity, "note": note})

    def close(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
        verdicts, behind[task_id] = revoke_tokens_first(
            worker, file, claim, why=why if file.task.state in DELIVERED_STATES else None
        )
        return verdicts

    try:
        return _take(hand, task_id, close, _ANSWERED)
    except LedgerUnavailable as error:
        sign_end(hand.person, task_id, reason=EndReason.OPERATOR, note=note)
        taken = revoke_without_ledger(replace(hand.worker, asked_by=hand.person.entity), task_id)
        said = f"task {task_id}: {taken.ended} of {taken.known} credentials were ended in Vault, and nothing is proven"
        raise LedgerUnavailable(f"{said}: {error}", hint=error.hint) from None


def _end_leases(
    hand: ThreadContext, task_id: str, _note: str, *, behind: dict[str, PendingLeases], hanging: _SlowTasks
) -> bool:
    """Gives whether Vault says of every lease that it ended it."""
    worker, begun, done = hanging.bounded(hand.worker), hand.worker.now(), False
    try:
        done = _end_behind(replace(hand, worker=worker), task_id, behind.pop(task_id, None))
    finally:
        if not done and (worker.is_late() or _is_unanswered(worker, task_id, begun)):
            hanging.tasks.add(task_id)
    return done


def _end_behind(hand: ThreadContext, task_id: str, doomed: PendingLeases | None) -> bool:
    worker = hand.worker
    if doomed is not None:
        with worker.ledger.claim(task_id, partly=True) as claim:
            task = worker.ledger.task(task_id)
            if task is not None and task.version == doomed.version:
                return revoke_pending_leases(worker, doomed, claim) <= _ANSWERED
    # somebody else has worked on it since
    return _take(hand, task_id, revoke_leases, _ANSWERED)


def _is_unanswered(worker: WorkerContext, task_id: str, since: datetime) -> bool:
    """Whether Vault gave no answer to the end of one of its leases: what hangs is behind it."""
    file = worker.ledger.file(task_id)
    lost = [op for op in (file.operations if file else ()) if op.state is OpState.UNKNOWN]
    return any(op.kind == OperationKind.REVOKE_LEASE and op.answered_at and op.answered_at >= since for op in lost)


def _look_up(hand: ThreadContext, task_id: str, _note: str) -> bool:
    """Gives whether Vault says of every credential that there is no such thing."""
    return _take(hand, task_id, look_up_ended, _GONE)


def _take(
    hand: ThreadContext, task_id: str, act: Callable[[WorkerContext, TaskRecord, int], Verdicts], good: Verdicts
) -> bool:
    """Do `act` to a task; gives whether all that came of it is `good`. One that is being issued may have a token that
    nobody knows yet: it is left to the story.
    """
    found = with_task_claim(hand.worker, task_id, act)
    return found is not None and found <= good


def _prove_credentials(hand: ThreadContext, task_id: str, note: str) -> bool:
    """Gives whether each credential is proven dead by what its template asks for; only time is missing then. Whatever
    fails here is done again.
    """
    try:
        file = _prove(hand, task_id, note, patience_s=0)
    except JitvaultError:
        return False
    access = Revision.of(file.revision.body)
    return all(grant.verdict in DEAD for grant in file.grants) and all(
        lease.verdict is Verdict.TARGET_CONFIRMED
        or (lease.verdict in DEAD and rung_of(file, access.template_of(lease.path) or {}) != ProofLevel.TARGET)
        for lease in file.leases
    )


def _prove(hand: ThreadContext, task_id: str, note: str, *, patience_s: float) -> TaskRecord:
    """Sign what was done, so that everybody can see whose will it was, and go on with the story of the task."""
    worker = hand.worker
    file = worker.ledger.file(task_id)
    if file is not None and not _signed(hand, file):
        sign_end(hand.person, task_id, reason=EndReason.OPERATOR, note=note)
    return advance(worker, task_id, hint=hand.person.entity, deadline=worker.clock.monotonic() + patience_s)


def _signed(hand: ThreadContext, file: TaskRecord) -> bool:
    """Whether it had ended before, by somebody's will that is on record."""
    by = [e.body.get("by") for e in file.events if e.kind == EventKind.ENDING]
    return bool(by) and by[-1] != hand.person.entity
