"""Take everything back: the token first, so that its door closes at once, then each known lease by path.

Revoking the token only queues its leases in Vault; each is therefore revoked synchronously as well, with an
audit line of its own. An answer is a claim: `confirm` says what it is worth. One credential that cannot be
revoked keeps none of the others alive, and is tried again later: by us, and by Vault's own queue.
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
from jitvault.lifecycle.revocation.results import ResultRecorder, Verdicts, queue
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import REOPENING_EVENTS, EndReason, State, Verdict
from jitvault.operations import DONE, new_operation

EndCause = tuple[EndReason, Mapping[str, object]]
"""Why a task ends, and what the chain keeps of that."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """The leases of a task whose door is closed, each with its committed intent. `version`: the task's, as it was left;
    `since`: when it began to end.
    """

    task_id: str
    version: int
    since: datetime | None
    leases: tuple[tuple[LeaseRow, OperationRow], ...]


DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})
_GONE = frozenset({Verdict.GONE})


def revoke(worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None) -> None:
    """Revoke every token and lease of the task that is not proven dead, and look each of them up. What Vault has said
    that it ended is only looked up.

    `why` ends a task that holds access: that is committed together with the intents, since the access is there for as
    long as a commit takes.

    After a gap in the stream each is looked up before as well: only that it was still there rules out that an act in
    the gap took its record away, after which Vault says 204 and does nothing. So it is after such an act that was seen.
    With several sources nobody knows before the next canary whether the stream has moved to another one, so they are
    always looked up. So are those of a task that begins again: what is found alive has to be proven dead anew.

    Raises, once everything was tried, the first thing that kept Vault from answering for one of them. What Vault tried
    and could not do raises nothing: the verdict says it. Raises WaitTimedOut where the worker's deadline was over
    before each lease had its turn; a token always has one, and with it Vault ends the leases by itself.
    """
    doomed = _but_gone(worker, file, claim, (*_tokens(worker, file), *_leases(worker, file)))
    _take_back(worker, file, claim, doomed, before=_look_before(worker, file, doomed), why=why)


def revoke_tokens(worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None) -> Verdicts:
    """The first half of `revoke`: the tokens alone. Nothing comes through a door that Vault says it closed, and it is
    not looked up yet.
    """
    tokens = _tokens(worker, file)
    # the leases, too: with their token Vault ends them, and a look afterwards would come too late
    before = _look_before(worker, file, (*tokens, *_leases(worker, file)))
    return _take_back(worker, file, claim, tokens, before=before, why=why, look=False)


def end_leases(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """The second half of `revoke`: the leases. Those that Vault says it ended are not looked up yet."""
    return _take_back(worker, file, claim, _leases(worker, file), look=False)


def revoke_superseded_leases(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """End the leases that came to a token when another one had taken its place: a read in flight gets one all the same.

    The task goes on; what Vault could not do is tried at the next look.
    """
    replaced = {grant.grant_id for grant in file.grants if grant.settled}
    left_over = [lease for lease in file.leases if lease.grant_id in replaced and lease.verdict not in DEAD | _GONE]
    _take_back(worker, file, claim, [handles.lease(worker, lease) for lease in left_over])


def close_door_first(
    worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None
) -> tuple[Verdicts, Doomed]:
    """`revoke_tokens`, with the intents for the leases in the same commit: `end_doomed` needs none of its own."""
    tokens, leases = _tokens(worker, file), _leases(worker, file)
    if not tokens and not leases and why is None:
        return frozenset(), Doomed(file.task.task_id, file.task.version, None, ())
    before = _look_before(worker, file, (*tokens, *leases))
    ops, since = _intend(worker, file, claim, (*tokens, *leases), why)
    answers = _act(
        worker, file.task.task_id, claim, list(zip(tokens, ops, strict=False)), since, before=before, look=False
    )
    rows = [one.row for one in leases if isinstance(one.row, LeaseRow)]
    left = tuple(zip(rows, ops[len(tokens) :], strict=True))
    return answers.verdicts(), Doomed(file.task.task_id, answers.version, since, left)


def end_doomed(worker: WorkerContext, doomed: Doomed, claim: int) -> Verdicts:
    """`end_leases` for what `close_door_first` left, in whatever thread, where nobody has changed the task since."""
    pairs = [(handles.lease(worker, row), op) for row, op in doomed.leases]
    return _act(worker, doomed.task_id, claim, pairs, doomed.since, look=False).verdicts()


def look_up_ended(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """Look up what Vault said that it ended; gives what is claimed of every credential that is not proven dead."""
    answers, others = ResultRecorder(worker, file.task.task_id, claim, since=_ending_since(file)), set[Verdict]()
    try:
        for one in (*_tokens(worker, file), *_leases(worker, file)):
            if one.row.verdict is Verdict.ACKNOWLEDGED:
                answers.add_ended(one.subject, handles.look_up(worker, one))
            else:
                others.add(one.row.verdict)
    finally:
        answers.commit()
    return answers.verdicts() | others


def _but_gone(
    worker: WorkerContext, file: TaskRecord, claim: int, doomed: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """All but those that Vault said it ended, and still says do not exist: to revoke them once more proves nothing."""
    ended = _said_ended(file)
    gone = [one for one in doomed if one.row.verdict is Verdict.GONE and one.subject in ended]
    answers, still = ResultRecorder(worker, file.task.task_id, claim, since=_ending_since(file)), set[str]()
    try:
        for one in gone:
            looked = handles.look_up(worker, one)
            answers.add_ended(one.subject, looked)
            if looked.row.verdict is Verdict.GONE:
                still.add(one.subject)
    finally:
        answers.commit()
    return [one for one in doomed if one.subject not in still]


def _said_ended(file: TaskRecord) -> set[str]:
    """Those that Vault said it ended, and that no look-up found after it said so.

    One that was found then may have been ended by Vault's own queue, which writes no line (docs/vault-facts.md,
    "Revocation"): where it had been gone before, only a revocation after it was found can prove that it is dead anew.
    """
    # what was said before a restore is about what that took back
    since = max((datetime.fromisoformat(e.at) for e in file.events if e.kind in REOPENING_EVENTS), default=None)
    later = [op for op in file.operations if op.answered_at and (since is None or op.sent_at >= since)]
    ended: set[str] = set()
    # by the answers: a revocation is meant before the look-up that it waits for
    for op in sorted(later, key=lambda op: op.answered_at or op.sent_at):
        if op.kind in (OperationKind.REVOKE_TOKEN, OperationKind.REVOKE_LEASE) and op.answer == DONE:
            ended.add(op.subject)
        elif op.kind in (OperationKind.LOOKUP_TOKEN, OperationKind.LOOKUP_LEASE) and op.answer == "live":
            ended.discard(op.subject)
    return ended


def _tokens(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    return [handles.token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]


def _leases(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Those that Vault still had first, and of these who waited longest: one that hangs must not keep another from its
    turn, again and again.
    """
    tried = {
        op.subject: op.answered_at for op in file.operations if op.kind == OperationKind.REVOKE_LEASE and op.answered_at
    }
    alive = [lease for lease in file.leases if lease.verdict not in DEAD]
    alive.sort(key=lambda one: (one.verdict is Verdict.GONE, tried.get(one.lease_id, one.issued_at)))
    return [handles.lease(worker, lease) for lease in alive]


