"""The kill switch: revoke every task of a scope at once, and confirm each.

First all tasks are claimed, so that no worker renews them meanwhile. Then their tokens are revoked, then all leases,
then each task is confirmed by `advance` like any other. If this process stops, what was started is in the ledger: the
same command goes on with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from jitvault.context import Person, WorkerContext
from jitvault.documents.paths import PUBLISHED
from jitvault.documents.published_task import IllegibleDocument, PublishedTask
from jitvault.errors import (
    CorruptRecord,
    Denied,
    JitvaultError,
    LedgerUnavailable,
    NotConfirmed,
    NotFound,
    SecurityFinding,
)
from jitvault.kill_switch.claimed import claimed
from jitvault.kill_switch.ended_before import shows_no_access
from jitvault.kill_switch.threads import TaskPool, Tell, ThreadContext
from jitvault.ledger.model import OpState, TaskRecord
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.integrity import published
from jitvault.lifecycle.record.receipt import proof_of
from jitvault.lifecycle.requests.scope_names import covers_any, scope_by_name_and_id
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.lifecycle.revocation.cascade import live_below
from jitvault.lifecycle.revocation.phases import PhasedRevocation
from jitvault.lifecycle.revocation.results import Verdicts
from jitvault.lifecycle.revocation.revoke import is_replaced_token_unproven
from jitvault.lifecycle.revocation.without_ledger import revoke_without_ledger
from jitvault.lifecycle.unexpected_error import failure_of, others_go_on
from jitvault.model.event_bodies import EndCause, said
from jitvault.model.kinds import OperationKind
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope
from jitvault.model.states import DEAD, DELIVERED_STATES, PROVEN, EndReason, State, Verdict
from jitvault.policy.decision import OPERATORS, ProofLevel

_PAUSE_S = 2.0
# for one task, with what it has to wait for
_PATIENCE_S = 10.0
_GONE = frozenset({Verdict.GONE})
_ANSWERED = _GONE | {Verdict.ACKNOWLEDGED}
_STILL_THERE = DELIVERED_STATES | {State.ISSUING, State.ENDING}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one task.

    `error` is what kept it from being revoked or confirmed.

    `ended_earlier` marks a task that ended long before this run and shows no access (see `ended_before.py`).
    `not_proven` names what no check of its proof covers. `target_asked` says whether the target was asked about each of
    its leases; None where it has none, or no proof.
    """

    task_id: str
    state: State | None
    error: JitvaultError | None = None
    ended_earlier: bool = False
    not_proven: Sequence[str] = ()
    target_asked: bool | None = None

    @property
    def confirmed(self) -> bool:
        return self.error is None and self.state in PROVEN


@dataclass
class _SlowTasks:
    """The tasks whose leases hang.

    They are waited for until `until`, by `time.monotonic()`.
    """

    until: float
    tasks: set[str] = field(default_factory=set)

    def bounded(self, worker: WorkerContext) -> WorkerContext:
        """Return the worker; with `until` as its deadline once a task hangs."""
        return worker.until(self.until) if self.tasks else worker

    def patience_s(self, task_id: str) -> float:
        left_s = max(0.0, self.until - time.monotonic())
        return min(_PATIENCE_S, left_s) if task_id in self.tasks else _PATIENCE_S


def tasks_in_scope(worker: WorkerContext, scope: Scope) -> list[str]:
    """Return the scope's tasks that have access or an unconfirmed end.

    Tasks that are delegated below them are included.
    """
    held, scopes = worker.ledger.task_ids(_STILL_THERE), scope_by_name_and_id(worker, scope)
    tasks = dict.fromkeys(task_id for task_id in held if is_covered(worker, scopes, task_id))
    # delegated tasks end as well, and their tokens are revoked with the others
    return list(tasks | dict.fromkeys(child for task in tasks for child in live_below(worker, task)))


def is_covered(worker: WorkerContext, scopes: Sequence[Scope], task_id: str) -> bool:
    """Return whether a task is in one of the scopes.

    A task of which that is not known counts as covered.
    """
    with others_go_on(task_id):
        record = worker.ledger.record(task_id)
        return record is not None and covers_any(scopes, record.revision.body)
    return True


