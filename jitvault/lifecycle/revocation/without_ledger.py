"""Take access away although the ledger takes no writes: the one act that is not written down before it is done.

A full disk must not keep an access alive. Ending a credential twice does no harm, and the audit stream shows it: the
next run with a ledger that works finds the lines, ends again what there is, and proves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError, SecurityFinding
from jitvault.lifecycle.decision.ancestors import LIVING
from jitvault.lifecycle.end_reasons import entitled
from jitvault.lifecycle.record.integrity import problems_of
from jitvault.lifecycle.requests.end_documents import end_request
from jitvault.lifecycle.revocation.cascade import alive
from jitvault.lifecycle.revocation.revoke import DEAD
from jitvault.model.states import LIVE_STATES


@dataclass(frozen=True, slots=True)
class RevocationCount:
    """How many credentials of a task Vault said it ended, and how many there were to be ended."""

    ended: int = 0
    known: int = 0


def take_back(worker: WorkerContext, task_id: str) -> RevocationCount:
    """Revoke every credential that the ledger knows of a task that somebody entitled wants ended, and of everything
    below it, the tokens first.

    Raises SecurityFinding for rows that somebody edited: what they name may be somebody else's.
    """
    file = worker.ledger.file(task_id)
    if file is None or file.task.state not in LIVING:
        return RevocationCount()
    if file.task.state in LIVE_STATES and end_request(worker, task_id, entitled=entitled(file)) is None:
        return RevocationCount()
    if problems := problems_of(worker, file):
        raise SecurityFinding(f"the ledger was edited: task {task_id}: {'; '.join(problems)}")
    under = [found for name in alive(worker, task_id) if (found := worker.ledger.file(name))]
    # one of these that was edited keeps none of the others alive
    doomed = [file, *(one for one in under if not problems_of(worker, one))]
    grants = [g for one in doomed for g in one.grants if g.verdict not in DEAD]
    accessors = [g.wrapped_accessor for g in grants if g.wrapped_accessor]
    leases = [g.token_lease for g in grants if g.token_lease and not g.wrapped_accessor]
    leases += [lease.lease_id for one in doomed for lease in one.leases if lease.verdict not in DEAD]
    acts: list[Callable[[], object]] = [partial(worker.tokens.revoke_accessor, a, op=new_id()) for a in accessors]
    acts += [partial(worker.leases.revoke, lease_id, op=new_id()) for lease_id in leases]
    ended = 0
    for act in acts:
        try:
            act()
        except JitvaultError:
            # the others all the same; which one it was the next run finds out
            continue
        ended += 1
    return RevocationCount(ended, len(acts))
