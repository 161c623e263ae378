"""Revoke or look up one token or lease in Vault.

A verdict is read from Vault's answers. An answer of Vault's is not a proof: `confirmation/` judges what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    VaultBusy,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, OpState
from jitvault.model.kinds import LookupAnswer, OperationKind
from jitvault.model.states import Verdict
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.vault.interface import LeaseRecord

TOKEN = "token"  # noqa: S105 - not a password
LEASE = "lease"


@dataclass(frozen=True, slots=True)
class CredentialHandle:
    """One credential to revoke, with the calls that revoke it and look it up.

    `kind` is TOKEN or LEASE. Both calls take an operation id. `look` returns None once Vault has no such credential;
    its second argument says whether Vault acknowledged the revocation (see `Leases.lookup`).
    """

    row: GrantRow | LeaseRow
    kind: str
    subject: str
    revoke: Callable[[str], object]
    look: Callable[[str, bool], object | None]


@dataclass(frozen=True, slots=True)
class RevocationResult:
    """One credential's row with the verdict that Vault reports.

    `operations` are the calls to Vault with their answers. `failure` is what kept Vault from answering, if anything.
    """

    row: GrantRow | LeaseRow
    operations: tuple[OperationRow, ...]
    failure: JitvaultError | None = None


def of(worker: WorkerContext, row: GrantRow | LeaseRow) -> CredentialHandle:
    """Return the handle of a token or a lease."""
    return token(worker, row) if isinstance(row, GrantRow) else lease(worker, row)


def token(worker: WorkerContext, grant: GrantRow) -> CredentialHandle:
    """Return the handle of a task token.

    The token is named by its accessor or, where the accessor was lost in a crash, by its lease path.
    """
    accessor = grant.wrapped_accessor
    if accessor is None:
        return _by_lease(worker, grant, TOKEN, grant.token_lease or "")
    return CredentialHandle(
        grant,
        TOKEN,
        grant.accessor_hmac or "",
        lambda op: worker.tokens.revoke_accessor(accessor, op=op),
        lambda op, _revoked: worker.tokens.lookup_accessor(accessor, op=op),
    )


def lease(worker: WorkerContext, row: LeaseRow) -> CredentialHandle:
    """Return the handle of a lease, named by its id."""
    return _by_lease(worker, row, LEASE, row.lease_id)


def _by_lease(worker: WorkerContext, row: GrantRow | LeaseRow, kind: str, lease_id: str) -> CredentialHandle:
    return CredentialHandle(
        row,
        kind,
        lease_id,
        lambda op: worker.leases.revoke(lease_id, op=op),
        lambda op, revoked: _with_reason(worker, worker.leases.lookup(lease_id, op=op, revoked=revoked)),
    )


def _with_reason(worker: WorkerContext, found: LeaseRecord | None) -> LeaseRecord | None:
    """Return the lease with Vault's reason, where Vault gave it up.

    Vault has then given up on revoking the lease. Some versions of Vault do not show the reason in the look-up, but in
    a list of leases that they gave up on.
    """
    if found is None or found.ttl_s > 0 or found.revoke_error:
        return found
    try:
        given_up = worker.leases.given_up()
    except VaultUnavailable:
        # the list can be too long to be read in time, and what was looked up is known without it
        return found
    return replace(found, revoke_error=given_up.get(found.lease_id))


def revoke(worker: WorkerContext, handle: CredentialHandle, op: OperationRow) -> RevocationResult:
    """Revoke one credential.

    It is looked up at once where Vault did not acknowledge the revocation. Raises VaultUnavailable when nothing could
    be sent, since what is meant for other credentials would not leave either. A refusal (VaultRefused) can be on one
    path alone, so it is a failure of this credential.
    """
    failure: JitvaultError | None = None
    try:
        handle.revoke(op.op_id)
        answered = record_answer(worker, op, OpState.ANSWERED, DONE)
    except OutcomeUnknown as error:
        answered = record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        # 400: the backend failed, nothing is queued, the lease keeps its whole TTL (docs/vault-facts.md, "Revocation")
        answered = record_answer(worker, op, OpState.ABANDONED, error)
    except VaultRefused as error:
        answered, failure = record_answer(worker, op, OpState.ABANDONED, error), error
    if answered.state is OpState.ANSWERED:
        return RevocationResult(replace(handle.row, verdict=Verdict.ACKNOWLEDGED), (answered,))
    result = look_up(worker, handle, answered)
    return RevocationResult(result.row, (answered, *result.operations), result.failure or failure)


def look_up(
    worker: WorkerContext, handle: CredentialHandle, revocation: OperationRow | None = None
) -> RevocationResult:
    """Look up one credential after its revocation.

    `revocation` is the operation that revoked it; None where its answer is in the ledger already.
    """
    try:
        lookup, found = ask(worker, handle, revoked=_is_acknowledged(revocation))
    except (OutcomeUnknown, VaultBusy, VaultRefused) as error:
        # what was known of this credential is stale now; the caller continues with the others
        return RevocationResult(replace(handle.row, verdict=Verdict.REVOKE_REQUESTED), (), error)
    verdict = reported_verdict(found, revocation)
    dead_at = handle.row.dead_at
    if dead_at is None and found is None:
        dead_at = worker.now()
    return RevocationResult(replace(handle.row, verdict=verdict, dead_at=dead_at), (lookup,))


def ask(
    worker: WorkerContext, handle: CredentialHandle, *, revoked: bool = False
) -> tuple[OperationRow, object | None]:
    """Look up one credential; return the operation and what Vault says of it.

    The second value is None when Vault has no such credential. `revoked` says that Vault acknowledged its revocation.
    """
    op = new_operation(worker, OperationKind(f"lookup_{handle.kind}"), handle.subject, task_id=handle.row.task_id)
    found = handle.look(op.op_id, revoked)
    answer = LookupAnswer.GONE if found is None else LookupAnswer.LIVE
    return record_answer(worker, op, OpState.ANSWERED, answer), found


def reported_verdict(found: object | None, revocation: OperationRow | None) -> Verdict:
    """Return the verdict that Vault reports after a revocation.

    `found` is what a look-up after the revocation found. `revocation` None counts as acknowledged.
    """
    if found is None:
        return Verdict.GONE
    if getattr(found, "revoke_error", None):
        return Verdict.IRREVOCABLE
    return Verdict.ACKNOWLEDGED if _is_acknowledged(revocation) else Verdict.REVOKE_FAILED


def _is_acknowledged(revocation: OperationRow | None) -> bool:
    return revocation is None or revocation.state is OpState.ANSWERED
