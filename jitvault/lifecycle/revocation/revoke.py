"""Revoke a task's credentials: the token first, then each known lease.

The token comes first so that nothing new can be read with it. Revoking a token only queues its leases in Vault. So each
lease is revoked synchronously by its id as well, which gives it an audit line of its own. Vault's answer is not a
proof: `confirmation/` judges what it is worth. One credential that cannot be revoked does not keep the others alive. It
is retried later, by jitvault and by Vault's own queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, OutcomeUnknown, VaultBusy, VaultRefused, WaitTimedOut
from jitvault.ledger.model import Change, GrantRow, OperationRow, OpState, Row, TaskRecord
from jitvault.lifecycle.revocation import credential as handles
from jitvault.lifecycle.revocation.credential import CredentialHandle, RevocationResult
from jitvault.lifecycle.revocation.results import ResultRecorder, Verdicts, queue_in_vault
from jitvault.model.event_bodies import EndCause
from jitvault.model.kinds import EventKind, LookupAnswer, OperationKind
from jitvault.model.states import DEAD, REOPENING_EVENTS, State, Verdict
from jitvault.operations import DONE, new_operation

LOOK_FIRST_S = 10.0
"""How long look-ups may delay a task's first revocation, in seconds; thousands of leases are looked up in this time."""


class Revocation:
    """Revokes a task's credentials in three phases.

    Tokens are revoked first, so that nothing new can be made, then leases, and then all are looked up. Used in a `with`
    statement while the caller holds the task's claim. The first phase commits the intents of all credentials at once,
    with `why` the task ends, where it has access until now: that access lasts as long as one more commit takes. The
    answers are committed when the context ends, whatever ended it. A crash in between leaves operations that read as
    unknown, and the next run revokes again.

    When the context ends without an error, the first error is raised that kept Vault from answering for a credential,
    and WaitTimedOut where the worker's deadline passed before each lease had its turn. Every token has its turn, and
    with a token Vault revokes its leases itself. A revocation that Vault tried and could not do raises nothing: the
    verdict says so.
    """

    def __init__(
        self,
        worker: WorkerContext,
        record: TaskRecord,
        claim: int,
        doomed: Sequence[CredentialHandle],
        *,
        why: EndCause | None = None,
        look_first: Sequence[CredentialHandle] = (),
    ) -> None:
        """Prepare to revoke `doomed`.

        The credentials `look_first` are looked up before the first token is revoked.
        """
        self._worker = worker
        self._claim = claim
        self._tokens = [handle for handle in doomed if handle.kind == handles.TOKEN]
        self._leases = [handle for handle in doomed if handle.kind == handles.LEASE]
        self._why = why
        self._look_first = look_first
        self._ops: dict[str, OperationRow] = {}
        self._is_intended = False
        self._is_out_of_time = False
        self._results = ResultRecorder(worker, record, claim, since=_ending_since(record))

    @property
    def record(self) -> TaskRecord:
        """Return the task as of the last commit."""
        return self._results.record

    def resumed(self, worker: WorkerContext, claim: int) -> Revocation:
        """Return what is left to do, for another thread and under another claim.

        The task must not have changed since: it is still at the version of `record`.
        """
        resumed = Revocation(worker, self.record, claim, [handles.of(worker, handle.row) for handle in self._leases])
        resumed._ops = self._ops
        resumed._is_intended = self._is_intended
        resumed._results.since = self._results.since
        return resumed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        results = self._results
        results.commit()
        if error is not None:
            return
        if results.left_to_vault:
            results.record = queue_in_vault(self._worker, results.record, self._claim, results.left_to_vault)
        if self._is_out_of_time:
            raise WaitTimedOut(
                f"task {results.record.task.task_id}: the time was over before every lease was tried",
                hint="Run the same command again, or give it more time with --wait. The other leases then come first.",
            )
        results.raise_failure()

    def revoke_tokens(self) -> Verdicts:
        """Revoke the tokens, and return their verdicts.

        Once Vault acknowledges that it revoked a token, nothing new can be read with it.
        """
        self._commit_intents()
        if self._is_intended:
            # all look-ups come before the first revocation: Vault revokes the leases with their token
            _look_up_first(self._worker, self._look_first, self._results)
        self._tokens = [self._revoke(handle) for handle in self._tokens]
        return _verdicts(self._tokens)

    def revoke_leases(self) -> Verdicts:
        """Revoke the leases, and return their verdicts.

        The worker's deadline ends the phase.
        """
        self._commit_intents()
        revoked: list[CredentialHandle] = []
        for handle in self._leases:
            if self._worker.is_late() and handle.row.verdict is not Verdict.GONE:
                # a revocation that hangs would take more time than there is; a lease that is gone cannot hang
                self._is_out_of_time = True
                break
            revoked.append(self._revoke(handle))
        self._leases = revoked
        return _verdicts(revoked)

    def look_up(self) -> Verdicts:
        """Look up the credentials whose revocation Vault acknowledged.

        Returns the verdicts of all credentials. Those that Vault did not acknowledge were looked up at once.
        """
        self._tokens = [self._look_up(handle) for handle in self._tokens]
        self._leases = [self._look_up(handle) for handle in self._leases]
        return _verdicts((*self._tokens, *self._leases))

    def _commit_intents(self) -> None:
        """Commit the intents of all credentials, once.

        With `why`, the decision to end the task is committed as well.
        """
        doomed = (*self._tokens, *self._leases)
        if self._is_intended or (not doomed and self._why is None):
            return
        task_id = self.record.task.task_id
        requested: list[Row] = []
        for handle in doomed:
            kind = OperationKind(f"revoke_{handle.kind}")
            self._ops[handle.subject] = new_operation(self._worker, kind, handle.subject, task_id=task_id)
            requested.append(replace(handle.row, verdict=Verdict.REVOKE_REQUESTED))
        ops = tuple(self._ops.values())
        change = _ending(self._worker, self._why) if self._why else Change(EventKind.REVOKE_INTENDED)
        change = replace(change, rows=(*requested, *ops))
        self._results.record = self._worker.ledger.change(self.record, change, claim=self._claim, at=self._worker.now())
        self._is_intended = True
        self._results.since = change.fields.get("ending_at") or self._results.since

    def _revoke(self, handle: CredentialHandle) -> CredentialHandle:
        """Revoke one credential; return it with the verdict that Vault reports."""
        return self._add(handle, handles.revoke(self._worker, handle, self._ops[handle.subject]))

    def _look_up(self, handle: CredentialHandle) -> CredentialHandle:
        """Look up one credential if Vault acknowledged that it revoked it."""
        if handle.row.verdict is not Verdict.ACKNOWLEDGED:
            return handle
        return self._add(handle, handles.look_up(self._worker, handle))

    def _add(self, handle: CredentialHandle, result: RevocationResult) -> CredentialHandle:
        self._results.add_result(handle.subject, result)
        return replace(handle, row=result.row)