def was_ever_in_scope(worker: WorkerContext, scope: Scope) -> bool:
    """Return whether any task was ever in the scope.

    The search is slow with a million tasks.
    """
    scopes = scope_by_name_and_id(worker, scope)
    # a task that only Vault knows counts: where the ledger lost it, its name must not look wrong
    names = worker.documents.names(PUBLISHED)
    if any(isinstance(_published_as_held(worker, scopes, name), PublishedTask) for name in names):
        return True
    for body in worker.ledger.revision_bodies():
        with suppress(CorruptRecord):
            if covers_any(scopes, body):
                return True
    return False


def published_but_unknown(worker: WorkerContext, scope: Scope, results: Sequence[Result]) -> list[Result]:
    """Find tasks that are published as held and that this run did not end.

    They are held by the documents that are published in Vault. They were granted meanwhile, or the ledger was restored
    or edited and does not know them or calls them over. Or they are over, and the process that ended them died before
    it published that: it is published now. An unreadable document counts, with no state.
    """
    known = {result.task_id for result in results}
    scopes = scope_by_name_and_id(worker, scope)
    found = []
    for task_id in worker.documents.names(PUBLISHED):
        if task_id not in known and (result := _if_published_as_held(worker, scopes, task_id)) is not None:
            found.append(result)
    return found


def _published_as_held(
    worker: WorkerContext, scopes: Sequence[Scope], task_id: str
) -> PublishedTask | IllegibleDocument | None:
    """Return what is published of a task of the scopes.

    The result is None where that can be read and does not call the task held.
    """
    said = published(worker, task_id)
    if isinstance(said, PublishedTask):
        return said if said.state in _STILL_THERE and covers_any(scopes, said.body) else None
    return said if isinstance(said, IllegibleDocument) else None


def _if_published_as_held(worker: WorkerContext, scopes: Sequence[Scope], task_id: str) -> Result | None:
    """Return the result for a task of the scopes that is published as held.

    This run did not end the task. The result is None where the task is not published as held.
    """
    said = _published_as_held(worker, scopes, task_id)
    if said is None:
        return None
    if isinstance(said, IllegibleDocument):
        return unreadable(task_id)
    try:
        here = worker.ledger.task(task_id)
    except CorruptRecord as error:
        return Result(task_id, said.state, error)
    if here is not None and here.state in _STILL_THERE:
        return Result(task_id, here.state, NotConfirmed(f"task {task_id} was granted meanwhile"))
    if here is not None:
        return _published_now(worker, task_id, said)
    message = f"Vault says that task {task_id} is {said.state}, which the ledger does not hold"
    hint = "`jitvault sweep` shows what lives on; `jitvault ledger recover` corrects an older ledger."
    return Result(task_id, said.state, SecurityFinding(message, hint=hint))


def _published_now(worker: WorkerContext, task_id: str, said: PublishedTask) -> Result:
    """Publish that a task is over, and return its result.

    `said` calls the task held, and the ledger calls it over. Its turn raises a finding unless Vault agrees with that.
    """
    try:
        return _result(task_id, advance(worker, task_id), None, ended_earlier=False)
    except JitvaultError as error:
        return Result(task_id, said.state, error)
    except Exception as bug:  # noqa: BLE001 - the results of the other tasks are shown all the same
        return Result(task_id, said.state, failure_of(task_id, bug))


def unreadable(task_id: str) -> Result:
    """Return the result for a task whose published document cannot be read.

    It is not known whether the scope covers that task.
    """
    hint = "`jitvault status TASK` shows what the ledger has of it, `jitvault sweep` what lives on."
    return Result(task_id, None, SecurityFinding(f"Vault's document of task {task_id} cannot be read", hint=hint))


def check_known(scope: Scope, covers_any: bool) -> None:
    """Raise NotFound for a name that no task ever had.

    In an emergency a wrong name must not look like a success.
    """
    if not scope.is_all and not covers_any:
        named = scope.agent or scope.template or scope.owner
        raise NotFound(
            f"no task was ever in the scope {named!r:.80}: nothing was revoked", hint="Check how the name is written."
        )


def check_operator(worker: WorkerContext, person: Person) -> None:
    """Raise Denied unless the person is an operator.

    Only an operator may end others' tasks.
    """
    entity = worker.identity.by_id(person.entity)
    if entity is None or entity.disabled or not worker.identity.groups_of(entity, (OPERATORS,)):
        raise Denied(
            "only members of jitvault-operators can end the tasks of others",
            hint="End your own by its id. VAULT_TOKEN has to be an operator's, also beside the worker's identity.",
        )


