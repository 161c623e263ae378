"""The last resort: make Vault forget a lease that it cannot revoke.

The task is then closed without proof. An operator has to sign for it. Vault drops the lease's record whatever the
backend says (docs/vault-facts.md, "Revocation"). From then on only the target can tell that the credential is dead;
without such proof the credential is `unverifiable` for good.
"""

from __future__ import annotations

from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, OpState, Row, TaskRecord
from jitvault.lifecycle.confirmation.sign_receipt import signed_receipt
from jitvault.lifecycle.record.lookups import last_found
from jitvault.lifecycle.requests.end_documents import EndRequest
from jitvault.model.event_bodies import Forced, Unverified
from jitvault.model.kinds import EventKind, LookupAnswer, OperationKind
from jitvault.model.states import DEAD, State, Verdict
from jitvault.operations import DONE, new_operation, record_answer


def force_revoke(worker: WorkerContext, record: TaskRecord, claim: int, request: EndRequest) -> bool:
    """Make Vault forget every lease that it still has of the task.

    Returns False where Vault has none. The next turn of `advance` looks the leases up and asks the targets, as after
    any revocation.
    """
    held = [lease for lease in record.leases if lease.verdict not in DEAD and not _is_gone(record, lease.lease_id)]
    if not held:
        return False
    task_id = record.task.task_id
    ops = [new_operation(worker, OperationKind.FORCE_LEASE, lease.lease_id, task_id=task_id) for lease in held]
    intent = Change(EventKind.FORCE_INTENDED, request.event_body(Forced), rows=ops)
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    answers: list[Row] = []
    try:
        for op in ops:
            answers.append(_force_one(worker, op))
    finally:
        worker.ledger.apply(task_id, Change(EventKind.FORCED, rows=answers), claim=claim, at=worker.now())
    return True


def _force_one(worker: WorkerContext, op: OperationRow) -> OperationRow:
    """Make Vault forget one lease; return the operation with its answer."""
    try:
        worker.leases.revoke_force(op.subject, op=op.op_id)
    except JitvaultError as error:
        return record_answer(worker, op, OpState.UNKNOWN, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def close_without_proof(worker: WorkerContext, record: TaskRecord, claim: int, request: EndRequest) -> None:
    """Close the task without proof; its signed receipt says so.

    Nothing is done while Vault has a credential of the task. A closed task stays in every list and report as
    `unverified`.
    """
    if _is_any_left(record):
        return
    now = worker.now()
    grants = tuple(replace(grant, verdict=_final_verdict(grant), settled=True) for grant in record.grants)
    leases = tuple(replace(lease, verdict=_final_verdict(lease)) for lease in record.leases)
    closed = replace(record, task=replace(record.task, state=State.UNVERIFIED), grants=grants, leases=leases)
    receipt = signed_receipt(worker, closed, now)
    change = Change(
        EventKind.UNVERIFIED,
        request.event_body(Unverified, head=record.task.head),
        state=State.UNVERIFIED,
        fields={"receipt": receipt, "due_at": None},
        rows=(*grants, *leases),
    )
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=now)


def _is_any_left(record: TaskRecord) -> bool:
    """Return whether some credential may still be in Vault.

    It may where its newest look-up was not answered with "gone".
    """
    # a token whose accessor was lost, and that is not among the tokens that Vault lists, cannot be looked up at all
    known = [grant for grant in record.grants if grant.wrapped_accessor or grant.token_lease]
    tokens = (grant.token_lease or grant.accessor_hmac for grant in known if grant.verdict not in DEAD)
    leases = (lease.lease_id for lease in record.leases if lease.verdict not in DEAD)
    return any(not _is_gone(record, subject) for subject in (*tokens, *leases) if subject)


def _is_gone(record: TaskRecord, subject: str) -> bool:
    """Return whether the newest look-up of a credential found nothing.

    The look-up asked Vault.
    """
    return last_found(record.operations, subject) is LookupAnswer.GONE


def _final_verdict(row: GrantRow | LeaseRow) -> Verdict:
    """Return a proven verdict as it is, and `unverifiable` for any other."""
    return row.verdict if row.verdict in DEAD else Verdict.UNVERIFIABLE
