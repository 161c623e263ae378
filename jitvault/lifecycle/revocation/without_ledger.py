"""Revoke credentials while the ledger accepts no writes.

This is the only act that is not recorded before it is done. A full disk must not keep an access alive, and to revoke a
credential twice does no harm. The audit stream shows the revocations: the next run with a working ledger finds their
lines, revokes again what is left, and confirms it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError, SecurityFinding
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.integrity import problems_of
from jitvault.lifecycle.requests.end_documents import end_request, entitled
from jitvault.lifecycle.revocation.cascade import live_below
from jitvault.model.states import DEAD, LIVE_STATES, LIVING


@dataclass(frozen=True, slots=True)
class RevocationCount:
    """How many credentials Vault acknowledged as revoked (`ended`), of how many (`known`)."""

    ended: int = 0
    known: int = 0


def revoke_without_ledger(worker: WorkerContext, task_id: str) -> RevocationCount:
    """Revoke a task's known credentials, and those of every task below it.

    A task with access is only revoked where an entitled entity has asked for its end. Tokens are revoked before leases.
    Raises SecurityFinding where the task's rows were edited: they may name another task's credentials.
    """
    file = worker.ledger.file(task_id)
    if file is None or file.task.state not in LIVING:
        return RevocationCount()
    if file.task.state in LIVE_STATES and end_request(worker, task_id, entitled=entitled(file)) is None:
        return RevocationCount()
    if problems := problems_of(worker, file):
        raise SecurityFinding(f"the ledger was edited: task {task_id}: {'; '.join(problems)}")
    doomed = [file]
    for name in live_below(worker, task_id):
        child = worker.ledger.file(name)
        # a task below whose rows were edited is skipped, and the others are still revoked
        if child is not None and not problems_of(worker, child):
            doomed.append(child)
    revocations = _revocations(worker, doomed)
    ended = 0
    for revoke in revocations:
        try:
            revoke()
        except JitvaultError:
            # go on with the others; the next run finds out which one failed
            continue
        ended += 1
    return RevocationCount(ended, len(revocations))


def _revocations(worker: WorkerContext, doomed: Sequence[TaskRecord]) -> list[Callable[[], object]]:
    """Return the calls that revoke the tasks' credentials, tokens first."""
    grants = [grant for file in doomed for grant in file.grants if grant.verdict not in DEAD]
    accessors = [grant.wrapped_accessor for grant in grants if grant.wrapped_accessor]
    leases = [grant.token_lease for grant in grants if grant.token_lease and not grant.wrapped_accessor]
    leases += [lease.lease_id for file in doomed for lease in file.leases if lease.verdict not in DEAD]
    by_accessor = [partial(worker.tokens.revoke_accessor, accessor, op=new_id()) for accessor in accessors]
    by_lease = [partial(worker.leases.revoke, lease_id, op=new_id()) for lease_id in leases]
    return [*by_accessor, *by_lease]