def revoke(worker: WorkerContext, record: TaskRecord, claim: int, *, why: EndCause | None = None) -> TaskRecord:
    """Revoke every credential of the task that is not proven dead.

    The credentials are looked up as well. Returns the task. A credential that Vault acknowledged to have revoked, and
    that was gone afterwards, is only looked up. `why` is the cause of the end, where the task has access until now;
    then nothing is looked up before that access is revoked. Raises like `Revocation`.
    """
    still_gone: set[str] = set()
    if why is None:
        record, still_gone = _look_up_gone(worker, record, claim)
    doomed = [handle for handle in live_credentials(worker, record) if handle.subject not in still_gone]
    look_first = to_look_up_first(worker, record, doomed)
    return _revoke_all(Revocation(worker, record, claim, doomed, why=why, look_first=look_first))


def revoke_tokens(worker: WorkerContext, record: TaskRecord, claim: int, *, why: EndCause | None = None) -> Verdicts:
    """Revoke the task's tokens alone, and return their verdicts.

    The tokens are not looked up yet. For a caller that revokes the task's leases later, by `revoke`.
    """
    # leases are looked up first, too: Vault revokes them with their token, and afterwards it would be too late
    look_first = to_look_up_first(worker, record, live_credentials(worker, record))
    with Revocation(worker, record, claim, live_tokens(worker, record), why=why, look_first=look_first) as revocation:
        return revocation.revoke_tokens()


def _revoke_all(revocation: Revocation) -> TaskRecord:
    """Take a revocation through its three phases.

    There is one commit before them and one after. Two commits keep the time short in which the access still exists.
    """
    with revocation:
        revocation.revoke_tokens()
        revocation.revoke_leases()
        revocation.look_up()
    return revocation.record


