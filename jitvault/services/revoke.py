"""Take everything back: the token first, so that its door closes at once, then each known lease by path.

Revoking the token only queues its leases in Vault; each is therefore revoked synchronously as well, with an
audit line of its own. An answer is a claim: `confirm` says what it is worth. One credential that cannot be
revoked keeps none of the others alive, and is tried again later: by us, and by Vault's own queue.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.domain.lifecycle import EndReason, State, Verdict
from jitvault.errors import JitvaultError, OutcomeUnknown, VaultBusy, VaultRefused, VaultRejected
from jitvault.ports.ledger import Change, GrantRow, LeaseRow, OperationRow, OpState, Row, TaskFile
from jitvault.ports.vault import LeaseRecord
from jitvault.services.context import Worker, new_id

Why = tuple[EndReason, Mapping[str, object]]
"""Why a task ends, and what the chain keeps of that."""

DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})
TOKENS, LEASES = frozenset({"token"}), frozenset({"lease"})
SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=5)
"""How long after a failure the next try is due, at least and at most."""
# answers are committed and the claim is extended at least so often, well within a claim's 30 s
_COMMIT_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Doomed:
    """One credential that is to be revoked and looked up. `look` gives None once Vault has no such thing."""

    row: GrantRow | LeaseRow
    kind: str
    subject: str
    revoke: Callable[[str], object]
    look: Callable[[str], object | None]


def revoke(
    worker: Worker, file: TaskFile, claim: int, *, why: Why | None = None, kinds: frozenset[str] = TOKENS | LEASES
) -> None:
    """Revoke every token and lease of the task that is not proven dead, and look each of them up.

    `why` ends a task that holds access: that is committed together with the intents, since the access is there for as
    long as a commit takes.

    After a gap in the stream each is looked up before as well: only that it was still there rules out that an act in
    the gap took its record away, after which Vault says 204 and does nothing. So it is after such an act that was seen.
    With several sources nobody knows before the next canary whether the stream has moved to another one, so they are
    always looked up. So are those of a task that begins again: what is found alive has to be proven dead anew.

    Raises, once everything was tried, the first thing that kept Vault from answering for one of them. What Vault tried
    and could not do raises nothing: the verdict says it.
    """
    tokens = [_token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]
    leases = [_lease(worker, lease) for lease in file.leases if lease.verdict not in DEAD]
    doomed = [one for one in (*tokens, *leases) if one.kind in kinds]
    look_first = bool(doomed) and _look_first(worker, file)
    ending = _ending(worker, *why) if why else None
    _take_back(worker, file, claim, doomed, look_first=look_first, ending=ending)


def _ending(worker: Worker, reason: EndReason, body: Mapping[str, object]) -> Change:
    """The decision to end a task. Should this process end here, the task is due at once."""
    now = worker.now()
    fields = {"end_reason": reason, "ending_at": now, "due_at": now}
    return Change("ending", {"reason": reason.value, **body}, state=State.ENDING, fields=fields)


def next_try(begun: datetime, now: datetime) -> datetime:
    """When what could not be revoked is due again: the longer it has lasted, the later, and never all at once."""
    wait = min(max((now - begun) / 2, SOONEST), LATEST)
    return now + wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


def _look_first(worker: Worker, file: TaskFile) -> bool:
    several = len(worker.sources.present()) > 1
    again = any(event.kind in ("late_lease", "unproven") for event in file.events)
    return several or again or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def revoke_token(worker: Worker, file: TaskFile, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token, by its accessor or, where that was lost in a crash, by its lease path.

    It is looked up before as well: what kept its issue from its end can have kept lines out of the stream.
    """
    _take_back(worker, file, claim, [_token(worker, grant)], look_first=True)


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def _token(worker: Worker, grant: GrantRow) -> _Doomed:
    accessor, lease_id = grant.wrapped_accessor, grant.token_lease or ""
    if accessor is not None:
        return _Doomed(
            grant,
            "token",
            grant.accessor_hmac or "",
            lambda op: worker.tokens.revoke_accessor(accessor, op=op),
            lambda op: worker.tokens.lookup_accessor(accessor, op=op),
        )
    return _Doomed(
        grant,
        "token",
        lease_id,
        lambda op: worker.leases.revoke(lease_id, op=op),
        lambda op: worker.leases.lookup(lease_id, op=op),
    )


