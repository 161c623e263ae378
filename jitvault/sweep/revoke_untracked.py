"""Revoke untracked credentials, and prove that they are dead.

As for tasks, each intent is committed first.

A token is revoked by its own lease, which the listing of its role shows: its accessor is not known. The audit stream
has to show that the credential existed before, that it was revoked, and that it is gone afterwards. A crash in between
leaves a credential that is being revoked, which the next sweep revokes and proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from jitvault.context import WorkerContext
from jitvault.errors import OutcomeUnknown, VaultRejected
from jitvault.ledger.model import OperationRow, OpState, UntrackedCredentialRow
from jitvault.lifecycle.revocation.credential import reported_verdict
from jitvault.model.kinds import LookupAnswer, OperationKind
from jitvault.model.states import Verdict
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.stream.reading import canary
from jitvault.sweep.untracked_proof import UntrackedCredential, judge
from jitvault.vault.interface import INVALID_LEASE, LEASE_NOT_FOUND, LeaseRecord

_GONE = (INVALID_LEASE, LEASE_NOT_FOUND)
_AT_ONCE = 20
_EXTEND_AFTER_S = 5.0


def revoke_untracked(
    worker: WorkerContext, claim: int, orphans: Sequence[UntrackedCredentialRow]
) -> list[UntrackedCredentialRow]:
    """Revoke each credential and look it up.

    Return them with the reported verdicts.

    What Vault reports is not a proof.
    """
    ended: list[UntrackedCredentialRow] = []
    for n in range(0, len(orphans), _AT_ONCE):
        worker.ledger.extend_sweep(claim)
        ended += _end_some(worker, claim, orphans[n : n + _AT_ONCE])
    return ended


def prove_untracked(
    worker: WorkerContext, claim: int, orphans: Sequence[UntrackedCredentialRow]
) -> list[UntrackedCredentialRow]:
    """Return the credentials with the verdicts that the audit stream supports.

    Raises AuditUntrusted.
    """
    if not orphans:
        return []
    newest = canary(worker)
    worker.ledger.extend_sweep(claim)
    ids = [orphan.lease_id for orphan in orphans]
    trail = worker.ledger.untracked_trail(ids)
    errors = frozenset(said for error in _GONE for said in (error, worker.hasher.remembered(error)))
    ops: dict[str, list[OperationRow]] = {lease_id: [] for lease_id in ids}
    for op in worker.ledger.operations_on(ids):
        ops[op.subject].append(op)
    proven = []
    for orphan in orphans:
        own = ops[orphan.lease_id]
        case = UntrackedCredential(
            lease_id=orphan.lease_id,
            kind=orphan.kind,
            mount="auth/token" if orphan.kind == "token" else orphan.path.partition("/")[0],
            hashed=worker.hasher.remembered(orphan.lease_id),
            live_ops=frozenset(
                op.op_id for op in own if op.kind == OperationKind.LOOKUP_UNTRACKED and op.answer == LookupAnswer.LIVE
            ),
            revoke_ops=frozenset(op.op_id for op in own if op.kind == OperationKind.REVOKE_UNTRACKED),
            gone_ops=frozenset(
                op.op_id for op in own if op.kind == OperationKind.LOOKUP_UNTRACKED and op.answer == LookupAnswer.GONE
            ),
            gone_errors=errors,
            expires_at=orphan.expires_at,
            reported=orphan.verdict,
        )
        verdict, checks = judge(case, trail, newest)
        proven.append(replace(orphan, verdict=verdict, checks=msgspec.to_builtins(checks)))
    worker.ledger.keep(orphans=proven, at=worker.now(), claim=claim)
    return proven


def _end_some(
    worker: WorkerContext, claim: int, orphans: Sequence[UntrackedCredentialRow]
) -> list[UntrackedCredentialRow]:
    """Look up each credential, and revoke those that exist.

    A credential that Vault still has after it acknowledged the revocation is revoked once more. Vault's own queue may
    be about to take it away without a line (docs/vault-facts.md, "Revocation"), and a credential that was found alive
    has to be revoked after that to be proven dead.
    """
    looked = [(orphan, *look_up(worker, orphan.lease_id)) for orphan in orphans]
    there = [
        replace(orphan, revoking=True, verdict=Verdict.REVOKE_REQUESTED, expires_at=record.expires_at)
        for orphan, _, record in looked
        if record is not None
    ]
    away = [replace(orphan, verdict=Verdict.GONE) for orphan, _, record in looked if record is None]
    worker.ledger.keep(orphans=away, operations=[op for _, op, _ in looked], at=worker.now(), claim=claim)
    ended = {orphan.lease_id: orphan for orphan in _revoke_all(worker, claim, there)}
    found = [orphan for orphan in ended.values() if orphan.verdict is Verdict.ACKNOWLEDGED]
    ended |= {orphan.lease_id: orphan for orphan in _revoke_all(worker, claim, found)}
    return [*ended.values(), *away]


def _revoke_all(
    worker: WorkerContext, claim: int, there: Sequence[UntrackedCredentialRow]
) -> list[UntrackedCredentialRow]:
    """Commit all intents, revoke, and commit the answers."""
    if not there:
        return []
    intents = [new_operation(worker, OperationKind.REVOKE_UNTRACKED, orphan.lease_id) for orphan in there]
    worker.ledger.keep(orphans=there, operations=intents, at=worker.now(), claim=claim)
    ended: list[UntrackedCredentialRow] = []
    answers: list[OperationRow] = []
    held_since = worker.clock.monotonic()
    try:
        for orphan, op in zip(there, intents, strict=True):
            if worker.clock.monotonic() - held_since > _EXTEND_AFTER_S:
                worker.ledger.extend_sweep(claim)
                held_since = worker.clock.monotonic()
            answered = _revoke(worker, orphan, op)
            answers.append(answered)
            looked_up, record = look_up(worker, orphan.lease_id, revoked=answered.state is OpState.ANSWERED)
            answers.append(looked_up)
            ended.append(replace(orphan, verdict=reported_verdict(record, answered)))
    finally:
        worker.ledger.keep(orphans=ended, operations=answers, at=worker.now(), claim=claim)
    return ended


def _revoke(worker: WorkerContext, orphan: UntrackedCredentialRow, op: OperationRow) -> OperationRow:
    """Revoke it by its lease id; return the operation with its answer."""
    try:
        worker.leases.revoke(orphan.lease_id, op=op.op_id)
    except OutcomeUnknown as error:
        return record_answer(worker, op, OpState.UNKNOWN, error)
    except VaultRejected as error:
        return record_answer(worker, op, OpState.ABANDONED, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def look_up(worker: WorkerContext, lease_id: str, *, revoked: bool = False) -> tuple[OperationRow, LeaseRecord | None]:
    """Look it up; return the operation, not yet committed, and the answer.

    `revoked` says that Vault acknowledged its revocation.
    """
    op = new_operation(worker, OperationKind.LOOKUP_UNTRACKED, lease_id)
    record = worker.leases.lookup(lease_id, op=op.op_id, revoked=revoked)
    answer = LookupAnswer.GONE if record is None else LookupAnswer.LIVE
    return record_answer(worker, op, OpState.ANSWERED, answer), record
