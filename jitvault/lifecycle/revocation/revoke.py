"""Revoke a task's credentials: the token first, so that nothing new can be read with it, then each known lease.

Revoking a token only queues its leases in Vault. So each lease is revoked synchronously by its id as well, which gives
it an audit line of its own. Vault's answer is not a proof: `confirmation/` judges what it is worth. One credential that
cannot be revoked does not keep the others alive. It is retried later, by jitvault and by Vault's own queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, OutcomeUnknown, VaultBusy, WaitTimedOut
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, Row, TaskRecord
from jitvault.lifecycle.revocation import credential as handles
from jitvault.lifecycle.revocation.credential import CredentialHandle
from jitvault.lifecycle.revocation.results import ResultRecorder, Verdicts, queue_in_vault
from jitvault.model.kinds import EventKind, LookupAnswer, OperationKind
from jitvault.model.states import DEAD, REOPENING_EVENTS, EndCause, EndReason, State, Verdict
from jitvault.operations import DONE, new_operation


@dataclass(frozen=True, slots=True)
class PendingLeases:
    """The leases to revoke after a task's tokens were revoked.

    Each lease comes with its intent, which is committed already. `version` is the task's version as the revocation of
    the tokens left it, and `since` is when the task began to end.
    """

    task_id: str
    version: int
    since: datetime | None
    leases: tuple[tuple[LeaseRow, OperationRow], ...]


_GONE = frozenset({Verdict.GONE})


def revoke(worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None) -> None:
    """Revoke every credential of the task that is not proven dead, and look it up.

    A credential that Vault acknowledged to have revoked, and that was gone afterwards, is only looked up. `why` is the
    cause of the end, where the task has access until now: the decision is committed together with the intents, because
    the access lasts as long as one more commit takes.

    Each credential is also looked up before its revocation in these cases:

    - After a gap in the stream, or after a hazardous act that was seen: such an act can take a lease's record away, and
      then Vault answers 204 and does nothing. Only a look-up that still finds the credential rules that out.
    - With several audit sources: until the next canary, the stream may have moved to another source.
    - In a task that was reopened: a credential that is found alive has to be proven dead anew.

    Once everything was tried, raises the first error that kept Vault from answering for a credential. A revocation that
    Vault tried and could not do raises nothing: the verdict says so. Raises WaitTimedOut where the worker's deadline
    passed before each lease had its turn. Every token has its turn, and with a token Vault revokes its leases itself.
    """
    doomed = _without_gone(worker, file, claim, (*_tokens(worker, file), *_leases(worker, file)))
    _revoke_all(worker, file, claim, doomed, look_first=_to_look_up_first(worker, file, doomed), why=why)


def revoke_tokens(worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None) -> Verdicts:
    """Revoke the task's tokens alone: the first half of `revoke`.

    Once Vault acknowledges that it revoked a token, nothing new can be read with it. The token is not looked up yet.
    """
    tokens = _tokens(worker, file)
    # leases are looked up first, too: Vault revokes them with their token, and afterwards it would be too late
    look_first = _to_look_up_first(worker, file, (*tokens, *_leases(worker, file)))
    return _revoke_all(worker, file, claim, tokens, look_first=look_first, why=why, look=False)


def revoke_leases(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """Revoke the task's leases alone: the second half of `revoke`.

    A lease that Vault acknowledges to have revoked is not looked up yet.
    """
    return _revoke_all(worker, file, claim, _leases(worker, file), look=False)


def revoke_superseded_leases(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Revoke leases that were issued to a token which an extension has replaced.

    A read that was in flight while the token was replaced still gets a lease. The task goes on, and what Vault could
    not revoke is tried at the next renewal.
    """
    replaced = {grant.grant_id for grant in file.grants if grant.settled}
    left_over = [lease for lease in file.leases if lease.grant_id in replaced and lease.verdict not in DEAD | _GONE]
    _revoke_all(worker, file, claim, [handles.lease(worker, lease) for lease in left_over])


def revoke_tokens_first(
    worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None
) -> tuple[Verdicts, PendingLeases]:
    """Revoke the tokens like `revoke_tokens`.

    Return also the leases to revoke next.

    The intents for the leases are in the same commit, so `revoke_pending_leases` needs no commit before it acts.
    """
    tokens, leases = _tokens(worker, file), _leases(worker, file)
    if not tokens and not leases and why is None:
        return frozenset(), PendingLeases(file.task.task_id, file.task.version, None, ())
    look_first = _to_look_up_first(worker, file, (*tokens, *leases))
    ops, since = _commit_intents(worker, file, claim, (*tokens, *leases), why)
    token_ops = list(zip(tokens, ops, strict=False))
    results = _act(worker, file.task.task_id, claim, token_ops, since, look_first=look_first, look=False)
    rows = [handle.row for handle in leases if isinstance(handle.row, LeaseRow)]
    pending = tuple(zip(rows, ops[len(tokens) :], strict=True))
    return results.verdicts(), PendingLeases(file.task.task_id, results.version, since, pending)


