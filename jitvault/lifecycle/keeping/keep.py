"""Renew held tasks, many at once, while everything holds.

A batch is two commits, whatever its size: claims and intents before the first request, answers after the last one.
What is renewed is planned by `jitvault.lifecycle.keeping.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, JitvaultError, TargetUnavailable, VaultUnavailable
from jitvault.ledger.claim_clock import now as claim_clock
from jitvault.ledger.kept_tasks import KeptTask, mount_of
from jitvault.ledger.model import LeaseRow, OpState
from jitvault.ledger.task_change import record_after
from jitvault.ledger.upkeep import Begun, Upkeep, record_after_upkeep
from jitvault.lifecycle.keeping.look import to_keep
from jitvault.lifecycle.keeping.plan import LAST_S, Planned, needs_turn, plan_batch
from jitvault.lifecycle.renewal.renew import Renewed, renew_credential
from jitvault.lifecycle.renewal.schedule import renewable_credentials
from jitvault.lifecycle.requests.publish import publish_claimed
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.ttl import next_look
from jitvault.operations import record_answer

ANSWER_S = 2
"""How long an answer is waited for, in seconds: the end of any task in a batch waits until the batch is over."""


def renew_kept(worker: WorkerContext, most: int) -> int:
    """Renew up to so many due tasks, and return how many can be kept.

    A task that is not renewed is left to whole turns. Where the stream or Vault does not answer, kept tasks stay as
    they are, and due. Raises AuditUntrusted where the stream was not read up to when they were due, LedgerUnavailable,
    and whatever else keeps Vault from being asked.
    """
    taken = worker.kept.take_due(worker.now(), most)
    left = {each.task_id for each in taken}
    # what ends by the clock does not wait for the stream
    back = [each for each in taken if not needs_turn(worker, each)]
    failure: JitvaultError | None = None
    renewed: list[KeptTask] = []
    try:
        if back:
            worker = replace(worker, mode=replace(worker.mode, is_scheduled=True))
            planned, back, failure = plan_batch(worker, back)
            renewed, failed = _renew(worker, planned)
            failure = failure or failed
    except AuditUntrusted:
        # a task that is not known may have to end, for which a whole turn needs no stream
        back = [each for each in back if isinstance(each, KeptTask)]
        raise
    finally:
        for each in (*back, *renewed):
            worker.kept.put_back(each)
            left.discard(each.task_id)
        for task_id in left:
            worker.kept.leave(task_id)
            worker.ledger.give_lent_back(task_id)
    if failure is not None:
        raise failure
    return len(renewed)


def _renew(worker: WorkerContext, planned: Sequence[Planned]) -> tuple[list[KeptTask], JitvaultError | None]:
    """Renew tasks; return those that can be kept, and why Vault did not answer for others."""
    if not planned:
        return [], None
    begun_at = claim_clock()
    begun = worker.ledger.begin_renewals([each.intended() for each in planned], worker.now())
    for each in planned:
        if each.kept.task_id not in begun:
            # its tokens left lines, or another process has it
            worker.kept.drop(each.kept.task_id)
    claimed = [_as_begun(each, begun[each.kept.task_id]) for each in planned if each.kept.task_id in begun]
    answers = _send(worker, claimed, begun_at)
    outcomes = [_outcome(worker, each, begun[each.kept.task_id].claim, answers) for each in claimed]
    lost = worker.ledger.keep_up_all([upkeep for upkeep, _ in outcomes]) if outcomes else set()
    _publish(worker, [each for each in claimed if each.kept.task_id not in lost], begun)
    failures = (answers[op.op_id].failure for each in claimed for op in each.ops)
    failure = next((error for error in failures if _says_vault_is_away(error)), None)
    return [kept for _, kept in outcomes if kept is not None and kept.task_id not in lost], failure


def _as_begun(planned: Planned, begun: Begun) -> Planned:
    """Return a task as it is after the event that came before its renewals."""
    if planned.record is None or planned.change is None or begun.written is None:
        return planned
    record = record_after(planned.record, planned.change.rows, begun.written)
    if record is None:
        raise JitvaultError(f"task {planned.kept.task_id}: what was not sent yet cannot be settled")
    return replace(planned, record=record, kept=replace(planned.kept, record=to_keep(record)))


def _publish(worker: WorkerContext, renewed: Sequence[Planned], begun: Mapping[str, Begun]) -> None:
    """Publish the tasks that had an event; one that fails is published by its next whole turn."""
    for each in renewed:
        if each.record is not None and each.publication is not None:
            task_id = each.kept.task_id
            with others_go_on(task_id):
                publish_claimed(worker, each.record, begun[task_id].claim, None, intent=each.publication)


def _send(worker: WorkerContext, begun: Sequence[Planned], begun_at: float) -> dict[str, Renewed]:
    """Send the renewals, tokens first, and return what became of each, by its operation.

    The first one that Vault does not answer stops the batch: what hangs must not delay the others for as long as it
    hangs. A lease that its target refuses, as an agent can bring about for its own, stops nothing.
    """
    sends = [(each, row, op) for each in begun for row, op in zip(each.rows, each.ops, strict=True)]
    found: dict[str, Renewed] = {}
    is_stopped = False
    # a lease's renewal reaches its target, which may hang
    for each, row, op in sorted(sends, key=lambda send: isinstance(send[1], LeaseRow)):
        if is_stopped or worker.is_late() or claim_clock() - begun_at > LAST_S:
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
    worker: WorkerContext, planned: Planned, claim: int, answers: Mapping[str, Renewed]
) -> tuple[Upkeep, KeptTask | None]:
    """Return what to write of a task, and what to keep of it; nothing of one that needs a whole turn now.

    What was not sent stays due.
    """
    results = [answers[op.op_id] for op in planned.ops]
    rows = tuple(row for result in results for row in (result.row, result.op))
    upkeep = Upkeep(planned.kept.task_id, claim, rows, gives_back=True)
    if any(result.over or (result.failure and not _was_not_sent(result)) for result in results):
        return upkeep, None
    renewed = record_after_upkeep(planned.kept.record, upkeep)
    due_at = next_look(planned.kept.look_at, *(row.renew_at for row in renewable_credentials(renewed)))
    upkeep = replace(upkeep, fields={"due_at": due_at}, stays=planned.kept.can_wait)
    return upkeep, replace(planned.kept, record=record_after_upkeep(renewed, upkeep))


def _was_not_sent(result: Renewed) -> bool:
    """Return whether Vault did nothing about a renewal, because it could not be asked."""
    return result.op.state is OpState.ABANDONED and _says_vault_is_away(result.failure)


def _says_vault_is_away(error: JitvaultError | None) -> bool:
    return isinstance(error, VaultUnavailable) and not isinstance(error, TargetUnavailable)
