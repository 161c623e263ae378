"""Plan which due tasks are renewed now, many at once.

Each renewal asks what a whole turn asks (`jitvault.lifecycle.end_reasons.why_end`). What Vault says is known by facts,
which the audit stream keeps true. Policy is asked each time. Everything else has not changed since the task was looked
at. It is looked at again (`jitvault.lifecycle.keeping.look`) before its event chain says when its token can expire
next. Where anything is in the way, the task is left to a whole turn, which alone may end it. So is the last renewal
before the deadline.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.paths import work_item_for
from jitvault.errors import JitvaultError, TargetUnavailable, VaultUnavailable
from jitvault.ledger.claim_clock import now as claim_clock
from jitvault.ledger.kept_tasks import KeptTask, OfferedTask
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.ledger.upkeep import Intended
from jitvault.lifecycle.decision.drift import drift_besides_request
from jitvault.lifecycle.decision.evaluate import why_not_renewed
from jitvault.lifecycle.decision.still_approved import why_not_agent
from jitvault.lifecycle.keeping.look import look, verified_task
from jitvault.lifecycle.renewal.due_turn import due_turn, read_up_to
from jitvault.lifecycle.renewal.renew import due_credentials, expiry_change, new_operations, outlives_chain
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.requests.publish import announced_publication
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement
from jitvault.model.ttl import needs_renewal

LAST_S = 2.0
"""After so many seconds nothing more is planned, and after so many of a batch's claims nothing more is sent."""

Due = KeptTask | OfferedTask


@dataclass(frozen=True, slots=True)
class Planned:
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


def needs_turn(worker: WorkerContext, due: Due) -> bool:
    """Return whether a task ends, or has to give a sign of life, by the clock."""
    return isinstance(due, KeptTask) and due.look_at is not None and worker.now() >= due.look_at


def plan_batch(worker: WorkerContext, due: Sequence[Due]) -> tuple[list[Planned], list[Due], JitvaultError | None]:
    """Return the tasks that may go on, those that had no turn, and why Vault could not be asked about one.

    Where Vault is slow, those in hand must not wait for each other: nobody else renews them meanwhile.
    """
    due_at = max(each.due_at for each in due if each.due_at is not None)
    found: list[Planned] = []
    with worker.facts.turn():
        read_up_to(worker, due_at)
        begun_at = claim_clock()
        with due_turn(worker, due_at):
            if worker.ledger.freeze() is not None:
                return [], [], None
            in_force = freezes(worker)
            doubtful = _doubtful(worker, due)
            for n, each in enumerate(due):
                if claim_clock() - begun_at > LAST_S:
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
) -> list[Planned]:
    """Return the task as it is to be renewed, nothing where it needs a whole turn."""
    if due.task_id in doubtful:
        return _plan_after_look(worker, due.task_id)
    if isinstance(due, OfferedTask):
        verified = verified_task(worker, due.task_id)
        if verified is None or needs_turn(worker, verified) or worker.kept.is_avoided(verified, worker.now()):
            return []
        if timedelta(seconds=verified.record.grants[-1].step_s) > worker.rolling_step:
            # by a longer step of another worker, its last renewal is longer ago than lines were asked for
            return _plan_after_look(worker, due.task_id)
        due = verified
    rows, seconds = _due_credentials(worker, due)
    ops = new_operations(worker, due.record, rows)
    if rows and outlives_chain(worker, due.record, ops, seconds):
        return _plan_after_look(worker, due.task_id)
    if not rows or worker.kept.had_news(due.task_id) or not _may_go_on(worker, due, in_force):
        return []
    return [Planned(due, rows, ops, seconds)]


def _plan_after_look(worker: WorkerContext, task_id: str) -> list[Planned]:
    """Look at the task, and return it as it is to be renewed."""
    looked = look(worker, task_id)
    if looked is None or worker.kept.had_news(task_id) or worker.kept.is_avoided(looked.kept, worker.now()):
        return []
    kept, record = looked.kept, looked.record
    rows, seconds = _due_credentials(worker, kept)
    if not rows or needs_turn(worker, kept):
        return []
    ops = new_operations(worker, record, rows)
    planned = Planned(kept, rows, ops, seconds, record)
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
