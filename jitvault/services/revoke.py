"""Take everything back: the token first, so that its door closes at once, then each known lease by path.

Revoking the token only queues its leases in Vault; each is therefore revoked synchronously as well, with an
audit line of its own. An answer is a claim: `confirm` says what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jitvault.domain.lifecycle import Verdict
from jitvault.errors import OutcomeUnknown, VaultRejected
from jitvault.ports.ledger import Change, GrantRow, LeaseRow, OperationRow, OpState, Row, TaskFile
from jitvault.services.context import Worker, new_id

DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})


@dataclass(frozen=True, slots=True)
class _Doomed:
    """One credential that is to be revoked and looked up. `look` gives None once Vault has no such thing."""

    row: GrantRow | LeaseRow
    kind: str
    subject: str
    revoke: Callable[[str], object]
    look: Callable[[str], object | None]


def revoke(worker: Worker, file: TaskFile, claim: int) -> None:
    """Revoke every token and lease of the task that is not proven dead, and look each of them up.

    After a gap in the stream each is looked up before as well: only that it was still there rules out that an act in
    the gap took its record away, after which Vault says 204 and does nothing. So it is after such an act that was seen.
    With several sources nobody knows before the next canary whether the stream has moved to another one, so they are
    always looked up.
    """
    tokens = [_token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]
    leases = [_lease(worker, lease) for lease in file.leases if lease.verdict not in DEAD]
    look_first = bool(tokens or leases) and _look_first(worker, file)
    _take_back(worker, file.task.task_id, claim, [*tokens, *leases], look_first=look_first)


def _look_first(worker: Worker, file: TaskFile) -> bool:
    several = len(worker.sources.present()) > 1
    return several or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def revoke_token(worker: Worker, grant: GrantRow, claim: int) -> None:
    """Revoke and look up one token, by its accessor or, where that was lost in a crash, by its lease path."""
    _take_back(worker, grant.task_id, claim, [_token(worker, grant)])


def gone_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that Vault answered with "there is no such thing"."""
    return _lookups(operations, subject, "gone")


def live_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that found it alive."""
    return _lookups(operations, subject, "live")


def _lookups(operations: Sequence[OperationRow], subject: str, answer: str) -> frozenset[str]:
    kinds = ("lookup_token", "lookup_lease")
    return frozenset(
        op.op_id for op in operations if op.kind in kinds and op.subject == subject and op.answer == answer
    )


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
    worker: Worker, task_id: str, claim: int, doomed: Sequence[_Doomed], *, look_first: bool = False
) -> None:
    """Commit all intents, act on each credential in order, commit all answers that came.

    One commit before and one after keep the door open as short as possible; a crash in between leaves
    operations that read as unknown, and the next run acts again.
    """
    if not doomed:
        return
    ops = [
        OperationRow(new_id(), task_id, f"revoke_{one.kind}", one.subject, OpState.INTENDED, None, worker.now(), None)
        for one in doomed
    ]
    intents: list[Row] = [*(replace(one.row, verdict=Verdict.REVOKE_REQUESTED) for one in doomed), *ops]
    said = {"ops": [op.op_id for op in ops], "subjects": [one.subject for one in doomed]}
    worker.ledger.apply(task_id, Change("revoke_intended", said, rows=intents), claim=claim, at=worker.now())
    answers: list[Row] = []
    verdicts: dict[str, str] = {}
    try:
        if look_first:
            # all of them before the first is revoked: with their token Vault ends the leases, too
            answers += [_look(worker, one)[0] for one in doomed]
        for one, op in zip(doomed, ops, strict=True):
            row, *operations = _end(worker, one, op)
            answers += [row, *operations]
            verdicts[one.subject] = row.verdict.value
    finally:
        if answers:
            change = Change("revoked", {"verdicts": verdicts}, rows=answers)
            worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _end(worker: Worker, one: _Doomed, op: OperationRow) -> tuple[GrantRow | LeaseRow, OperationRow, OperationRow]:
    """Revoke and look up one credential; gives it with the verdict that Vault claims, and both operations."""
    try:
        one.revoke(op.op_id)
        answered = replace(op, state=OpState.ANSWERED, answer="ok", answered_at=worker.now())
    except OutcomeUnknown as error:
        answered = replace(op, state=OpState.UNKNOWN, answer=str(error)[:255], answered_at=worker.now())
    except VaultRejected as error:
        # 400: the backend failed, nothing is queued, the lease keeps its whole TTL (docs/vault-facts.md, "Revocation")
        answered = replace(op, state=OpState.ABANDONED, answer=str(error)[:255], answered_at=worker.now())
    looked_up, found = _look(worker, one)
    verdict = Verdict.GONE if found is None else _still_there(found, answered)
    dead_at = one.row.dead_at or (worker.now() if found is None else None)
    return replace(one.row, verdict=verdict, dead_at=dead_at), answered, looked_up


def _look(worker: Worker, one: _Doomed) -> tuple[OperationRow, object | None]:
    """Look one credential up; gives the operation, and what Vault says of it, None when there is no such thing."""
    kind, sent_at = f"lookup_{one.kind}", worker.now()
    op = OperationRow(new_id(), one.row.task_id, kind, one.subject, OpState.INTENDED, None, sent_at, None)
    found = one.look(op.op_id)
    answer = "gone" if found is None else "live"
    return replace(op, state=OpState.ANSWERED, answer=answer, answered_at=worker.now()), found


def _still_there(found: object, revocation: OperationRow) -> Verdict:
    """The verdict on a credential that Vault still has after it was to be revoked."""
    if getattr(found, "revoke_error", None):
        return Verdict.IRREVOCABLE
    return Verdict.ACKNOWLEDGED if revocation.state is OpState.ANSWERED else Verdict.REVOKE_FAILED
