"""Take everything back: the token first, so that its door closes at once, then each known lease by path.

Revoking the token only queues its leases in Vault; each is therefore revoked synchronously as well, with an
audit line of its own. An answer is a claim: `confirm` says what it is worth. One credential that cannot be
revoked keeps none of the others alive, and is tried again later: by us, and by Vault's own queue.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from jitvault.domain.lifecycle import EndReason, State, Verdict
from jitvault.errors import AuditUntrusted, JitvaultError, OutcomeUnknown, VaultBusy, VaultRefused, WaitTimedOut
from jitvault.ports.ledger import Change, GrantRow, LeaseRow, OpState, Row, TaskFile
from jitvault.ports.vault import LeaseRecord
from jitvault.services import handles
from jitvault.services.acts import intended, left
from jitvault.services.context import Worker
from jitvault.services.handles import Ended, Handle

Why = tuple[EndReason, Mapping[str, object]]
"""Why a task ends, and what the chain keeps of that."""
Verdicts = frozenset[Verdict]
"""What Vault claims of those that were acted on."""

DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})
_GONE = frozenset({Verdict.GONE})
SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=5)
"""How long after a failure the next try is due, at least and at most."""
# answers are committed and the claim is extended at least so often, well within a claim's 30 s
_COMMIT_EVERY_S = 5.0


def revoke(worker: Worker, file: TaskFile, claim: int, *, why: Why | None = None) -> None:
    """Revoke every token and lease of the task that is not proven dead, and look each of them up.

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
    tokens, leases = _tokens(worker, file), _leases(worker, file)
    before = _look_before(worker, file, (*tokens, *leases))
    _take_back(worker, file, claim, (*tokens, *leases), before=before, why=why)


def close_door(worker: Worker, file: TaskFile, claim: int, *, why: Why | None = None) -> Verdicts:
    """The first half of `revoke`: the tokens alone. Nothing comes through this door any more."""
    tokens = _tokens(worker, file)
    # the leases, too: with their token Vault ends them, and a look afterwards would come too late
    before = _look_before(worker, file, (*tokens, *_leases(worker, file)))
    return _take_back(worker, file, claim, tokens, before=before, why=why)


def end_leases(worker: Worker, file: TaskFile, claim: int) -> Verdicts:
    """The second half of `revoke`: the leases. Those that Vault says it ended are not looked up yet."""
    return _take_back(worker, file, claim, _leases(worker, file), look=False)


def end_ownerless(worker: Worker, file: TaskFile, claim: int) -> None:
    """End the leases that came to a token when another one had taken its place: a read in flight gets one all the same.

    The task goes on; what Vault could not do is tried at the next look.
    """
    replaced = {grant.grant_id for grant in file.grants if grant.settled}
    left_over = [lease for lease in file.leases if lease.grant_id in replaced and lease.verdict not in DEAD | _GONE]
    _take_back(worker, file, claim, [handles.lease(worker, lease) for lease in left_over])


def look_up_ended(worker: Worker, file: TaskFile, claim: int) -> Verdicts:
    """Look up what Vault said that it ended; gives what is claimed of every credential that is not proven dead."""
    answers, others = _Answers(worker, file.task.task_id, claim, since=_ending_since(file)), set[Verdict]()
    try:
        for one in (*_tokens(worker, file), *_leases(worker, file)):
            if one.row.verdict is Verdict.ACKNOWLEDGED:
                answers.add_ended(one.subject, handles.look_up(worker, one))
            else:
                others.add(one.row.verdict)
    finally:
        answers.commit()
    return answers.verdicts() | others


def _tokens(worker: Worker, file: TaskFile) -> list[Handle]:
    return [handles.token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]


def _leases(worker: Worker, file: TaskFile) -> list[Handle]:
    """Those that Vault still had first, and of these who waited longest: one that hangs must not keep another from its
    turn, again and again.
    """
    tried = {op.subject: op.answered_at for op in file.operations if op.kind == "revoke_lease" and op.answered_at}
    alive = [lease for lease in file.leases if lease.verdict not in DEAD]
    alive.sort(key=lambda one: (one.verdict is Verdict.GONE, tried.get(one.lease_id, one.issued_at)))
    return [handles.lease(worker, lease) for lease in alive]


def _ending(worker: Worker, reason: EndReason, body: Mapping[str, object]) -> Change:
    """The decision to end a task. Should this process end here, the task is due at once."""
    now = worker.now()
    fields = {"end_reason": reason, "ending_at": now, "due_at": now}
    return Change("ending", {"reason": reason.value, **body}, state=State.ENDING, fields=fields)


def next_try(begun: datetime, now: datetime) -> datetime:
    """When what could not be revoked is due again: the longer it has lasted, the later, and never all at once."""
    wait = min(max((now - begun) / 2, SOONEST), LATEST)
    return now + wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


def _look_before(worker: Worker, file: TaskFile, doomed: Sequence[Handle]) -> Sequence[Handle]:
    """Which of them have to be seen alive before they are ended: all or none."""
    return doomed if doomed and (_may_be_elsewhere(worker) or _is_in_doubt(worker, file)) else ()


def _is_in_doubt(worker: Worker, file: TaskFile) -> bool:
    again = any(event.kind in ("late_lease", "unproven") for event in file.events)
    return again or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def _may_be_elsewhere(worker: Worker) -> bool:
    """Whether the stream may go on elsewhere than where it was read last: the kill switch does not read on first."""
    sources, readings = worker.sources.present(), worker.ledger.readings()
    if len(sources) != 1:
        return True
    reading = readings.get(sources[0].name)
    with suppress(AuditUntrusted):
        return reading is None or not sources[0].continues(reading.position)
    return True


