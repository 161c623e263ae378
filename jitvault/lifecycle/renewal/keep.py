"""Renew kept tasks, many at once, while everything holds.

Each renewal asks what a whole turn asks (`jitvault.lifecycle.end_reasons.why_end`). What Vault says is known by facts,
which the audit stream keeps true. Policy is asked each time. Everything else has not changed since the whole turn
before. Where anything is in the way, the task is left to a whole turn, which alone may end it. So is a task whose event
chain does not allow for the next expiry yet, and the last renewal before the deadline.

A batch is two commits, whatever its size: claims and intents before the first request, answers after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.errors import TargetUnavailable
from jitvault.ledger.claim_clock import now as claim_clock
from jitvault.ledger.kept_tasks import KeptTask, mount_of
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, OpState, TaskRecord
from jitvault.ledger.upkeep import Intended, Upkeep, record_after_upkeep
from jitvault.lifecycle.decision.drift import drift_besides_request
from jitvault.lifecycle.decision.evaluate import why_not_renewed
from jitvault.lifecycle.decision.still_approved import why_not_agent
from jitvault.lifecycle.record.history import last_decision
from jitvault.lifecycle.record.integrity import problems_of
from jitvault.lifecycle.record.renewals import latest_expiry
from jitvault.lifecycle.renewal.due_turn import due_turn, read_up_to
from jitvault.lifecycle.renewal.renew import Renewed, due_credentials, new_operations, renew_credential
from jitvault.lifecycle.renewal.schedule import next_heartbeat_deadline, renewable_credentials
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.event_bodies import Extended, said
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement
from jitvault.model.states import LIVE_STATES, State, Verdict
from jitvault.model.ttl import needs_renewal, next_look
from jitvault.operations import record_answer

ANSWER_S = 2
"""How long an answer is waited for, in seconds: the end of any task in a batch waits until the batch is over."""
_LAST_S = 2.0
"""After so many seconds nothing more is planned, and after so many of a batch's claims nothing more is sent."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A task whose credentials are renewed now, each by its operation."""

    kept: KeptTask
    rows: Sequence[GrantRow | LeaseRow]
    ops: tuple[OperationRow, ...]
    seconds: int


def kept_after_turn(worker: WorkerContext, record: TaskRecord, drops: int) -> KeptTask | None:
    """Return what to keep of a task after its whole turn; None for a task that needs whole turns.

    `drops` is how often facts had been dropped when the turn began. Needing whole turns are tasks that rest on
    approvals, whose decisions are read anew each time, tasks that were delegated, and whatever an act is open for.
    """
    task = record.task
    if task.state not in LIVE_STATES or task.is_being_replaced or task.parent is not None or record.findings:
        return None
    extensions = [body for _, body in said(record.events, Extended)]
    decided = last_decision(record)
    obligations = [decided.policy.obligations, *(each.decision.obligations for each in extensions)]
    if any(each.approvals for each in obligations) or _has_open_act(record) or problems_of(worker, record):
        return None
    grant = record.grants[-1]
    unclaimed = grant.unwrap_deadline if task.state is State.ISSUED else None
    return KeptTask(
        record=replace(record, events=(), checks=(), decisions=(), operations=()),
        agent_groups=tuple(decided.agent_groups),
        window_s=extensions[-1].extension.window_s if extensions else None,
        look_at=next_look(task.ends_at, unclaimed, next_heartbeat_deadline(worker, record)),
        drops=drops,
    )


def _has_open_act(record: TaskRecord) -> bool:
    """Return whether an act's outcome is open, or a replaced token or its leases are not proven dead."""
    is_open = (OpState.INTENDED, OpState.UNKNOWN)
    current = record.grants[-1].grant_id
    if any(op.state in is_open for op in record.operations):
        return True
    if not all(grant.settled for grant in record.grants[:-1]):
        return True
    return any(lease.verdict is Verdict.LIVE and lease.grant_id != current for lease in record.leases)


def renew_kept(worker: WorkerContext, most: int) -> int:
    """Renew up to so many kept tasks that are due, and return how many can be kept.

    A task that is not renewed is left to whole turns. Raises AuditUntrusted where the stream was not read up to when
    they were due, LedgerUnavailable, and whatever else keeps Vault from being asked.
    """
    taken = worker.kept.take_due(worker.now(), most)
    left = {kept.task_id for kept in taken}
    try:
        renewed = _renew(worker, taken) if taken else []
        for kept in renewed:
            worker.kept.put_back(kept)
            left.discard(kept.task_id)
    finally:
        for task_id in left:
            worker.kept.leave(task_id)
    return len(renewed)


