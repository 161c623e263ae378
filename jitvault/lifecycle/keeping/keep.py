"""Renew held tasks, many at once, while everything holds.

Each renewal asks what a whole turn asks (`jitvault.lifecycle.end_reasons.why_end`). What Vault says is known by facts,
which the audit stream keeps true. Policy is asked each time. Everything else has not changed since the task was looked
at. It is looked at again (`jitvault.lifecycle.keeping.look`) before its event chain says when its token can expire
next. Where anything is in the way, the task is left to a whole turn, which alone may end it. So is the last renewal
before the deadline.

A batch is two commits, whatever its size: claims and intents before the first request, answers after the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.documents.paths import work_item_for
from jitvault.errors import AuditUntrusted, JitvaultError, TargetUnavailable, VaultUnavailable
from jitvault.ledger.claim_clock import now as claim_clock
from jitvault.ledger.kept_tasks import KeptTask, OfferedTask, mount_of
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, OpState, TaskRecord
from jitvault.ledger.task_change import record_after
from jitvault.ledger.upkeep import Begun, Intended, Upkeep, record_after_upkeep
from jitvault.lifecycle.decision.drift import drift_besides_request
from jitvault.lifecycle.decision.evaluate import why_not_renewed
from jitvault.lifecycle.decision.still_approved import why_not_agent
from jitvault.lifecycle.keeping.look import look, to_keep, verified_task
from jitvault.lifecycle.renewal.due_turn import due_turn, read_up_to
from jitvault.lifecycle.renewal.renew import (
    Renewed,
    due_credentials,
    expiry_change,
    new_operations,
    outlives_chain,
    renew_credential,
)
from jitvault.lifecycle.renewal.schedule import renewable_credentials
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.requests.publish import announced_publication, publish_claimed
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement
from jitvault.model.ttl import needs_renewal, next_look
from jitvault.operations import record_answer

ANSWER_S = 2
"""How long an answer is waited for, in seconds: the end of any task in a batch waits until the batch is over."""
_LAST_S = 2.0
"""After so many seconds nothing more is planned, and after so many of a batch's claims nothing more is sent."""

Due = KeptTask | OfferedTask


@dataclass(frozen=True, slots=True)
class _Planned:
    """A task whose credentials are renewed now, each by its operation.

    `record` is the whole of it where it was looked at. `change` is the event that says when its token can expire next,
    and `publication` the intent to publish the task, where its copy does not show all.
    """

    kept: KeptTask
    rows: Sequence[GrantRow | LeaseRow]
    ops: tuple[OperationRow, ...]
    seconds: int
    record: TaskRecord | None = None
    change: Change | None = None
    publication: OperationRow | None = None

    def intended(self) -> Intended:
        """Return what has to be committed before the first renewal is sent."""
        published = (self.publication,) if self.publication is not None else ()
        if self.change is None:
            return Intended(self.kept.record.task, (*self.ops, *published))
        change = replace(self.change, rows=(*self.change.rows, *published))
        return Intended(self.kept.record.task, self.ops, change)


def renew_kept(worker: WorkerContext, most: int) -> int:
    """Renew up to so many due tasks, and return how many can be kept.

    A task that is not renewed is left to whole turns. Where the stream or Vault does not answer, kept tasks stay as
    they are, and due. Raises AuditUntrusted where the stream was not read up to when they were due, LedgerUnavailable,
    and whatever else keeps Vault from being asked.
    """
    taken = worker.kept.take_due(worker.now(), most)
    left = {each.task_id for each in taken}
    # what ends by the clock does not wait for the stream
    back = [each for each in taken if not _needs_turn(worker, each)]
    failure: JitvaultError | None = None
    renewed: list[KeptTask] = []
    try:
        if back:
            worker = replace(worker, mode=replace(worker.mode, is_scheduled=True))
            planned, back, failure = _planned(worker, back)
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


def _needs_turn(worker: WorkerContext, due: Due) -> bool:
    """Return whether a task ends, or has to give a sign of life, by the clock."""
    return isinstance(due, KeptTask) and due.look_at is not None and worker.now() >= due.look_at


def _planned(worker: WorkerContext, due: Sequence[Due]) -> tuple[list[_Planned], list[Due], JitvaultError | None]:
    """Return the tasks that may go on, those that had no turn, and why Vault could not be asked about one.

    Where Vault is slow, those in hand must not wait for each other: nobody else renews them meanwhile.
    """
    due_at = max(each.due_at for each in due if each.due_at is not None)
    found: list[_Planned] = []
    with worker.facts.turn():
        read_up_to(worker, due_at)
        begun_at = claim_clock()
        with due_turn(worker, due_at):
            if worker.ledger.freeze() is not None:
                return [], [], None
            in_force = freezes(worker)
            doubtful = _doubtful(worker, due)
            for n, each in enumerate(due):
                if claim_clock() - begun_at > _LAST_S:
                    return found, list(due[n:]), None
                failure = None
                with others_go_on(each.task_id):
                    try:
                        found += _plan(worker, each, in_force, doubtful)
                    except TargetUnavailable:
                        continue
                    except VaultUnavailable as error:
                        failure = error
                if failure is not None:
                    # this one is left to a whole turn: its agent may have made its documents slow to read
                    return found, list(due[n + 1 :]), failure
    return found, [], None


