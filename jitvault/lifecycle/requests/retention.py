"""Delete published documents of tasks that were sealed long ago.

A document is deleted once its task has been sealed for the retention time. The ledger keeps everything. Requests and
decisions belong to their authors, who alone may write them, so they stay. A restored ledger may not know what became of
such a request, and after the deletion Vault does not say it any more either. Therefore

1. a request starts no task once it is as old as `REQUEST_LIFE`, by Vault's clock (`decision/admit.py`);
2. nothing is deleted while the request is younger than the retention time, which is never shorter than `REQUEST_LIFE`:
   an author who signs the same request again after the end can still read its result;
3. a ledger that says that a task may still be granted, while nothing is published of the task and its request is as old
   as `REQUEST_LIFE`, was restored: nothing is done from it (`record/integrity.py`, check 2).

A sealed task is final, so its chain does not show the deletion. The deletion is an operation of no task, with an
intent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.paths import PUBLISHED, is_stale, published_path, request_path
from jitvault.errors import JitvaultError, OutcomeUnknown
from jitvault.ledger.model import OperationRow, OpState
from jitvault.model.kinds import OperationKind
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.stream.reading import canary

# how many names one pass checks, and how many documents it deletes at most
_LOOKED_AT, _REMOVED = 500, 100
# another worker may be about to do what it intended
_IN_HAND = timedelta(minutes=1)


class Removals:
    """Goes through all published documents, a part of them in each pass."""

    def __init__(self, worker: WorkerContext, keep: timedelta) -> None:
        self._worker, self._keep = worker, keep
        self._names: deque[str] = deque()

    def some(self) -> int:
        """Delete documents of tasks sealed for longer than `keep`.

        Returns how many were deleted. One pass deletes a limited number. Raises AuditUntrusted where this host's clock
        is not known to be right, and whatever error keeps Vault from a deletion.
        """
        settle_removals(self._worker)
        if not self._names:
            self._names.extend(self._worker.documents.names(PUBLISHED))
        names = [self._names.popleft() for _ in range(min(_LOOKED_AT, len(self._names)))]
        over = removable(self._worker, names, self._keep)
        self._names.extendleft(over[_REMOVED:])
        return remove(self._worker, over[:_REMOVED])


def removable(worker: WorkerContext, names: Sequence[str], keep: timedelta) -> list[str]:
    """Return the tasks that were sealed longer than `keep` ago.

    Tasks with a newer request are left out.
    """
    now = worker.now()
    sealed = worker.ledger.sealed_before(names, now - keep)
    found = []
    for name, requester in sorted(sealed.items()):
        stored = worker.documents.read(request_path(requester, name, "submit"))
        if stored is None or (is_stale(stored.written_at, now) and now - stored.written_at >= keep):
            found.append(name)
    return found


def remove(worker: WorkerContext, names: Sequence[str]) -> int:
    """Delete the published documents of these tasks, all versions.

    Return how many.

    Raises AuditUntrusted, before anything is deleted, where the clocks may not agree. Raises the error that kept Vault
    from a deletion.
    """
    if not names:
        return 0
    # how long a task has been sealed is by this host's clock: the canary compares that with Vault's
    canary(worker)
    ops = [new_operation(worker, OperationKind.REMOVE_PUBLISHED, published_path(name)) for name in names]
    worker.ledger.keep(operations=ops, at=worker.now())
    answered: list[OperationRow] = []
    failure: JitvaultError | None = None
    for op in ops:
        if failure is not None or worker.is_late():
            answered.append(record_answer(worker, op, OpState.ABANDONED, "not sent"))
            continue
        try:
            worker.documents.destroy(op.subject, op=op.op_id)
            answered.append(record_answer(worker, op, OpState.ANSWERED, DONE))
        except JitvaultError as error:
            failure = error
            state = OpState.UNKNOWN if isinstance(error, OutcomeUnknown) else OpState.ABANDONED
            answered.append(record_answer(worker, op, state, error))
    worker.ledger.keep(operations=answered, at=worker.now())
    if failure is not None:
        raise failure
    return sum(op.state is OpState.ANSWERED for op in answered)


def settle_removals(worker: WorkerContext) -> None:
    """Settle the deletions that a crash left open.

    A document that is still there is deleted by a later pass.
    """
    since = worker.now() - _IN_HAND
    ops = [op for op in worker.ledger.open_acts(OperationKind.REMOVE_PUBLISHED) if op.sent_at < since]
    settled = []
    for op in ops[:_REMOVED]:
        gone = worker.documents.read(op.subject) is None
        settled.append(
            record_answer(worker, op, OpState.SETTLED if gone else OpState.ABANDONED, "gone" if gone else "there")
        )
    if settled:
        worker.ledger.keep(operations=settled, at=worker.now())