def _renew(worker: WorkerContext, taken: Sequence[KeptTask]) -> list[KeptTask]:
    """Renew tasks; return those that can be kept, as they are now."""
    due_at = max(kept.due_at for kept in taken if kept.due_at is not None)
    worker = replace(worker, mode=replace(worker.mode, is_scheduled=True))
    with worker.facts.turn():
        read_up_to(worker, due_at)
        with due_turn(worker, due_at):
            planned, after = _planned(worker, taken)
    begun_at = claim_clock()
    intended = [Intended(each.kept.record.task, each.ops) for each in planned]
    claims = worker.ledger.begin_renewals(intended) if intended else {}
    begun = [each for each in planned if each.kept.task_id in claims]
    answers = _send(worker, begun, begun_at)
    upkeeps: list[Upkeep] = []
    for each in begun:
        upkeep, kept = _outcome(worker, each, claims[each.kept.task_id], answers)
        upkeeps.append(upkeep)
        after += [kept] if kept is not None else []
    lost = worker.ledger.keep_up_all(upkeeps) if upkeeps else set()
    return [kept for kept in after if kept.task_id not in lost]


def _planned(worker: WorkerContext, taken: Sequence[KeptTask]) -> tuple[list[_Planned], list[KeptTask]]:
    """Return the tasks that may go on without a whole turn, and those that had no turn in time.

    Where Vault is slow, those in hand must not wait for each other: nobody else renews them meanwhile.
    """
    begun_at = claim_clock()
    if worker.ledger.freeze() is not None:
        return [], []
    in_force = freezes(worker)
    found: list[_Planned] = []
    for n, kept in enumerate(taken):
        if claim_clock() - begun_at > _LAST_S:
            return found, list(taken[n:])
        with others_go_on(kept.task_id):
            planned = _plan(worker, kept, in_force)
            found += [planned] if planned is not None else []
    return found, []


def _plan(worker: WorkerContext, kept: KeptTask, in_force: Sequence[FreezeStatement]) -> _Planned | None:
    record, now = kept.record, worker.now()
    if kept.drops != worker.facts.drops or worker.kept.had_news(kept.task_id):
        return None
    if kept.look_at is not None and now >= kept.look_at:
        return None
    rows, seconds = due_credentials(worker, record, now)
    expires_at = record.grants[-1].expires_at
    if not rows or not seconds or expires_at is None or expires_at < latest_expiry(worker, seconds):
        return None
    if record.task.ends_at is None or not needs_renewal(now, record.task.ends_at, seconds):
        # the chain says when a token expires that is renewed for the last time
        return None
    if not _may_go_on(worker, kept, in_force):
        return None
    return _Planned(kept, rows, new_operations(worker, record, rows), seconds)


def _may_go_on(worker: WorkerContext, kept: KeptTask, in_force: Sequence[FreezeStatement]) -> bool:
    """Return whether nothing that can change without a line about the task speaks against its renewal."""
    revision = Revision.of(kept.record.revision.body)
    content = revision.content
    requester = worker.identity.by_id(content.requester.entity)
    if requester is None or requester.disabled or requester.name != content.requester.name:
        return False
    if any(freeze.covers(content) for freeze in in_force):
        return False
    return (
        why_not_agent(worker, content.agent, kept.agent_groups) is None
        and why_not_renewed(worker, revision, kept.window_s) is None
        and drift_besides_request(worker, kept.record) is None
    )


def _send(worker: WorkerContext, begun: Sequence[_Planned], begun_at: float) -> dict[str, Renewed]:
    """Send the renewals, tokens first, and return what became of each, by its operation.

    The first one that Vault does not answer stops the batch: what hangs must not delay the others for as long as it
    hangs. A lease that its target refuses, as an agent can bring about for its own, stops nothing.
    """
    sends = [(each, row, op) for each in begun for row, op in zip(each.rows, each.ops, strict=True)]
    found: dict[str, Renewed] = {}
    is_stopped = False
    # a lease's renewal reaches its target, which may hang
    for each, row, op in sorted(sends, key=lambda send: isinstance(send[1], LeaseRow)):
        if is_stopped or worker.is_late() or claim_clock() - begun_at > _LAST_S:
            found[op.op_id] = Renewed(row, record_answer(worker, op, OpState.ABANDONED, "not sent"))
            continue
        found[op.op_id] = renewed = renew_credential(worker, each.kept.record, row, op, each.seconds)
        if isinstance(renewed.failure, TargetUnavailable):
            worker.kept.avoid(each.kept.task_id, worker.now())
            continue
        is_stopped = renewed.failure is not None or not renewed.is_answered
        if isinstance(row, LeaseRow) and not renewed.is_answered:
            worker.kept.avoid(mount_of(row), worker.now())
    return found


def _outcome(
    worker: WorkerContext, planned: _Planned, claim: int, answers: dict[str, Renewed]
) -> tuple[Upkeep, KeptTask | None]:
    """Return what to write of a task, and what to keep of it; nothing of one that needs a whole turn now.

    What was not sent stays due.
    """
    results = [answers[op.op_id] for op in planned.ops]
    rows = tuple(row for result in results for row in (result.row, result.op))
    upkeep = Upkeep(planned.kept.task_id, claim, rows, gives_back=True)
    if any(result.over or result.failure is not None for result in results):
        return upkeep, None
    renewed = record_after_upkeep(planned.kept.record, upkeep)
    due_at = next_look(planned.kept.look_at, *(row.renew_at for row in renewable_credentials(renewed)))
    upkeep = replace(upkeep, fields={"due_at": due_at})
    return upkeep, replace(planned.kept, record=record_after_upkeep(renewed, upkeep))