def _doubtful(worker: WorkerContext, due: Sequence[Due]) -> set[str]:
    """Return the tasks of which there was news, here or by lines that another process may have read.

    Lines from before its last renewal were seen then, and a token that lives was renewed within a step.
    """
    news = {each.task_id for each in due if isinstance(each, OfferedTask) and worker.kept.needs_look(each.task_id)}
    missed = {each.task_id for each in due if not isinstance(each, KeptTask) or each.drops != worker.facts.drops}
    written = worker.ledger.written_documents(since=worker.now() - worker.rolling_step) if missed else ()
    return news | missed & {item.task_id for one in written if (item := work_item_for(one.path)) is not None}


def _plan(
    worker: WorkerContext, due: Due, in_force: Sequence[FreezeStatement], doubtful: Collection[str]
) -> list[_Planned]:
    """Return the task as it is to be renewed, nothing where it needs a whole turn."""
    if due.task_id in doubtful:
        return _plan_after_look(worker, due.task_id)
    if isinstance(due, OfferedTask):
        verified = verified_task(worker, due.task_id)
        if verified is None or _needs_turn(worker, verified) or worker.kept.is_avoided(verified, worker.now()):
            return []
        due = verified
    rows, seconds = _due_credentials(worker, due)
    ops = new_operations(worker, due.record, rows)
    if rows and outlives_chain(worker, due.record, ops, seconds):
        return _plan_after_look(worker, due.task_id)
    if not rows or worker.kept.had_news(due.task_id) or not _may_go_on(worker, due, in_force):
        return []
    return [_Planned(due, rows, ops, seconds)]


def _plan_after_look(worker: WorkerContext, task_id: str) -> list[_Planned]:
    """Look at the task, and return it as it is to be renewed."""
    looked = look(worker, task_id)
    if looked is None or worker.kept.had_news(task_id) or worker.kept.is_avoided(looked.kept, worker.now()):
        return []
    kept, record = looked.kept, looked.record
    rows, seconds = _due_credentials(worker, kept)
    if not rows or _needs_turn(worker, kept):
        return []
    ops = new_operations(worker, record, rows)
    planned = _Planned(kept, rows, ops, seconds, record)
    if outlives_chain(worker, record, ops, seconds):
        planned = replace(planned, change=expiry_change(worker, record, ops, seconds))
    elif looked.is_shown:
        return [planned]
    return [replace(planned, publication=announced_publication(worker, task_id))]


def _due_credentials(worker: WorkerContext, kept: KeptTask) -> tuple[Sequence[GrantRow | LeaseRow], int]:
    """Return what to renew of a task, and by how many seconds.

    The result is nothing for the last time before its deadline. The chain says when a token expires that is renewed for
    the last time, which a whole turn writes.
    """
    now, ends_at = worker.now(), kept.record.task.ends_at
    rows, seconds = due_credentials(worker, kept.record, now)
    is_last = ends_at is None or not seconds or not needs_renewal(now, ends_at, seconds)
    return ([], 0) if is_last else (rows, seconds)


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


def _renew(worker: WorkerContext, planned: Sequence[_Planned]) -> tuple[list[KeptTask], JitvaultError | None]:
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


def _as_begun(planned: _Planned, begun: Begun) -> _Planned:
    """Return a task as it is after the event that came before its renewals."""
    if planned.record is None or planned.change is None or begun.written is None:
        return planned
    record = record_after(planned.record, planned.change.rows, begun.written)
    if record is None:
        raise JitvaultError(f"task {planned.kept.task_id}: what was not sent yet cannot be settled")
    return replace(planned, record=record, kept=replace(planned.kept, record=to_keep(record)))


def _publish(worker: WorkerContext, renewed: Sequence[_Planned], begun: Mapping[str, Begun]) -> None:
    """Publish the tasks that had an event; one that fails is published by its next whole turn."""
    for each in renewed:
        if each.record is not None and each.publication is not None:
            task_id = each.kept.task_id
            with others_go_on(task_id):
                publish_claimed(worker, each.record, begun[task_id].claim, None, intent=each.publication)


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
    worker: WorkerContext, planned: _Planned, claim: int, answers: Mapping[str, Renewed]
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
