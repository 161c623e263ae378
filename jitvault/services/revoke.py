"""Take everything back: the token first, so that its door closes at once, then each known lease by path.

Revoking the token only queues its leases in Vault; each is therefore revoked synchronously as well, with an
audit line of its own. An answer is a claim: `confirm` says what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from jitvault.domain.lifecycle import Verdict
from jitvault.errors import OutcomeUnknown, VaultRejected
from jitvault.ports.ledger import Change, GrantRow, LeaseRow, OperationRow, OpState, TaskFile
from jitvault.services.acts import act
from jitvault.services.context import Worker, new_id

T = TypeVar("T")
R = TypeVar("R", GrantRow, LeaseRow)

DEAD = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED})


def revoke(worker: Worker, file: TaskFile, claim: int) -> None:
    """Revoke every token and lease of the task that is not proven dead, and look each of them up."""
    for grant in file.grants:
        if grant.verdict in DEAD:
            continue
        if grant.wrapped_accessor:
            revoke_token(worker, grant, claim)
        elif grant.token_lease:
            revoke_token_lease(worker, grant, claim)
    for lease in file.leases:
        if lease.verdict not in DEAD:
            revoke_lease(worker, lease, claim)


def revoke_token(worker: Worker, grant: GrantRow, claim: int) -> GrantRow:
    """Revoke and look up one task token by its accessor."""
    accessor, subject = grant.wrapped_accessor or "", grant.accessor_hmac or ""
    _, revoked = act(
        worker,
        grant.task_id,
        claim,
        "revoke_token",
        subject,
        lambda op: worker.tokens.revoke_accessor(accessor, op=op),
        rows=(replace(grant, verdict=Verdict.REVOKE_REQUESTED),),
    )
    facts, looked_up = look(
        worker,
        grant.task_id,
        "lookup_token",
        subject,
        lambda op: worker.tokens.lookup_accessor(accessor, op=op),
    )
    verdict = Verdict.GONE if facts is None else Verdict.ACKNOWLEDGED
    return _commit(worker, claim, grant, verdict, (revoked, looked_up))


def revoke_token_lease(worker: Worker, grant: GrantRow, claim: int) -> GrantRow:
    """Revoke and look up a token by its lease path: its accessor was lost in a crash."""
    lease_id = grant.token_lease or ""
    _, revoked = act(
        worker,
        grant.task_id,
        claim,
        "revoke_token",
        lease_id,
        lambda op: worker.leases.revoke(lease_id, op=op),
        rows=(replace(grant, verdict=Verdict.REVOKE_REQUESTED),),
    )
    record, looked_up = look(
        worker, grant.task_id, "lookup_token", lease_id, lambda op: worker.leases.lookup(lease_id, op=op)
    )
    verdict = Verdict.GONE if record is None else Verdict.ACKNOWLEDGED
    return _commit(worker, claim, grant, verdict, (revoked, looked_up))


def revoke_lease(worker: Worker, lease: LeaseRow, claim: int) -> LeaseRow:
    """Revoke one lease synchronously and look it up. A backend that fails leaves it `revoke_failed`."""
    lease_id = lease.lease_id
    done: tuple[OperationRow, ...] = ()
    try:
        _, revoked = act(
            worker,
            lease.task_id,
            claim,
            "revoke_lease",
            lease_id,
            lambda op: worker.leases.revoke(lease_id, op=op),
            rows=(replace(lease, verdict=Verdict.REVOKE_REQUESTED),),
        )
        done = (revoked,)
    except (VaultRejected, OutcomeUnknown):
        # 400: the backend failed, nothing is queued, the lease keeps its whole TTL; or the answer was lost.
        # Either way the look-up says what became of it, and the operation says that it was not answered.
        pass
    record, looked_up = look(
        worker, lease.task_id, "lookup_lease", lease_id, lambda op: worker.leases.lookup(lease_id, op=op)
    )
    if record is None:
        verdict = Verdict.GONE
    else:
        verdict = Verdict.IRREVOCABLE if record.revoke_error else Verdict.REVOKE_FAILED
    return _commit(worker, claim, lease, verdict, (*done, looked_up))


def look(
    worker: Worker, task_id: str, kind: str, subject: str, call: Callable[[str], T | None]
) -> tuple[T | None, OperationRow]:
    """Ask Vault about a credential. A look-up changes nothing, so it needs no intent; its answer is kept."""
    op_id, sent = new_id(), worker.now()
    found = call(op_id)
    answer = "gone" if found is None else "live"
    return found, OperationRow(op_id, task_id, kind, subject, OpState.ANSWERED, answer, sent, worker.now())


def gone_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that Vault answered with "there is no such thing"."""
    kinds = ("lookup_token", "lookup_lease")
    return frozenset(
        op.op_id for op in operations if op.kind in kinds and op.subject == subject and op.answer == "gone"
    )


def _commit(worker: Worker, claim: int, row: R, verdict: Verdict, operations: tuple[OperationRow, ...]) -> R:
    """Write the claimed verdict of a credential and the answers that it comes from."""
    dead_at = row.dead_at or (worker.now() if verdict is Verdict.GONE else None)
    written = replace(row, verdict=verdict, dead_at=dead_at)
    body = {
        "subject": operations[-1].subject,
        "verdict": verdict.value,
        "ops": [op.op_id for op in operations],
    }
    worker.ledger.apply(row.task_id, Change("revoked", body, rows=(written, *operations)), claim=claim, at=worker.now())
    return written