def _lease(worker: Worker, lease: LeaseRow) -> _Doomed:
    lease_id = lease.lease_id
    return _Doomed(
        lease,
        "lease",
        lease_id,
        lambda op: worker.leases.revoke(lease_id, op=op),
        lambda op: worker.leases.lookup(lease_id, op=op),
    )


def _take_back(
    worker: Worker,
    file: TaskFile,
    claim: int,
    doomed: Sequence[_Doomed],
    *,
    look_first: bool = False,
    ending: Change | None = None,
) -> None:
    """Commit all intents, act on each credential in order, commit all answers that came.

    One commit before and one after keep the door open as short as possible; a crash in between leaves
    operations that read as unknown, and the next run acts again.
    """
    if not doomed and ending is None:
        return
    task_id = file.task.task_id
    ops = [_intended(worker, task_id, f"revoke_{one.kind}", one.subject) for one in doomed]
    intents: list[Row] = [*(replace(one.row, verdict=Verdict.REVOKE_REQUESTED) for one in doomed), *ops]
    said = {"ops": [op.op_id for op in ops], "subjects": [one.subject for one in doomed]}
    change = ending or Change("revoke_intended")
    change = replace(change, body={**change.body, **said}, rows=(*change.rows, *intents))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    answers = _Answers(worker, task_id, claim, since=change.fields.get("ending_at") or _ending_since(file))
    try:
        if look_first:
            # all of them before the first is revoked: with their token Vault ends the leases, too
            for one in doomed:
                with suppress(OutcomeUnknown, VaultBusy):
                    answers.add("", _look(worker, one)[0])
                answers.add("")
        for one, op in zip(doomed, ops, strict=True):
            ended = _end(worker, one, op)
            answers.add(one.subject, ended.row, *ended.operations, failure=ended.failure)
    finally:
        answers.commit()
    if answers.left_to_vault:
        _queue(worker, task_id, claim, answers.left_to_vault)
    if answers.failures:
        raise answers.failures[0]


def _ending_since(file: TaskFile) -> datetime | None:
    return file.task.ending_at if file.task.state is State.ENDING else None


class _Answers:
    """What Vault said, until it is committed; and what it did not say. `since`: when the task began to end."""

    def __init__(self, worker: Worker, task_id: str, claim: int, *, since: datetime | None) -> None:
        self._worker, self._task_id, self._claim, self._since = worker, task_id, claim, since
        self._rows: list[Row] = []
        self._verdicts: dict[str, str] = {}
        self._committed = worker.clock.monotonic()
        self.failures: list[JitvaultError] = []
        self.left_to_vault: list[str] = []

    def add(self, subject: str, *rows: Row, failure: JitvaultError | None = None) -> None:
        self._rows += rows
        for row in rows:
            if isinstance(row, GrantRow | LeaseRow):
                self._verdicts[subject] = row.verdict.value
            if isinstance(row, LeaseRow) and row.verdict is Verdict.REVOKE_FAILED:
                self.left_to_vault.append(row.lease_id)
        if failure is not None:
            self.failures.append(failure)
        if self._worker.clock.monotonic() - self._committed > _COMMIT_EVERY_S:
            self.commit()
            self._worker.ledger.extend(self._task_id, self._claim)

    def commit(self) -> None:
        if not self._rows:
            self._committed = self._worker.clock.monotonic()
            return
        now = self._worker.now()
        due = {"due_at": next_try(self._since, now)} if self._since else {}
        change = Change("revoked", {"verdicts": self._verdicts}, fields=due, rows=tuple(self._rows))
        self._worker.ledger.apply(self._task_id, change, claim=self._claim, at=now)
        self._rows, self._verdicts = [], {}
        self._committed = self._worker.clock.monotonic()