def _ending(worker: WorkerContext, reason: EndReason, body: Mapping[str, object]) -> Change:
    """The decision to end a task. Should this process end here, the task is due at once."""
    now = worker.now()
    fields = {"end_reason": reason, "ending_at": now, "due_at": now}
    return Change(EventKind.ENDING, {"reason": reason.value, **body}, state=State.ENDING, fields=fields)


def _look_before(
    worker: WorkerContext, file: TaskRecord, doomed: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """Which of them have to be seen alive before they are ended: all or none."""
    return doomed if doomed and (_may_be_elsewhere(worker) or _is_in_doubt(worker, file)) else ()


def _is_in_doubt(worker: WorkerContext, file: TaskRecord) -> bool:
    again = any(event.kind in REOPENING_EVENTS for event in file.events)
    return again or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def _may_be_elsewhere(worker: WorkerContext) -> bool:
    """Whether the stream may go on elsewhere than where it was read last: the kill switch does not read on first."""
    sources, readings = worker.sources.present(), worker.ledger.readings()
    if len(sources) != 1:
        return True
    reading = readings.get(sources[0].name)
    with suppress(AuditUntrusted):
        return reading is None or not sources[0].continues(reading.position)
    return True


def revoke_token(worker: WorkerContext, file: TaskRecord, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token, by its accessor or, where that was lost in a crash, by its lease path.

    It is looked up before as well: what kept its issue from its end can have kept lines out of the stream.
    """
    tokens = [handles.token(worker, grant)]
    _take_back(worker, file, claim, tokens, before=tokens)


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def confirm_still_live(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    """Look up what has to be seen alive before it is ended, and nothing else; for when it is ended by something coarser
    than one revocation each. After the worker's deadline the rest is left out.
    """
    answers = ResultRecorder(worker, file.task.task_id, claim, since=None, event=EventKind.SEEN_ALIVE)
    try:
        _see(worker, _look_before(worker, file, (*_tokens(worker, file), *_leases(worker, file))), answers)
    finally:
        answers.commit()
    return frozenset()


def _see(worker: WorkerContext, before: Sequence[CredentialHandle], answers: ResultRecorder) -> None:
    for one in before:
        if worker.is_late():
            return
        with suppress(OutcomeUnknown, VaultBusy):
            answers.add(handles.ask(worker, one)[0])


def _take_back(
    worker: WorkerContext,
    file: TaskRecord,
    claim: int,
    doomed: Sequence[CredentialHandle],
    *,
    before: Sequence[CredentialHandle] = (),
    why: EndCause | None = None,
    look: bool = True,
) -> Verdicts:
    """Commit all intents, act on each credential in order, commit all answers that came.

    One commit before and one after keep the door open as short as possible; a crash in between leaves
    operations that read as unknown, and the next run acts again.
    """
    if not doomed and why is None:
        return frozenset()
    ops, since = _intend(worker, file, claim, doomed, why)
    pairs = list(zip(doomed, ops, strict=True))
    return _act(worker, file.task.task_id, claim, pairs, since, before=before, look=look).verdicts()


def _intend(
    worker: WorkerContext, file: TaskRecord, claim: int, doomed: Sequence[CredentialHandle], why: EndCause | None
) -> tuple[list[OperationRow], datetime | None]:
    """Commit that each of them is going to be ended; gives the operations, and since when the task ends."""
    task_id = file.task.task_id
    ops = [new_operation(worker, OperationKind(f"revoke_{one.kind}"), one.subject, task_id=task_id) for one in doomed]
    intents: list[Row] = [*(replace(one.row, verdict=Verdict.REVOKE_REQUESTED) for one in doomed), *ops]
    said = {"ops": [op.op_id for op in ops], "subjects": [one.subject for one in doomed]}
    change = _ending(worker, *why) if why else Change(EventKind.REVOKE_INTENDED)
    change = replace(change, body={**change.body, **said}, rows=(*change.rows, *intents))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    return ops, change.fields.get("ending_at") or _ending_since(file)


def _act(
    worker: WorkerContext,
    task_id: str,
    claim: int,
    doomed: Sequence[tuple[CredentialHandle, OperationRow]],
    since: datetime | None,
    *,
    before: Sequence[CredentialHandle] = (),
    look: bool,
) -> ResultRecorder:
    """End each of them, in order, and commit all answers that came."""
    answers = ResultRecorder(worker, task_id, claim, since=since)
    try:
        # all of them before the first is revoked: with their token Vault ends the leases, too
        _see(worker, before, answers)
        for one, op in doomed:
            _check_in_time(worker, one)
            answers.add_ended(one.subject, handles.end(worker, one, op, look=look))
    finally:
        answers.commit()
    if answers.left_to_vault:
        queue(worker, task_id, claim, answers.left_to_vault)
    return answers


def _check_in_time(worker: WorkerContext, one: CredentialHandle) -> None:
    """Raise WaitTimedOut for a lease that Vault still has when the deadline is over: what hangs takes its time."""
    if worker.is_late() and one.kind == "lease" and one.row.verdict is not Verdict.GONE:
        raise WaitTimedOut(
            f"task {one.row.task_id}: the time was over before each of its leases had its turn",
            hint="The rest is due: run the same command again, or give it longer with --wait.",
        )


def _ending_since(file: TaskRecord) -> datetime | None:
    return file.task.ending_at if file.task.state is State.ENDING else None