def revoke_superseded_leases(worker: WorkerContext, record: TaskRecord, claim: int) -> TaskRecord:
    """Revoke leases of a token which an extension has replaced.

    Returns the task. A read that was in flight while the token was replaced still gets a lease. The task goes on, and
    what Vault could not revoke is tried at the next renewal.
    """
    replaced = {grant.grant_id for grant in record.grants if grant.settled}
    over = DEAD | {Verdict.GONE}
    left_over = [lease for lease in record.leases if lease.grant_id in replaced and lease.verdict not in over]
    return _revoke_all(Revocation(worker, record, claim, [handles.lease(worker, lease) for lease in left_over]))


def revoke_unfinished_token(worker: WorkerContext, record: TaskRecord, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token of an issue that did not finish.

    The token is named by its accessor or, where the accessor was lost in a crash, by its lease path. It is looked up
    before its revocation as well: whatever interrupted the issue can also have kept lines out of the stream.
    """
    tokens = [handles.token(worker, grant)]
    _revoke_all(Revocation(worker, record, claim, tokens, look_first=tokens))


def _look_up_gone(worker: WorkerContext, record: TaskRecord, claim: int) -> tuple[TaskRecord, set[str]]:
    """Look up the credentials that are revoked and were gone.

    Returns the task and the credentials that are still gone. To revoke a credential once more that Vault acknowledged
    to have revoked, and that still does not exist, proves nothing.
    """
    acknowledged = _acknowledged_subjects(record)
    results = ResultRecorder(worker, record, claim, since=_ending_since(record))
    still_gone: set[str] = set()
    try:
        for handle in live_credentials(worker, record):
            if handle.row.verdict is not Verdict.GONE or handle.subject not in acknowledged:
                continue
            result = handles.look_up(worker, handle)
            results.add_result(handle.subject, result)
            if result.row.verdict is Verdict.GONE:
                still_gone.add(handle.subject)
    finally:
        results.commit()
    return results.record, still_gone


def _acknowledged_subjects(record: TaskRecord) -> set[str]:
    """Return the credentials that are revoked by Vault's word.

    Its audit line has to be there: what answered in Vault's place has none, and what that called revoked is revoked
    once more. Those that a later look-up found are left out. A credential that a later look-up found may have been
    revoked after all by Vault's own queue, which writes no line (docs/vault-facts.md, "Revocation"). Where it had been
    gone before that, only a revocation after the look-up that found it can prove that it is dead anew.
    """
    # answers from before a reopening are about a state of Vault that a restore may have undone
    since = max((datetime.fromisoformat(e.at) for e in record.events if e.kind in REOPENING_EVENTS), default=None)
    later = [op for op in record.operations if op.answered_at and (since is None or op.sent_at >= since)]
    acknowledged: set[str] = set()
    # in the order of the answers: the intent of a revocation is committed before the look-up that precedes it
    for op in sorted(later, key=lambda op: op.answered_at or op.sent_at):
        is_revocation = op.kind in (OperationKind.REVOKE_TOKEN, OperationKind.REVOKE_LEASE)
        if is_revocation and op.answer == DONE and op.state is OpState.SETTLED:
            acknowledged.add(op.subject)
        elif op.kind in (OperationKind.LOOKUP_TOKEN, OperationKind.LOOKUP_LEASE) and op.answer == LookupAnswer.LIVE:
            acknowledged.discard(op.subject)
    return acknowledged


def live_credentials(worker: WorkerContext, record: TaskRecord) -> list[CredentialHandle]:
    """Return the task's credentials that are not proven dead.

    They are in the order in which to revoke them.
    """
    return [*live_tokens(worker, record), *live_leases(worker, record)]


def live_tokens(worker: WorkerContext, record: TaskRecord) -> list[CredentialHandle]:
    """Return the task's tokens that are not proven dead.

    Tokens that Vault cannot be asked about are left out.
    """
    return [handles.token(worker, grant) for grant in record.grants if grant.verdict not in DEAD and _is_known(grant)]


def live_leases(worker: WorkerContext, record: TaskRecord) -> list[CredentialHandle]:
    """Return the task's leases that are not proven dead.

    They are in the order in which to revoke them. Leases that Vault still had come first, and of these the one that was
    not tried for longest. So a revocation that hangs cannot starve the others again and again.
    """
    tried = {
        op.subject: op.answered_at
        for op in record.operations
        if op.kind == OperationKind.REVOKE_LEASE and op.answered_at
    }
    live = [lease for lease in record.leases if lease.verdict not in DEAD]
    live.sort(key=lambda lease: (lease.verdict is Verdict.GONE, tried.get(lease.lease_id, lease.issued_at)))
    return [handles.lease(worker, lease) for lease in live]


def is_replaced_token_unproven(record: TaskRecord) -> bool:
    """Return whether the token that an extension replaces may still be alive.

    Nothing of the next token is made before the former one is proven dead.
    """
    return record.task.is_being_replaced and any(grant.delivered and not grant.settled for grant in record.grants)


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def to_look_up_first(
    worker: WorkerContext, record: TaskRecord, credentials: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """Return which of the credentials to look up before revoking: all or none.

    They are looked up first in these cases:

    - After a gap in the stream, or after a hazardous act that was seen: such an act can take a lease's record away, and
      then Vault answers 204 and does nothing. Only a look-up that still finds the credential rules that out.
    - With several audit sources: until the next canary, the stream may have moved to another source.
    - In a task that was reopened: a credential that is found alive has to be proven dead anew.
    """
    if credentials and (_may_have_moved(worker) or _is_in_doubt(worker, record)):
        return credentials
    return ()


def _is_in_doubt(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether Vault's answer to a revocation could mislead here.

    It could where the task was reopened, or a gap or hazardous act touches it.
    """
    was_reopened = any(event.kind in REOPENING_EVENTS for event in record.events)
    return was_reopened or worker.ledger.interrupted(record) or worker.ledger.endangered(record)


def _may_have_moved(worker: WorkerContext) -> bool:
    """Return whether the stream may continue elsewhere than last time.

    That is elsewhere than where the stream was last read. The kill switch does not read the stream before it revokes,
    so this asks the sources only.
    """
    readings = worker.ledger.readings()
    with suppress(AuditUntrusted):
        sources = worker.sources.present()
        if len(sources) != 1:
            return True
        reading = readings.get(sources[0].name)
        return reading is None or not sources[0].continues(reading.position)
    return True


def confirm_still_live(worker: WorkerContext, record: TaskRecord, claim: int) -> Verdicts:
    """Look up what `revoke` would look up before revoking, and do not revoke.

    For a caller that revokes by something coarser than one revocation each, like a whole role. What the worker's
    deadline leaves no time for is skipped. Returns no verdicts.
    """
    results = ResultRecorder(worker, record, claim, since=None, event=EventKind.SEEN_ALIVE)
    try:
        _look_up_first(worker, to_look_up_first(worker, record, live_credentials(worker, record)), results)
    finally:
        results.commit()
    return frozenset()


def _look_up_first(worker: WorkerContext, credentials: Sequence[CredentialHandle], results: ResultRecorder) -> None:
    """Record what look-ups before a revocation find.

    They go on until the deadline, and for LOOK_FIRST_S at most: the access is still there meanwhile. A credential that
    was not looked up may never be proven dead; one that waits for look-ups that hang stays in use.
    """
    until = worker.clock.monotonic() + LOOK_FIRST_S
    for handle in credentials:
        if worker.is_late() or worker.clock.monotonic() >= until:
            return
        with suppress(OutcomeUnknown, VaultBusy, VaultRefused):
            lookup, _found = handles.ask(worker, handle)
            results.add(lookup)


def _ending(worker: WorkerContext, why: EndCause) -> Change:
    """Return the change that ends a task.

    The task is due at once, in case this process dies.
    """
    now = worker.now()
    fields = {"end_reason": why.reason, "ending_at": now, "due_at": now}
    return Change(EventKind.ENDING, why, state=State.ENDING, fields=fields)


def _ending_since(record: TaskRecord) -> datetime | None:
    """Return when the task began to end; None where it is not ending."""
    return record.task.ending_at if record.task.state is State.ENDING else None


def _verdicts(credentials: Sequence[CredentialHandle]) -> Verdicts:
    return frozenset(handle.row.verdict for handle in credentials)
