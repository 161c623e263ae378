"""What stands below a task that handed its access on. All of it ends with the task.

The decision to end is committed first: from then on nothing is issued below. Then every door of the tree is closed, the
leases are ended from the leaves up, and each task is proven before the one above it. Whatever stops this process, the
ledger's states say what is left, and the next run begins with exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

from jitvault.context import WorkerContext
from jitvault.errors import CORRUPT_RECORD_ERRORS, JitvaultError, VaultRefused, VaultUnavailable
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.decision.ancestors import LIVING
from jitvault.lifecycle.end_reasons import ended_above
from jitvault.lifecycle.record.integrity import check_integrity, is_edited
from jitvault.lifecycle.revocation.results import Verdicts
from jitvault.lifecycle.revocation.revoke import EndCause, end_leases, look_up_ended, revoke, revoke_tokens
from jitvault.model.states import State

_TAKEN = frozenset({State.ISSUED, State.ACTIVE, State.ENDING})


class GoOn(Protocol):
    """`services.advance.advance`."""

    def __call__(self, worker: WorkerContext, task_id: str, *, deadline: float | None = None) -> TaskRecord: ...


def below(worker: WorkerContext, task_id: str) -> list[str]:
    """Every task below this one, each after those below itself."""
    found: dict[str, None] = {}
    seen = {task_id}

    def visit(parent: str) -> None:
        for child in worker.ledger.children(parent):
            # a ledger that somebody edited may go in a circle
            if child not in seen:
                seen.add(child)
                visit(child)
                found[child] = None

    visit(task_id)
    return list(found)


def alive(worker: WorkerContext, task_id: str) -> list[str]:
    """Those below the task of which something may be alive; leaves first."""
    return _below_in(worker, task_id, LIVING)


def unproven(worker: WorkerContext, task_id: str) -> list[str]:
    """Those below the task of which something may be alive, that were closed without proof, or whose rows nobody can
    believe: they were edited, or are gone, and the task's own chain names them. Leaves first.
    """
    return [name for name in below(worker, task_id) if not _is_over(worker, name)]


def unsealed(worker: WorkerContext, task_id: str) -> list[str]:
    """Those below the task that were granted and are not sealed; leaves first."""
    return _below_in(worker, task_id, LIVING | {State.CONFIRMED, State.UNVERIFIED})


def handed_on_to(worker: WorkerContext, task_id: str) -> list[dict[str, Any]]:
    """What the task handed a part of its access on to, as a receipt names it: each has a receipt of its own."""
    rows = (worker.ledger.task(name) for name in worker.ledger.children(task_id))
    return [
        {
            "task": row.task_id,
            "digest": row.digest,
            "state": row.state.value,
            "chain": {"events": row.seq, "head": row.head},
        }
        for row in rows
        if row is not None
    ]


def revoke_tree(worker: WorkerContext, file: TaskRecord, claim: int, *, why: EndCause | None = None) -> None:
    """Revoke the task's credentials, and those of everything below it: all tokens, then the leases from the leaves up.

    One that cannot be ended keeps neither the others alive nor the task itself. Raises like `revoke`, for the task.
    """
    task_id = file.task.task_id
    if alive(worker, task_id):
        # what Vault did not do is tried again below
        with suppress(VaultUnavailable, VaultRefused):
            revoke_tokens(worker, file, claim, why=why)
    else:
        revoke(worker, file, claim, why=why)
    # only now: one may have been issued at the same moment, and from here on none can be
    tree = alive(worker, task_id)
    if not tree:
        return
    for act in (_close_door, end_leases, look_up_ended):
        for name in tree:
            worker.ledger.extend(task_id, claim)
            with suppress(JitvaultError, *CORRUPT_RECORD_ERRORS):
                with_task_claim(worker, name, act)
    again = worker.ledger.file(task_id)
    if again is not None:
        revoke(worker, again, claim)


def prove_below(worker: WorkerContext, task_id: str, claim: int, go_on: GoOn) -> None:
    """Prove what is below the task, leaves first. What cannot be proven keeps the task from it, and is due again."""
    tree = alive(worker, task_id)
    # the quiet second of each passes while the others are looked at
    for deadline in (worker.clock.monotonic(), None)[len(tree) < 2 :]:
        _go_on_with(worker, tree, task_id, claim, go_on, deadline)


def seal_below(worker: WorkerContext, task_id: str, claim: int, go_on: GoOn) -> None:
    """Seal what is below the task, leaves first; what cannot be sealed yet keeps the task from it."""
    _go_on_with(worker, unsealed(worker, task_id), task_id, claim, go_on, None)


def _go_on_with(
    worker: WorkerContext, tree: Sequence[str], task_id: str, claim: int, go_on: GoOn, deadline: float | None
) -> None:
    for name in tree:
        worker.ledger.extend(task_id, claim)
        with suppress(JitvaultError, *CORRUPT_RECORD_ERRORS):
            go_on(worker, name, deadline=deadline)


def with_task_claim(
    worker: WorkerContext, task_id: str, act: Callable[[WorkerContext, TaskRecord, int], Verdicts]
) -> Verdicts | None:
    """Do `act` to a task that has something to be taken away; None for another.

    One that is being issued may have a token that nobody knows yet: it is left to the story.
    """
    with worker.ledger.claim(task_id, partly=True) as claim:
        file = worker.ledger.file(task_id)
        if file is None or file.task.state not in _TAKEN:
            return None
        check_integrity(worker, file)
        return act(worker, file, claim)


def _below_in(worker: WorkerContext, task_id: str, states: Collection[State]) -> list[str]:
    # by the rows as they are: nothing may keep access from being taken away, and `unproven` looks closer
    return [name for name in below(worker, task_id) if (task := worker.ledger.task(name)) and task.state in states]


def _is_over(worker: WorkerContext, name: str) -> bool:
    """Whether nothing of a task can be alive, by rows that agree with its chain."""
    try:
        file = worker.ledger.file(name)
    except CORRUPT_RECORD_ERRORS:
        return False
    return file is not None and file.task.state not in LIVING | {State.UNVERIFIED} and not is_edited(worker, file)


def _close_door(worker: WorkerContext, file: TaskRecord, claim: int) -> Verdicts:
    why = ended_above(worker, file) if file.task.state is not State.ENDING else None
    return revoke_tokens(worker, file, claim, why=why)
