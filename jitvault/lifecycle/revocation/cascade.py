"""Revoke, confirm and seal the tasks that were delegated below a task.

They all end with it.

The decision to end the upper task is committed first: from then on nothing is issued below it. Then all tokens of the
tree are revoked, and the leases from the leaves of the tree up. Each task is confirmed before the task above it. If
this process stops, the states in the ledger say what is left, and the next run continues there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jitvault.context import WorkerContext
from jitvault.errors import CorruptRecord, VaultRefused, VaultUnavailable
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.decision.ancestors import ended_above
from jitvault.lifecycle.record.integrity import is_edited
from jitvault.lifecycle.revocation.phases import PhasedRevocation
from jitvault.lifecycle.revocation.revoke import revoke, revoke_tokens
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.event_bodies import EndCause
from jitvault.model.states import LIVING, State


@dataclass(frozen=True, slots=True)
class ChildDue:
    """A task that has to be advanced before the task above it goes on.

    `deadline` is the one of that turn, by the worker's monotonic clock; None leaves the worker's own.
    """

    task_id: str
    deadline: float | None = None


def all_below(worker: WorkerContext, task_id: str) -> list[str]:
    """Return every task below this one, leaves first."""
    found: dict[str, None] = {}
    seen = {task_id}

    def visit(parent: str) -> None:
        for child in worker.ledger.children(parent):
            # the rows of an edited ledger may form a circle
            if child not in seen:
                seen.add(child)
                visit(child)
                found[child] = None

    visit(task_id)
    return list(found)


def live_below(worker: WorkerContext, task_id: str) -> list[str]:
    """Return the tasks below that may have a live credential, leaves first."""
    return _below_in(worker, task_id, LIVING)


def unproven_below(worker: WorkerContext, task_id: str) -> list[str]:
    """Return the tasks below that are not proven over, leaves first.

    These are tasks that may have a live credential, tasks that were closed without proof, and tasks whose rows cannot
    be believed: the rows were edited, or are gone although the upper task's own chain names them.
    """
    return [name for name in all_below(worker, task_id) if not _is_over(worker, name)]


def unsealed_below(worker: WorkerContext, task_id: str) -> list[str]:
    """Return the tasks below that were granted and are not sealed.

    Leaves come first.
    """
    return _below_in(worker, task_id, LIVING | {State.CONFIRMED, State.UNVERIFIED})


def children_for_receipt(worker: WorkerContext, task_id: str) -> list[dict[str, Any]]:
    """Return the tasks delegated directly below this one.

    They have the form in which its receipt lists them. Each of them has a receipt of its own.
    """
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


def revoke_tree(worker: WorkerContext, record: TaskRecord, claim: int, *, why: EndCause | None = None) -> TaskRecord:
    """Revoke the credentials of a task and of every task below it.

    Returns the task. All tokens come first, then the leases from the leaves of the tree up. A task below that cannot be
    revoked keeps neither the other tasks nor the task itself alive. Raises like `revoke`, for the task itself.
    """
    task_id = record.task.task_id
    had_below = bool(live_below(worker, task_id))
    if had_below:
        # what Vault does not do here is tried again at the end
        with suppress(VaultUnavailable, VaultRefused):
            revoke_tokens(worker, record, claim, why=why)
    else:
        record = revoke(worker, record, claim, why=why)
    # read again: a task below may have been issued meanwhile, and from here on none can be
    tree = live_below(worker, task_id)
    if not tree and not had_below:
        return record
    below = {name: PhasedRevocation(name, _why_below) for name in tree}
    for phase in (PhasedRevocation.revoke_tokens, PhasedRevocation.revoke_leases, PhasedRevocation.look_up):
        for name, revocation in below.items():
            worker.ledger.extend(task_id, claim)
            with others_go_on(name):
                phase(revocation, worker)
    # read again: the stream may have shown a lease of the task while the tasks below were revoked
    return revoke(worker, worker.ledger.refreshed(record), claim)


def children_due(worker: WorkerContext, record: TaskRecord) -> Iterator[ChildDue]:
    """Yield the tasks below that have to be confirmed or sealed first.

    Leaves come first. Below a confirmed task these are the tasks to seal, below any other the tasks to confirm. A task
    that cannot be confirmed or sealed yet keeps the task above it from it, and is due again.
    """
    task_id = record.task.task_id
    if record.task.state is State.CONFIRMED:
        yield from map(ChildDue, unsealed_below(worker, task_id))
        return
    tree = live_below(worker, task_id)
    if len(tree) > 1:
        # a first pass without waiting, so that the quiet seconds of the tasks overlap
        now = worker.clock.monotonic()
        yield from [ChildDue(name, deadline=now) for name in tree]
    yield from map(ChildDue, tree)


def _below_in(worker: WorkerContext, task_id: str, states: Collection[State]) -> list[str]:
    """Return the tasks below that are in one of `states`, leaves first."""
    # rows are taken as they are, whether they agree with their chain or not: `unproven_below` checks that
    found: list[str] = []
    for name in all_below(worker, task_id):
        try:
            task = worker.ledger.task(name)
        except CorruptRecord:
            # it may be in any state
            found.append(name)
            continue
        if task and task.state in states:
            found.append(name)
    return found


def _is_over(worker: WorkerContext, name: str) -> bool:
    """Return whether no credential of the task can be alive.

    The rows that say so agree with the task's chain.
    """
    try:
        record = worker.ledger.record(name)
    except CorruptRecord:
        return False
    return record is not None and record.task.state not in LIVING | {State.UNVERIFIED} and not is_edited(worker, record)


def _why_below(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return why a task below ends; None where it is ending already."""
    return ended_above(worker, record) if record.task.state is not State.ENDING else None