def revoke_token(worker: Worker, file: TaskFile, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token, by its accessor or, where that was lost in a crash, by its lease path.

    It is looked up before as well: what kept its issue from its end can have kept lines out of the stream.
    """
    tokens = [handles.token(worker, grant)]
    _take_back(worker, file, claim, tokens, before=tokens)


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def _take_back(
    worker: Worker,
    file: TaskFile,
    claim: int,
    doomed: Sequence[Handle],
    *,
    before: Sequence[Handle] = (),
    why: Why | None = None,
    look: bool = True,
) -> Verdicts:
    """Commit all intents, act on each credential in order, commit all answers that came.

    One commit before and one after keep the door open as short as possible; a crash in between leaves
    operations that read as unknown, and the next run acts again.
    """
    if not doomed and why is None:
        return frozenset()
    task_id = file.task.task_id
    ops = [intended(worker, f"revoke_{one.kind}", one.subject, task_id=task_id) for one in doomed]
    intents: list[Row] = [*(replace(one.row, verdict=Verdict.REVOKE_REQUESTED) for one in doomed), *ops]
    said = {"ops": [op.op_id for op in ops], "subjects": [one.subject for one in doomed]}
    change = _ending(worker, *why) if why else Change("revoke_intended")
    change = replace(change, body={**change.body, **said}, rows=(*change.rows, *intents))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    answers = _Answers(worker, task_id, claim, since=change.fields.get("ending_at") or _ending_since(file))
    try:
        # all of them before the first is revoked: with their token Vault ends the leases, too
        for one in () if worker.is_late() else before:
            with suppress(OutcomeUnknown, VaultBusy):
                answers.add(handles.ask(worker, one)[0])
        for one, op in zip(doomed, ops, strict=True):
            _check_in_time(worker, one)
            answers.add_ended(one.subject, handles.end(worker, one, op, look=look))
    finally:
        answers.commit()
    if answers.left_to_vault:
        _queue(worker, task_id, claim, answers.left_to_vault)
    return answers.verdicts()


def _check_in_time(worker: Worker, one: Handle) -> None:
    """Raise WaitTimedOut for a lease that Vault still has when the deadline is over: what hangs takes its time."""
    if worker.is_late() and one.kind == "lease" and one.row.verdict is not Verdict.GONE:
        raise WaitTimedOut(
            f"task {one.row.task_id}: the time was over before each of its leases had its turn",
            hint="The rest is due: run the same command again, or give it longer with --wait.",
        )


def _ending_since(file: TaskFile) -> datetime | None:
    return file.task.ending_at if file.task.state is State.ENDING else None


class _Answers:
    """What Vault said, until it is committed; and what it did not say. `since`: when the task began to end."""

    def __init__(self, worker: Worker, task_id: str, claim: int, *, since: datetime | None) -> None:
        self._worker, self._task_id, self._claim, self._since = worker, task_id, claim, since
        self._rows: list[Row] = []
        self._claimed: set[Verdict] = set()
        self._untold: dict[str, str] = {}
        self._committed = worker.clock.monotonic()
        self._failures: list[JitvaultError] = []
        self.left_to_vault: list[str] = []

    def add(self, *rows: Row) -> None:
        self._rows += rows
        if self._worker.clock.monotonic() - self._committed > _COMMIT_EVERY_S:
            self.commit()
            self._worker.ledger.extend(self._task_id, self._claim)

    def add_ended(self, subject: str, ended: Ended) -> None:
        self._claimed.add(ended.row.verdict)
        self._untold[subject] = ended.row.verdict.value
        if ended.failure is not None:
            self._failures.append(ended.failure)
        if isinstance(ended.row, LeaseRow) and ended.row.verdict is Verdict.REVOKE_FAILED:
            self.left_to_vault.append(subject)
        self.add(ended.row, *ended.operations)

    def verdicts(self) -> Verdicts:
        """Of all that were acted on. Raises the first thing that kept Vault from answering for one of them."""
        if self._failures:
            raise self._failures[0]
        return frozenset(self._claimed)

    def commit(self) -> None:
        if self._rows:
            now = self._worker.now()
            due = {"due_at": next_try(self._since, now)} if self._since else {}
            change = Change("revoked", {"verdicts": self._untold}, fields=due, rows=tuple(self._rows))
            self._worker.ledger.apply(self._task_id, change, claim=self._claim, at=now)
            self._rows, self._untold = [], {}
        self._committed = self._worker.clock.monotonic()


def _queue(worker: Worker, task_id: str, claim: int, lease_ids: Sequence[str]) -> None:
    """Leave to Vault's own queue what its backend could not do now, unless it is in there: it goes on without us.

    Its token's end puts a lease there, too, but not one that appeared afterwards (docs/vault-facts.md, "Revocation").
    """
    waiting = [lease_id for lease_id in lease_ids if _is_idle(worker.leases.lookup(lease_id))]
    if not waiting:
        return
    ops = [intended(worker, "queue_lease", lease_id, task_id=task_id) for lease_id in waiting]
    intent = Change("queue_intended", {"ops": [op.op_id for op in ops], "subjects": waiting}, rows=tuple(ops))
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    answered: list[Row] = []
    try:
        for op in ops:
            worker.leases.queue(op.subject, op=op.op_id)
            answered.append(left(worker, op, OpState.ANSWERED, "accepted"))
    except VaultRefused as error:
        answered.append(left(worker, ops[len(answered)], OpState.ABANDONED, error))
    finally:
        change = Change("queued", {"subjects": waiting[: len(answered)]}, rows=tuple(answered))
        worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _is_idle(record: LeaseRecord | None) -> bool:
    """Whether Vault has the lease and is not about to end it: one in its queue has no time left."""
    return record is not None and record.ttl_s > 0 and record.revoke_error is None