def kill(
    hire: Callable[[], ThreadContext],
    tasks: Sequence[str],
    *,
    note: str,
    wait: float,
    tell: Tell,
    earlier: Collection[str] = (),
) -> list[Result]:
    """End all of `tasks`; return their results in order.

    A task that cannot be ended does not stop the others. Tasks of `earlier` get their turn like the others, but are not
    waited for.

    What is not confirmed at once is retried for `wait` seconds. Vault's own queue and jitvault's revocations can
    collide at a target, and Vault then takes some 10 s until it tries again (docs/vault-facts.md, "Revocation"). Where
    Vault gives no answer, nothing is started later than `wait` seconds from now. A large number of tasks alone cuts
    nothing off.
    """
    crew = TaskPool(hire, tell)
    failed: dict[str, JitvaultError] = {}
    revocations: dict[str, PhasedRevocation] = {}
    hanging = _SlowTasks(time.monotonic() + wait)
    with claimed(hire().worker.ledger, tasks) as first:
        failed |= crew.each("tokens revoked", partial(_revoke_tokens, revocations=revocations), first, note)
    phases = (
        ("leases revoked", partial(_revoke_leases, revocations=revocations, hanging=hanging)),
        ("seen gone", partial(_look_up, revocations=revocations)),
    )
    for what, act in phases:
        failed |= crew.each(what, act, [task for task in tasks if task not in failed], note)
    # this first pass does not wait, so that the quiet seconds of the tasks overlap
    crew.each("credentials confirmed dead", _prove_credentials, tasks, note)
    proofs: dict[str, TaskRecord] = {}

    def prove(hand: ThreadContext, task_id: str, note: str) -> bool:
        proofs[task_id] = _prove(hand, task_id, note, patience_s=hanging.patience_s(task_id))
        return _is_proven(proofs[task_id])

    unproven = crew.each("confirmed", prove, tasks, note)
    deadline = time.monotonic() + wait
    hoped_for = [task for task in tasks if task not in earlier]
    while left := [task for task in hoped_for if not _is_proven(proofs.get(task)) and hanging.patience_s(task)]:
        if time.monotonic() + _PAUSE_S > deadline:
            break
        time.sleep(_PAUSE_S)
        again = crew.each("confirmed later", prove, left, note)
        # the error of a task that has no further turn stays
        unproven = {task: error for task, error in unproven.items() if task not in left} | again
    failed |= unproven
    return [_result_or_bug(task, proofs.get(task), failed.get(task), ended_earlier=task in earlier) for task in tasks]


def _result_or_bug(
    task_id: str, record: TaskRecord | None, error: JitvaultError | None, *, ended_earlier: bool
) -> Result:
    """Return the result of a task, or a failure where a bug hides it.

    So the results of the other tasks are shown.
    """
    try:
        return _result(task_id, record, error, ended_earlier=ended_earlier)
    except JitvaultError as corrupt:
        return Result(task_id, None, corrupt)
    except Exception as bug:  # noqa: BLE001 - the results of the other tasks are shown all the same
        return Result(task_id, None, failure_of(task_id, bug))


def _is_proven(record: TaskRecord | None) -> bool:
    return record is not None and record.task.state in PROVEN


def _result(task_id: str, record: TaskRecord | None, error: JitvaultError | None, *, ended_earlier: bool) -> Result:
    """Return the result of a task, with what kept it from being confirmed.

    An error is dropped where the task was confirmed later. A finding counts in every run, even for a task that ended
    earlier.
    """
    if record is None:
        return Result(task_id, None, error)
    proof = proof_of(record)
    left: Sequence[str] = proof.not_proven if proof else ()
    if _is_proven(record):
        asked = proof.target_asked if proof else None
        return Result(task_id, record.task.state, not_proven=left, target_asked=asked)
    because = proof.unproven_because if proof else None
    nothing_to_end = ended_earlier and not isinstance(error, SecurityFinding) and shows_no_access(record)
    error = error or (NotConfirmed(because) if because else None)
    return Result(task_id, record.task.state, error, ended_earlier=nothing_to_end, not_proven=left)