def revoke_pending_leases(worker: WorkerContext, pending: PendingLeases, claim: int) -> Verdicts:
    """Revoke the leases that `revoke_tokens_first` returned.

    This may run in another thread. The task must not have changed since its tokens were revoked.
    """
    pairs = [(handles.lease(worker, row), op) for row, op in pending.leases]
    return _act(worker, pending.task_id, claim, pairs, pending.since, look=False).verdicts()


def look_up_ended(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """Look up the credentials whose revocation Vault acknowledged.

    Returns the verdict that Vault reports of every credential that is not proven dead.
    """
    results = ResultRecorder(worker, file.task.task_id, claim, since=_ending_since(file))
    others: set[Verdict] = set()
    try:
        for handle in (*_tokens(worker, file), *_leases(worker, file)):
            if handle.row.verdict is Verdict.ACKNOWLEDGED:
                results.add_result(handle.subject, handles.look_up(worker, handle))
            else:
                others.add(handle.row.verdict)
    finally:
        results.commit()
    return results.verdicts() | others


def _without_gone(
    worker: WorkerContext, file: TaskRecord, claim: int, doomed: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """Return the credentials without those that are revoked and still gone.

    To revoke a credential once more that Vault acknowledged to have revoked, and that still does not exist, proves
    nothing. Each such credential is looked up here.
    """
    acknowledged = _acknowledged_subjects(file)
    results = ResultRecorder(worker, file.task.task_id, claim, since=_ending_since(file))
    still_gone: set[str] = set()
    try:
        for handle in doomed:
            if handle.row.verdict is not Verdict.GONE or handle.subject not in acknowledged:
                continue
            result = handles.look_up(worker, handle)
            results.add_result(handle.subject, result)
            if result.row.verdict is Verdict.GONE:
                still_gone.add(handle.subject)
    finally:
        results.commit()
    return [handle for handle in doomed if handle.subject not in still_gone]


def _acknowledged_subjects(file: TaskRecord) -> set[str]:
    """Return the credentials revoked by Vault's word that no later look-up found.

    A credential that a later look-up found may have been revoked after all by Vault's own queue, which writes no line
    (docs/vault-facts.md, "Revocation"). Where it had been gone before that, only a revocation after the look-up that
    found it can prove that it is dead anew.
    """
    # answers from before a reopening are about a state of Vault that a restore may have undone
    since = max((datetime.fromisoformat(e.at) for e in file.events if e.kind in REOPENING_EVENTS), default=None)
    later = [op for op in file.operations if op.answered_at and (since is None or op.sent_at >= since)]
    acknowledged: set[str] = set()
    # in the order of the answers: the intent of a revocation is committed before the look-up that precedes it
    for op in sorted(later, key=lambda op: op.answered_at or op.sent_at):
        if op.kind in (OperationKind.REVOKE_TOKEN, OperationKind.REVOKE_LEASE) and op.answer == DONE:
            acknowledged.add(op.subject)
        elif op.kind in (OperationKind.LOOKUP_TOKEN, OperationKind.LOOKUP_LEASE) and op.answer == LookupAnswer.LIVE:
            acknowledged.discard(op.subject)
    return acknowledged


def _tokens(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Return the task's tokens that are not proven dead and that Vault can be asked about."""
    return [handles.token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]


def _leases(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Return the task's leases that are not proven dead, in the order to revoke them.

    Leases that Vault still had come first, and of these the one that was not tried for longest. So a revocation that
    hangs cannot starve the others again and again.
    """
    tried = {
        op.subject: op.answered_at for op in file.operations if op.kind == OperationKind.REVOKE_LEASE and op.answered_at
    }
    live = [lease for lease in file.leases if lease.verdict not in DEAD]
    live.sort(key=lambda lease: (lease.verdict is Verdict.GONE, tried.get(lease.lease_id, lease.issued_at)))
    return [handles.lease(worker, lease) for lease in live]


def _ending(worker: WorkerContext, reason: EndReason, body: Mapping[str, object]) -> Change:
    """Return the change that ends a task; it is due at once if this process dies."""
    now = worker.now()
    fields = {"end_reason": reason, "ending_at": now, "due_at": now}
    return Change(EventKind.ENDING, {"reason": reason.value, **body}, state=State.ENDING, fields=fields)


def _to_look_up_first(
    worker: WorkerContext, file: TaskRecord, doomed: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """Return which of the credentials to look up before revoking: all or none."""
    if doomed and (_may_have_moved(worker) or _is_in_doubt(worker, file)):
        return doomed
    return ()


def _is_in_doubt(worker: WorkerContext, file: TaskRecord) -> bool:
    """Return whether the task was reopened, or a gap or hazardous act touches it."""
    was_reopened = any(event.kind in REOPENING_EVENTS for event in file.events)
    return was_reopened or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def _may_have_moved(worker: WorkerContext) -> bool:
    """Return whether the stream may continue elsewhere than where it was last read.

    The kill switch does not read the stream before it revokes, so this asks the sources only.
    """
    sources = worker.sources.present()
    readings = worker.ledger.readings()
    if len(sources) != 1:
        return True
    reading = readings.get(sources[0].name)
    with suppress(AuditUntrusted):
        return reading is None or not sources[0].continues(reading.position)
    return True


def revoke_token(worker: WorkerContext, file: TaskRecord, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token of an issue that did not finish.

    The token is named by its accessor or, where the accessor was lost in a crash, by its lease path. It is looked up
    before its revocation as well: whatever interrupted the issue can also have kept lines out of the stream.
    """
    tokens = [handles.token(worker, grant)]
    _revoke_all(worker, file, claim, tokens, look_first=tokens)


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def confirm_still_live(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """Look up what `revoke` would look up before revoking, and do not revoke.

    For a caller that revokes by something coarser than one revocation each, like a whole role. What the worker's
    deadline leaves no time for is skipped. Returns no verdicts.
    """
    results = ResultRecorder(worker, file.task.task_id, claim, since=None, event=EventKind.SEEN_ALIVE)
    try:
        credentials = (*_tokens(worker, file), *_leases(worker, file))
        _look_up_first(worker, _to_look_up_first(worker, file, credentials), results)
    finally:
        results.commit()
    return frozenset()


def _look_up_first(worker: WorkerContext, look_first: Sequence[CredentialHandle], results: ResultRecorder) -> None:
    """Record what look-ups before a revocation find, until the deadline."""
    for handle in look_first:
        if worker.is_late():
            return
        with suppress(OutcomeUnknown, VaultBusy):
            lookup, _found = handles.ask(worker, handle)
            results.add(lookup)


def _revoke_all(
    worker: WorkerContext,
    file: TaskRecord,
    claim: int,
    doomed: Sequence[CredentialHandle],
    *,
    look_first: Sequence[CredentialHandle] = (),
    why: EndCause | None = None,
    look: bool = True,
) -> Verdicts:
    """Commit all intents, revoke each credential in order, commit all answers.

    One commit before and one after keep the time short in which the access still exists. A crash in between leaves
    operations that read as unknown, and the next run revokes again.
    """
    if not doomed and why is None:
        return frozenset()
    ops, since = _commit_intents(worker, file, claim, doomed, why)
    pairs = list(zip(doomed, ops, strict=True))
    return _act(worker, file.task.task_id, claim, pairs, since, look_first=look_first, look=look).verdicts()


def _commit_intents(
    worker: WorkerContext, file: TaskRecord, claim: int, doomed: Sequence[CredentialHandle], why: EndCause | None
) -> tuple[list[OperationRow], datetime | None]:
    """Commit the intents; return the operations and since when the task ends.

    With `why`, the decision to end the task is part of the commit.
    """
    task_id = file.task.task_id
    ops: list[OperationRow] = []
    requested: list[Row] = []
    for handle in doomed:
        ops.append(new_operation(worker, OperationKind(f"revoke_{handle.kind}"), handle.subject, task_id=task_id))
        requested.append(replace(handle.row, verdict=Verdict.REVOKE_REQUESTED))
    body = {"ops": [op.op_id for op in ops], "subjects": [handle.subject for handle in doomed]}
    change = _ending(worker, *why) if why else Change(EventKind.REVOKE_INTENDED)
    change = replace(change, body={**change.body, **body}, rows=(*change.rows, *requested, *ops))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    return ops, change.fields.get("ending_at") or _ending_since(file)


def _act(
    worker: WorkerContext,
    task_id: str,
    claim: int,
    doomed: Sequence[tuple[CredentialHandle, OperationRow]],
    since: datetime | None,
    *,
    look_first: Sequence[CredentialHandle] = (),
    look: bool,
) -> ResultRecorder:
    """Revoke each credential in order, and commit all answers that came."""
    results = ResultRecorder(worker, task_id, claim, since=since)
    try:
        # all look-ups come before the first revocation: Vault revokes the leases with their token
        _look_up_first(worker, look_first, results)
        for handle, op in doomed:
            _check_in_time(worker, handle)
            results.add_result(handle.subject, handles.revoke_and_look_up(worker, handle, op, look=look))
    finally:
        results.commit()
    if results.left_to_vault:
        queue_in_vault(worker, task_id, claim, results.left_to_vault)
    return results


def _check_in_time(worker: WorkerContext, handle: CredentialHandle) -> None:
    """Raise WaitTimedOut for a lease that Vault still has after the deadline.

    A revocation that hangs would take more time than there is.
    """
    if worker.is_late() and handle.kind == "lease" and handle.row.verdict is not Verdict.GONE:
        raise WaitTimedOut(
            f"task {handle.row.task_id}: the time was over before each of its leases had its turn",
            hint="The rest is due: run the same command again, or give it longer with --wait.",
        )


def _ending_since(file: TaskRecord) -> datetime | None:
    """Return when the task began to end; None where it is not ending."""
    return file.task.ending_at if file.task.state is State.ENDING else None
