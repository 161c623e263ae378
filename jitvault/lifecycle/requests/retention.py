"""What was published of a task is removed once the task has been sealed for long enough. The ledger keeps all of it.

Requests and decisions belong to their authors, who alone may write there: they stay. A ledger that was restored may not
know what became of such a request, and then Vault does not say it any more either. Therefore

1. a request begins nothing once it is as old as `REQUEST_LIFE`, by Vault's clock (`consider.enter`);
2. nothing is removed while the request is younger than the retention time, which is never shorter than that: whoever
   signs the same again after the end has it told again, too;
3. a ledger in which a task may still be granted, of which nothing is published and whose request is as old as that, was
   restored: nothing is done from it (`check_not_removed`).

Nothing in the task's chain tells of a removal, since what is sealed is final. It is an act of no task, with an intent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.paths import is_stale
from jitvault.errors import JitvaultError, OutcomeUnknown, SecurityFinding
from jitvault.ledger.model import OperationRow, OpState, TaskRecord
from jitvault.lifecycle.record.integrity import Published
from jitvault.model.kinds import OperationKind
from jitvault.model.states import BEFORE_GRANT
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.stream.reading import canary

_FOLDER = "tasks/"
# in one pass so many names are looked at, and so many documents removed at most
_LOOKED_AT, _REMOVED = 500, 100
# another worker may be about to do what is intended
_IN_HAND = timedelta(minutes=1)


class Removals:
    """Goes through everything that is published, a part of it in each pass."""

    def __init__(self, worker: WorkerContext, keep: timedelta) -> None:
        self._worker, self._keep = worker, keep
        self._names: deque[str] = deque()

    def some(self) -> int:
        """Remove what is over for longer than `keep`, up to a bound; how many were removed.

        Raises AuditUntrusted where it is not known that our clock is right, and whatever keeps Vault from it.
        """
        settle_removals(self._worker)
        if not self._names:
            self._names.extend(self._worker.documents.names(_FOLDER))
        names = [self._names.popleft() for _ in range(min(_LOOKED_AT, len(self._names)))]
        over = removable(self._worker, names, self._keep)
        self._names.extendleft(over[_REMOVED:])
        return remove(self._worker, over[:_REMOVED])


def removable(worker: WorkerContext, names: Sequence[str], keep: timedelta) -> list[str]:
    """Those of the tasks that are sealed for longer than `keep` and that nobody has asked for since."""
    now = worker.now()
    sealed = worker.ledger.sealed_before(names, now - keep)
    found = []
    for name, requester in sorted(sealed.items()):
        stored = worker.documents.read(f"requests/{requester}/{name}/submit")
        if stored is None or (is_stale(stored.written_at, now) and now - stored.written_at >= keep):
            found.append(name)
    return found


def remove(worker: WorkerContext, names: Sequence[str]) -> int:
    """Remove what is published of these tasks, all versions; how many were removed.

    Raises AuditUntrusted where the clocks may not agree, before anything is done, and what kept Vault from one of them.
    """
    if not names:
        return 0
    # what is over, and for how long, our clock says: the canary compares it with Vault's
    canary(worker)
    ops = [new_operation(worker, OperationKind.REMOVE_PUBLISHED, f"{_FOLDER}{name}") for name in names]
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
    """After a crash: what became of the removals that were meant. What is still there is meant anew by its own pass."""
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


def check_not_removed(worker: WorkerContext, file: TaskRecord, said: Published) -> None:
    """Raise SecurityFinding, and record it, when what may still be granted by the ledger may be over and removed."""
    task = file.task
    if said or task.state not in BEFORE_GRANT:
        return
    stored = worker.documents.read(f"requests/{task.requester}/{task.task_id}/submit")
    if stored is None or not is_stale(stored.written_at, worker.now()):
        # it was taken in just now, and is published at the end of this
        return
    message = f"Vault says nothing of task {task.task_id}, whose request is old: the ledger or Vault was restored"
    worker.ledger.finding(task.task_id, "ledger_rolled_back", message, worker.now())
    raise SecurityFinding(
        message,
        hint="Nothing is granted from what may be over. If it is still wanted, sign a request under another id.",
    )