def _revoke_tokens(hand: ThreadContext, task_id: str, note: str, *, revocations: dict[str, PhasedRevocation]) -> bool:
    """Revoke the task's tokens; return whether Vault acknowledged that.

    The task's revocation is put into `revocations` for the next phases. Where the ledger accepts no writes, everything
    is revoked in Vault without it, and LedgerUnavailable is raised.
    """

    def why(_worker: WorkerContext, record: TaskRecord) -> EndCause | None:
        has_access = record.task.state in DELIVERED_STATES or is_replaced_token_unproven(record)
        return EndCause(reason=EndReason.OPERATOR, by=hand.person.entity, note=note) if has_access else None

    revocation = revocations[task_id] = PhasedRevocation(task_id, why)
    try:
        return _are_all(revocation.revoke_tokens(hand.worker), _ANSWERED)
    except LedgerUnavailable as error:
        sign_end(hand.person, task_id, reason=EndReason.OPERATOR, note=note)
        taken = revoke_without_ledger(replace(hand.worker, asked_by=hand.person.entity), task_id)
        said = f"task {task_id}: {taken.ended} of {taken.known} credentials were ended in Vault, and nothing is proven"
        raise LedgerUnavailable(f"{said}: {error}", hint=error.hint) from None


def _revoke_leases(
    hand: ThreadContext,
    task_id: str,
    _note: str,
    *,
    revocations: Mapping[str, PhasedRevocation],
    hanging: _SlowTasks,
) -> bool:
    """Revoke the task's leases; return whether Vault acknowledged every one."""
    worker = hanging.bounded(hand.worker)
    begun = worker.now()
    done = False
    try:
        done = _are_all(revocations[task_id].revoke_leases(worker), _ANSWERED)
    finally:
        if not done and (worker.is_late() or _is_unanswered(worker, task_id, begun)):
            hanging.tasks.add(task_id)
    return done


def _look_up(hand: ThreadContext, task_id: str, _note: str, *, revocations: Mapping[str, PhasedRevocation]) -> bool:
    """Look up the task's credentials; return whether all are gone."""
    return _are_all(revocations[task_id].look_up(hand.worker), _GONE)


def _are_all(verdicts: Verdicts | None, good: Verdicts) -> bool:
    """Return whether a phase had something to revoke, with no other verdicts.

    A task that is being issued may have a token that is not known yet. It is left to `advance`.
    """
    return verdicts is not None and verdicts <= good


def _is_unanswered(worker: WorkerContext, task_id: str, since: datetime) -> bool:
    """Return whether Vault gave no answer to a lease's revocation.

    There is no answer where a target hangs.
    """
    record = worker.ledger.record(task_id)
    lost = [op for op in (record.operations if record else ()) if op.state is OpState.UNKNOWN]
    return any(op.kind == OperationKind.REVOKE_LEASE and op.answered_at and op.answered_at >= since for op in lost)


def _prove_credentials(hand: ThreadContext, task_id: str, note: str) -> bool:
    """Return whether each credential is proven dead as its template requires.

    Then only time is missing until the task is confirmed. Whatever fails here is done again later.
    """
    try:
        record = _prove(hand, task_id, note, patience_s=0)
    except JitvaultError:
        return False
    access = Revision.of(record.revision.body)
    return all(grant.verdict in DEAD for grant in record.grants) and all(
        lease.verdict is Verdict.TARGET_CONFIRMED
        or (lease.verdict in DEAD and proof_level_of(record, access.access_at(lease.path)) != ProofLevel.TARGET)
        for lease in record.leases
    )


def _prove(hand: ThreadContext, task_id: str, note: str, *, patience_s: float) -> TaskRecord:
    """Sign the end of the task in the person's name, and advance the task."""
    worker = hand.worker
    record = worker.ledger.record(task_id)
    if record is not None and not _signed(hand, record):
        sign_end(hand.person, task_id, reason=EndReason.OPERATOR, note=note)
    return advance(worker, task_id, hint=hand.person.entity, deadline=worker.clock.monotonic() + patience_s)


def _signed(hand: ThreadContext, record: TaskRecord) -> bool:
    """Return whether another entity's decision to end the task is on record."""
    authors = [body.by for _, body in said(record.events, EndCause)]
    return bool(authors) and authors[-1] != hand.person.entity
