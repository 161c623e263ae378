"""Look at a held task as a whole turn does, for renewals that are sent many at once.

A look verifies the task and asks everything that a whole turn (`jitvault.lifecycle.advance`) asks, and does nothing
about it: whatever has to be done is left to a whole turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.ledger.kept_tasks import NEVER, KeptTask
from jitvault.ledger.model import OpState, TaskRecord
from jitvault.lifecycle.end_reasons import unwrapped, why_end
from jitvault.lifecycle.read_for_turn import check_tripwires
from jitvault.lifecycle.record.history import last_decision
from jitvault.lifecycle.record.integrity import problems_of, verify
from jitvault.lifecycle.renewal.extend import is_extension_asked
from jitvault.lifecycle.renewal.schedule import next_heartbeat_deadline
from jitvault.lifecycle.requests.publish import shows
from jitvault.model.event_bodies import Extended, said
from jitvault.model.states import DELIVERED_STATES, LIVE_STATES, State, Verdict
from jitvault.model.ttl import next_look


@dataclass(frozen=True, slots=True)
class Looked:
    """A task that may go on: what to keep of it, and its record.

    `is_shown` says whether its published copy shows all of the record.
    """

    kept: KeptTask
    record: TaskRecord
    is_shown: bool


def look(worker: WorkerContext, task_id: str) -> Looked | None:
    """Verify a task and ask whether it may go on; return None where it needs a whole turn.

    Raises SecurityFinding where its records disagree.
    """
    drops = worker.facts.drops
    verified = verify(worker, task_id)
    record = verified.record
    # an agent can leave so many lines that reading them takes long
    if record.task.state not in DELIVERED_STATES or worker.ledger.is_long(record):
        return None
    record, trips = check_tripwires(worker, record)
    if why_end(worker, record, trips) is not None:
        return None
    if record.task.state is State.ISSUED and unwrapped(worker, record):
        return None
    if is_extension_asked(worker, record):
        return None
    kept = _kept(worker, record, drops)
    return None if kept is None else Looked(kept, record, shows(worker, verified.published, record))


def verified_task(worker: WorkerContext, task_id: str) -> KeptTask | None:
    """Verify a task's records, and return what to keep of it; None where it needs a whole turn.

    The documents about it are read by its next look. Raises SecurityFinding where its records disagree.
    """
    record = verify(worker, task_id).record
    # one that is not unwrapped yet may be by now
    if record.task.state is not State.ACTIVE or worker.ledger.is_long(record):
        return None
    # lines that were read before a start may not have been looked at
    record, trips = check_tripwires(worker, record)
    return None if trips else _kept(worker, record, NEVER)


def kept_after_turn(worker: WorkerContext, record: TaskRecord, drops: int) -> KeptTask | None:
    """Return what to keep of a task after its whole turn; None for a task that needs whole turns.

    `drops` is how often facts had been dropped when the turn began.
    """
    kept = _kept(worker, record, drops)
    return kept if kept is not None and not problems_of(worker, record) else None


def _kept(worker: WorkerContext, record: TaskRecord, drops: int) -> KeptTask | None:
    """Return what to keep of a task that may go on.

    Needing whole turns are tasks that rest on approvals, whose decisions are read anew each time, tasks that were
    delegated, and whatever an act is open for.
    """
    task = record.task
    if task.state not in LIVE_STATES or task.is_being_replaced or task.parent is not None or record.findings:
        return None
    extensions = [body for _, body in said(record.events, Extended)]
    decided = last_decision(record)
    obligations = [decided.policy.obligations, *(each.decision.obligations for each in extensions)]
    if any(each.approvals for each in obligations) or _has_open_act(record):
        return None
    grant = record.grants[-1]
    unclaimed = grant.unwrap_deadline if task.state is State.ISSUED else None
    return KeptTask(
        record=to_keep(record),
        agent_groups=tuple(decided.agent_groups),
        window_s=extensions[-1].extension.window_s if extensions else None,
        look_at=next_look(task.ends_at, unclaimed, next_heartbeat_deadline(worker, record)),
        drops=drops,
    )


def to_keep(record: TaskRecord) -> TaskRecord:
    """Return a record without its events, checks, decisions and operations, which take most of the memory."""
    return replace(record, events=(), checks=(), decisions=(), operations=())


def _has_open_act(record: TaskRecord) -> bool:
    """Return whether an act's outcome is open, or a replaced token or its leases are not proven dead."""
    is_open = (OpState.INTENDED, OpState.UNKNOWN)
    current = record.grants[-1].grant_id
    if any(op.state in is_open for op in record.operations):
        return True
    if not all(grant.settled for grant in record.grants[:-1]):
        return True
    return any(lease.verdict is Verdict.LIVE and lease.grant_id != current for lease in record.leases)
