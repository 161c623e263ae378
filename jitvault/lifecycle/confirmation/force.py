"""The last resort: make Vault forget a lease that it cannot revoke, and close a task that cannot be proven.

An operator has to sign for it. Vault drops the record whatever its backend says (docs/vault-facts.md, "Revocation"),
so from then on only the target can tell that a credential is dead; without that it is `unverifiable`, for good.
"""

from __future__ import annotations

from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, OpState, Row, TaskRecord
from jitvault.lifecycle.confirmation.lookups import last_found
from jitvault.lifecycle.record.receipt import receipt_of
from jitvault.lifecycle.record.sign_receipt import sign_receipt
from jitvault.lifecycle.requests.end_documents import EndRequest
from jitvault.lifecycle.revocation.cascade import children_for_receipt
from jitvault.lifecycle.revocation.revoke import DEAD
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import State, Verdict
from jitvault.operations import DONE, new_operation, record_answer


def force(worker: WorkerContext, file: TaskRecord, claim: int, wish: EndRequest) -> bool:
    """Have Vault forget every lease of the task that it still holds; False where there is none.

    The look-ups and the target are asked by the next turn of the story, as after any revocation.
    """
    held = [lease for lease in file.leases if lease.verdict not in DEAD and not _is_gone(file, lease.lease_id)]
    if not held:
        return False
    task_id = file.task.task_id
    ops = [new_operation(worker, OperationKind.FORCE_LEASE, lease.lease_id, task_id=task_id) for lease in held]
    said = {
        **wish.event_body(),
        "subjects": [op.subject for op in ops],
        "ops": [op.op_id for op in ops],
    }
    worker.ledger.apply(task_id, Change(EventKind.FORCE_INTENDED, said, rows=ops), claim=claim, at=worker.now())
    answers: list[Row] = []
    try:
        for op in ops:
            answers.append(_forced(worker, op))
    finally:
        change = Change(EventKind.FORCED, {"ops": [op.op_id for op in ops[: len(answers)]]}, rows=answers)
        worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    return True


def _forced(worker: WorkerContext, op: OperationRow) -> OperationRow:
    try:
        worker.leases.revoke_force(op.subject, op=op.op_id)
    except JitvaultError as error:
        return record_answer(worker, op, OpState.UNKNOWN, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def close(worker: WorkerContext, file: TaskRecord, claim: int, wish: EndRequest) -> bool:
    """Close the task without proof, with a signed receipt that says so; False while Vault has a credential of it.

    It stays in every list and report as `unverified`.
    """
    if _still_there(file):
        return False
    now = worker.now()
    rows = [
        *(_unproven(grant) for grant in file.grants),
        *(_unproven(lease) for lease in file.leases),
    ]
    unproven = replace(
        file,
        task=replace(file.task, state=State.UNVERIFIED),
        grants=tuple(row for row in rows if isinstance(row, GrantRow)),
        leases=tuple(row for row in rows if isinstance(row, LeaseRow)),
    )
    below = children_for_receipt(worker, file.task.task_id)
    told = receipt_of(worker.installation, unproven, now, children=below)
    receipt = sign_receipt(worker, file.task.task_id, told)
    change = Change(
        EventKind.UNVERIFIED,
        {"head": file.task.head, **wish.event_body()},
        state=State.UNVERIFIED,
        fields={"receipt": receipt, "due_at": None},
        rows=rows,
    )
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=now)
    return True


def _still_there(file: TaskRecord) -> bool:
    """Whether the last look-up of a credential of the task did not say that it is gone."""
    # of what nobody can ask about, since its accessor was lost and Vault lists no token that is it, there is no answer
    asked = [grant for grant in file.grants if grant.wrapped_accessor or grant.token_lease]
    tokens = (grant.token_lease or grant.accessor_hmac for grant in asked if grant.verdict not in DEAD)
    leases = (lease.lease_id for lease in file.leases if lease.verdict not in DEAD)
    return any(not _is_gone(file, subject) for subject in (*tokens, *leases) if subject)


def _is_gone(file: TaskRecord, subject: str) -> bool:
    """Whether the newest look-up of a credential says that Vault has no such thing."""
    return last_found(file.operations, subject) == "gone"


def _unproven(row: GrantRow | LeaseRow) -> GrantRow | LeaseRow:
    verdict = row.verdict if row.verdict in DEAD else Verdict.UNVERIFIABLE
    if isinstance(row, GrantRow):
        return replace(row, verdict=verdict, settled=True)
    return replace(row, verdict=verdict)