@dataclass(frozen=True, slots=True)
class _Ended:
    """One credential with the verdict that Vault claims, what was asked about it, and why that is not an answer."""

    row: GrantRow | LeaseRow
    operations: tuple[OperationRow, ...]
    failure: JitvaultError | None = None


def _end(worker: Worker, one: _Doomed, op: OperationRow) -> _Ended:
    """Revoke and look up one credential.

    Raises VaultUnavailable when Vault takes no requests at all: the others would not be taken either. A rate limit can
    be on one path alone.
    """
    failure: JitvaultError | None = None
    try:
        one.revoke(op.op_id)
        answered = _left(worker, op, OpState.ANSWERED, "ok")
    except OutcomeUnknown as error:
        answered = _left(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        # 400: the backend failed, nothing is queued, the lease keeps its whole TTL (docs/vault-facts.md, "Revocation")
        answered = _left(worker, op, OpState.ABANDONED, error)
    except (VaultRefused, VaultBusy) as error:
        answered, failure = _left(worker, op, OpState.ABANDONED, error), error
    try:
        looked_up, found = _look(worker, one)
    except (OutcomeUnknown, VaultBusy) as error:
        # with it goes what we know; the others still have their turn
        return _Ended(replace(one.row, verdict=Verdict.REVOKE_REQUESTED), (answered,), error)
    verdict = Verdict.GONE if found is None else _still_there(found, answered)
    dead_at = one.row.dead_at or (worker.now() if found is None else None)
    return _Ended(replace(one.row, verdict=verdict, dead_at=dead_at), (answered, looked_up), failure)


def _look(worker: Worker, one: _Doomed) -> tuple[OperationRow, object | None]:
    """Look one credential up; gives the operation, and what Vault says of it, None when there is no such thing."""
    op = _intended(worker, one.row.task_id, f"lookup_{one.kind}", one.subject)
    found = one.look(op.op_id)
    return _left(worker, op, OpState.ANSWERED, "gone" if found is None else "live"), found


def _queue(worker: Worker, task_id: str, claim: int, lease_ids: Sequence[str]) -> None:
    """Leave to Vault's own queue what its backend could not do now, unless it is in there: it goes on without us.

    Its token's end puts a lease there, too, but not one that appeared afterwards (docs/vault-facts.md, "Revocation").
    """
    waiting = [lease_id for lease_id in lease_ids if _is_idle(worker.leases.lookup(lease_id))]
    if not waiting:
        return
    ops = [_intended(worker, task_id, "queue_lease", lease_id) for lease_id in waiting]
    intent = Change("queue_intended", {"ops": [op.op_id for op in ops], "subjects": waiting}, rows=tuple(ops))
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    answered: list[Row] = []
    try:
        for op in ops:
            worker.leases.queue(op.subject, op=op.op_id)
            answered.append(_left(worker, op, OpState.ANSWERED, "accepted"))
    except VaultRefused as error:
        answered.append(_left(worker, ops[len(answered)], OpState.ABANDONED, error))
    finally:
        change = Change("queued", {"subjects": waiting[: len(answered)]}, rows=tuple(answered))
        worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _is_idle(record: LeaseRecord | None) -> bool:
    """Whether Vault has the lease and is not about to end it: one in its queue has no time left."""
    return record is not None and record.ttl_s > 0 and record.revoke_error is None


def _intended(worker: Worker, task_id: str, kind: str, subject: str) -> OperationRow:
    return OperationRow(new_id(), task_id, kind, subject, OpState.INTENDED, None, worker.now(), None)


def _left(worker: Worker, op: OperationRow, state: OpState, answer: object) -> OperationRow:
    if isinstance(answer, VaultRejected):
        # the backend's own words: what an operator has to mend
        answer = "; ".join(answer.reasons) or answer
    return replace(op, state=state, answer=str(answer)[:255], answered_at=worker.now())


def _still_there(found: object, revocation: OperationRow) -> Verdict:
    """The verdict on a credential that Vault still has after it was to be revoked."""
    if getattr(found, "revoke_error", None):
        return Verdict.IRREVOCABLE
    return Verdict.ACKNOWLEDGED if revocation.state is OpState.ANSWERED else Verdict.REVOKE_FAILED
