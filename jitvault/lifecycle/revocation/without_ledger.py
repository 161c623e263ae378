"""Revoke credentials while the ledger accepts no writes.

This is the only act that is not recorded before it is done. A full disk must not keep an access alive, and to revoke a
credential twice does no harm. The audit stream shows the revocations: the next run with a working ledger finds their
lines, revokes again what is left, and confirms it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError, SecurityFinding
from jitvault.lifecycle.record.integrity import problems_of
from jitvault.lifecycle.requests.end_documents import end_request, entitled
from jitvault.lifecycle.revocation.cascade import live_below
from jitvault.lifecycle.revocation.revoke import live_leases, live_tokens
from jitvault.model.states import LIVE_STATES, LIVING


@dataclass(frozen=True, slots=True)
class RevocationCount:
    """How many credentials Vault acknowledged as revoked.

    They are `ended`, of all that are `known`.
    """

    ended: int = 0
    known: int = 0


def revoke_without_ledger(worker: WorkerContext, task_id: str) -> RevocationCount:
    """Revoke a task's known credentials, and those of every task below it.

    A task with access is only revoked where an entitled entity has asked for its end. Tokens are revoked before leases.
    Raises SecurityFinding where the task's rows were edited: they may name another task's credentials.
    """
    record = worker.ledger.record(task_id)
    if record is None or record.task.state not in LIVING:
        return RevocationCount()
    if record.task.state in LIVE_STATES and end_request(worker, task_id, entitled=entitled(record)) is None:
        return RevocationCount()
    if problems := problems_of(worker, record):
        raise SecurityFinding(f"the ledger was edited: task {task_id}: {'; '.join(problems)}")
    doomed = [record]
    for name in live_below(worker, task_id):
        child = worker.legible(name)
        # a task below whose rows were edited, or cannot be read, is skipped, and the others are still revoked
        if child is not None and not problems_of(worker, child):
            doomed.append(child)
    tokens = [handle for one in doomed for handle in live_tokens(worker, one)]
    leases = [handle for one in doomed for handle in live_leases(worker, one)]
    ended = 0
    for handle in (*tokens, *leases):
        try:
            handle.revoke(new_id())
        except JitvaultError:
            # go on with the others; the next run finds out which one failed
            continue
        ended += 1
    return RevocationCount(ended, len(tokens) + len(leases))
