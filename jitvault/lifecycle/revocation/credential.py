"""One token or lease at Vault: how it is revoked and looked up, and what Vault's answers claim.

An answer is a claim: `confirm` says what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, OutcomeUnknown, VaultBusy, VaultRefused, VaultRejected
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, OpState
from jitvault.model.kinds import OperationKind
from jitvault.model.states import Verdict
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.vault.interface import LeaseRecord


@dataclass(frozen=True, slots=True)
class CredentialHandle:
    """One credential that is to be ended. `look` gives None once Vault has no such thing."""

    row: GrantRow | LeaseRow
    kind: str
    subject: str
    revoke: Callable[[str], object]
    look: Callable[[str], object | None]


@dataclass(frozen=True, slots=True)
class RevocationResult:
    """One credential with the verdict that Vault claims, what was asked about it, and why that is not an answer."""

    row: GrantRow | LeaseRow
    operations: tuple[OperationRow, ...]
    failure: JitvaultError | None = None


def token(worker: WorkerContext, grant: GrantRow) -> CredentialHandle:
    """A task token, by its accessor or, where that was lost in a crash, by its lease path."""
    accessor = grant.wrapped_accessor
    if accessor is None:
        return _by_lease(worker, grant, "token", grant.token_lease or "")
    return CredentialHandle(
        grant,
        "token",
        grant.accessor_hmac or "",
        lambda op: worker.tokens.revoke_accessor(accessor, op=op),
        lambda op: worker.tokens.lookup_accessor(accessor, op=op),
    )


def lease(worker: WorkerContext, row: LeaseRow) -> CredentialHandle:
    return _by_lease(worker, row, "lease", row.lease_id)


def _by_lease(worker: WorkerContext, row: GrantRow | LeaseRow, kind: str, lease_id: str) -> CredentialHandle:
    return CredentialHandle(
        row,
        kind,
        lease_id,
        lambda op: worker.leases.revoke(lease_id, op=op),
        lambda op: _with_reason(worker, worker.leases.lookup(lease_id, op=op)),
    )


def _with_reason(worker: WorkerContext, found: LeaseRecord | None) -> LeaseRecord | None:
    """The lease, with Vault's reason where Vault has given up on it and says so elsewhere."""
    if found is None or found.ttl_s > 0 or found.revoke_error:
        return found
    return replace(found, revoke_error=worker.leases.given_up().get(found.lease_id))


def end(worker: WorkerContext, one: CredentialHandle, op: OperationRow, *, look: bool) -> RevocationResult:
    """Revoke one credential, and look it up unless `look` is False and Vault said that it ended it.

    Raises VaultUnavailable when Vault takes no requests at all: the others would not be taken either. A rate limit can
    be on one path alone.
    """
    failure: JitvaultError | None = None
    try:
        one.revoke(op.op_id)
        answered = record_answer(worker, op, OpState.ANSWERED, DONE)
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        # 400: the backend failed, nothing is queued, the lease keeps its whole TTL (docs/vault-facts.md, "Revocation")
        answered = record_answer(worker, op, OpState.ABANDONED, error)
    except (VaultRefused, VaultBusy) as error:
        answered, failure = record_answer(worker, op, OpState.ABANDONED, error), error
    if not look and answered.state is OpState.ANSWERED:
        return RevocationResult(replace(one.row, verdict=Verdict.ACKNOWLEDGED), (answered,))
    looked = look_up(worker, one, answered)
    return RevocationResult(looked.row, (answered, *looked.operations), looked.failure or failure)


def look_up(worker: WorkerContext, one: CredentialHandle, revocation: OperationRow | None = None) -> RevocationResult:
    """Look one credential up that was revoked by `revocation`; None: by an act whose answer is written already."""
    try:
        looked_up, found = ask(worker, one)
    except (OutcomeUnknown, VaultBusy) as error:
        # with it goes what we know; the others still have their turn
        return RevocationResult(replace(one.row, verdict=Verdict.REVOKE_REQUESTED), (), error)
    verdict = reported_verdict(found, revocation)
    dead_at = one.row.dead_at or (worker.now() if found is None else None)
    return RevocationResult(replace(one.row, verdict=verdict, dead_at=dead_at), (looked_up,))


def ask(worker: WorkerContext, one: CredentialHandle) -> tuple[OperationRow, object | None]:
    """Look one credential up; gives the operation, and what Vault says of it, None when there is no such thing."""
    op = new_operation(worker, OperationKind(f"lookup_{one.kind}"), one.subject, task_id=one.row.task_id)
    found = one.look(op.op_id)
    return record_answer(worker, op, OpState.ANSWERED, "gone" if found is None else "live"), found


def reported_verdict(found: object | None, revocation: OperationRow | None) -> Verdict:
    """What Vault claims of a credential that was to be revoked, by what a look-up after it found."""
    if found is None:
        return Verdict.GONE
    if getattr(found, "revoke_error", None):
        return Verdict.IRREVOCABLE
    done = revocation is None or revocation.state is OpState.ANSWERED
    return Verdict.ACKNOWLEDGED if done else Verdict.REVOKE_FAILED
