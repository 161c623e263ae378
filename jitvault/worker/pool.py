"""The hands that look after tasks: threads, each with its own connections to Vault, that take from one agenda."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from threading import Condition

from jitvault.context import WorkerContext
from jitvault.errors import (
    AuditUntrusted,
    JitvaultError,
    LedgerUnavailable,
    NotFound,
    OutcomeUnknown,
    TargetUnavailable,
    VaultNotServing,
    VaultUnavailable,
    WaitTimedOut,
)
from jitvault.ledger.model import TaskRecord, TaskRow, Turn
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.confirmation.quiet import QUIET
from jitvault.lifecycle.record.receipt import unproven_reason
from jitvault.model.states import BEFORE_GRANT, OVER, State
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, TaskQueue, Urgency

PATIENCE_S = 10.0
"""For one task at a time, with an act that is under way then well within the claim's 30 s."""
_LOOK_S = 0.5
_UNGRANTED = BEFORE_GRANT | {State.ISSUING}
# so much of a rolling step may pass before a renewal that failed is tried again: it has several tries
_PART_OF_STEP = 8
# what is due so soon is kept here until then: nobody has to find it again
_SOON = 2 * QUIET


class Pool:
    """Takes what is wanted and advances it. `hire` gives a thread its own Worker."""

    def __init__(
        self,
        supervisor: Supervisor,
        hire: Callable[[], WorkerContext],
        agenda: TaskQueue,
        health: Health,
        log: Log,
        give_back: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`give_back`: let other workers have a due task that was taken and cannot be looked after here."""
        self._supervisor, self._hire, self._health, self._log = supervisor, hire, health, log
        self._agenda, self._changed, self._give_back = agenda, Condition(), give_back
        # the tasks whose end failed at the last look, each with what was told of it
        self._resisting: dict[str, str] = {}

    def want(self, job: Job, *, news: bool = False) -> bool:
        """Have a task looked after, at once where there is `news` about it; gives whether it waits for a hand alone."""
        with self._changed:
            ready = self._agenda.want(job, time.monotonic(), news=news)
            self._changed.notify()
        return ready

    def room(self, *urgencies: Urgency) -> int:
        """How many more tasks of these urgencies are taken ahead."""
        with self._changed:
            return self._agenda.room(time.monotonic(), *urgencies)

    def waiting_of(self, author: str) -> int:
        """How many tasks wait because of this author's documents."""
        with self._changed:
            return self._agenda.waiting_of(author)

    def seen_to(self) -> set[str]:
        """The tasks that nothing is added to by their being due."""
        with self._changed:
            return self._agenda.seen_to(time.monotonic())

    def start(self) -> None:
        for n in range(self._agenda.threads):
            name = f"advance-{n + 1}"
            self._supervisor.start(name, _WorkerThread(self, name).serve)

    def _tell_resisting(self, file: TaskRecord) -> None:
        """Tell why an end goes on failing, each reason once; what the next look mends is not told."""
        task_id, why = file.task.task_id, unproven_reason(file)
        with self._changed:
            told = self._resisting.pop(task_id, None)
            if why is not None:
                self._resisting[task_id] = "" if told is None else why
        if why is not None and told not in (None, why):
            self._log.warning("the end of a task is not proven yet", task=task_id, why=why)

    def measure(self) -> None:
        """Tell the health how much is waited for, and forget what is long over."""
        with self._changed:
            now = time.monotonic()
            self._agenda.forget_old(now)
            self._health.set("tasks_waiting", self._agenda.waiting)
            self._health.set("tasks_in_hand", self._agenda.running())
            self._health.set("tasks_hanging", self._agenda.hanging(now))
            self._health.set("tasks_at_once", int(self._agenda.limit))


class _WorkerThread:
    """One thread of the pool."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool, self._name = pool, name
        self._worker: WorkerContext | None = None

    def serve(self) -> None:
        """Raises LedgerUnavailable: without the ledger nothing is done for anybody."""
        pool = self._pool
        while (job := self._next()) is not None:
            pool._supervisor.beat(self._name)
            try:
                self._look_after(job)
            except LedgerUnavailable:
                raise
            except JitvaultError as error:
                self._failed(job, error)
            except Exception as error:  # noqa: BLE001 - a task that nobody can read must not stop the others
                self._failed(job, JitvaultError(f"unexpected {type(error).__name__}"))

    def _next(self) -> Job | None:
        """The next job, once there is one; None when the worker ends."""
        pool = self._pool
        with pool._changed:
            while not pool._supervisor.stopping.is_set():
                pool._supervisor.beat(self._name)
                now = time.monotonic()
                if (job := pool._agenda.take(now)) is not None:
                    return job
                pool._changed.wait(pool._agenda.wait_s(now, _LOOK_S))
        return None

    def _look_after(self, job: Job) -> None:
        pool = self._pool
        worker = self._worker = self._worker or pool._hire()
        before = worker.ledger.task(job.task_id)
        if before is not None and (turn := self._turn(job, before, worker)) is not Turn.OURS:
            self._leave(job, turn)
            return
        if not job.if_due:
            # there is news of it: all of it is read now
            worker = replace(worker, shared=None)
        patience_s = 0.0 if job.hurry else PATIENCE_S
        file = advance(worker, job.task_id, hint=job.hint, deadline=worker.clock.monotonic() + patience_s)
        after = file.task
        if before is None or before.state is not after.state:
            pool._health.count("transitions", state=after.state.value)
            pool._log.info("task", task=after.task_id, state=after.state.value, **_given(end_reason=after.end_reason))
        pool._tell_resisting(file)
        self._done(job, before, after, worker)

    def _turn(self, job: Job, task: TaskRow, worker: WorkerContext) -> Turn:
        """Whose turn the task is. Another's is not waited for: it may last as long as a target hangs."""
        # the run before saw the wish, while its line was still on its way; or another worker was first
        granted = job.to_grant and task.state not in _UNGRANTED
        if granted or (job.if_due and not _is_due(task, worker)):
            worker.ledger.give_back(job.task_id)
            return Turn.OVER
        return worker.ledger.take(job.task_id, since=job.since)

    def _leave(self, job: Job, turn: Turn) -> None:
        pool = self._pool
        with pool._changed:
            # another tells it, or has told it
            pool._resisting.pop(job.task_id, None)
            if turn is Turn.ANOTHERS:
                pool._agenda.anothers(job, time.monotonic())
            else:
                pool._agenda.done(job, time.monotonic())
            pool._changed.notify_all()

    def _done(self, job: Job, before: TaskRow | None, after: TaskRow, worker: WorkerContext) -> None:
        pool, due, soon_s = self._pool, _is_due(after, worker), _soon_s(after, worker)
        pool._health.count("advanced")
        with pool._changed:
            now, agenda = time.monotonic(), pool._agenda
            agenda.taken()
            moved = before is None or (before.version, before.due_at) != (after.version, after.due_at)
            if job.hurry and after.state not in OVER:
                agenda.done(job, now, again_in=0.0)
            elif due and after.state is State.ENDING and moved:
                # only time is missing, mostly: the quiet second passes while others are looked after
                agenda.done(job, now, again_in=QUIET.total_seconds())
            elif soon_s is not None:
                agenda.done(replace(job, if_due=True), now, again_in=soon_s)
            elif due:
                agenda.failed(job, now, longest_s=_longest_s(worker))
            else:
                agenda.done(job, now)
            pool._changed.notify_all()

    def _failed(self, job: Job, error: JitvaultError) -> None:
        pool, worker = self._pool, self._worker
        pool._health.count("failures", kind=type(error).__name__)
        # where it was taken and nothing came of it, others may be able to
        pool._give_back(job.task_id)
        # a target that does not answer says nothing about Vault
        of_vault = isinstance(error, VaultUnavailable) and not isinstance(error, TargetUnavailable)
        lost = of_vault and not isinstance(error, OutcomeUnknown)
        known = worker is None or worker.ledger.task(job.task_id) is not None
        retried = known or isinstance(error, VaultUnavailable | AuditUntrusted)
        with pool._changed:
            if of_vault:
                pool._agenda.refused()
            now = time.monotonic()
            if isinstance(error, VaultNotServing):
                pool._agenda.shut(now)
            longest_s = _longest_s(worker) if worker else PATIENCE_S
            pause_s = pool._agenda.failed(job, now, longest_s=longest_s, forget=not retried)
            pool._changed.notify_all()
        if lost:
            # another node may be the active one by now: the next job finds it
            self._worker = None
        hurried = job.hurry and isinstance(error, WaitTimedOut)
        # anybody can write thousands of documents that begin nothing: they are counted
        if not hurried and (known or not isinstance(error, NotFound)):
            again = f"again in {pause_s:.0f} s" if retried else "not again before there is news of it"
            pool._log.warning("task could not be looked after", task=job.task_id, error=str(error), then=again)


def _is_due(task: TaskRow, worker: WorkerContext) -> bool:
    return task.due_at is not None and task.due_at <= worker.now() and task.state not in OVER


def _soon_s(task: TaskRow, worker: WorkerContext) -> float | None:
    """In how many seconds the task is due, where that is soon."""
    left = task.due_at - worker.now() if task.due_at is not None and task.state not in OVER else None
    return left / timedelta(seconds=1) if left is not None and timedelta(0) < left <= _SOON else None


def _longest_s(worker: WorkerContext) -> float:
    return max(1.0, min(PATIENCE_S, worker.rolling_step.total_seconds() / _PART_OF_STEP))


def _given(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}
