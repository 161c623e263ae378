"""The threads that advance tasks.

Each has its own connections to Vault, and all take jobs from one queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
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
    WrongState,
)
from jitvault.ledger.model import TaskRecord, TaskRow, Turn
from jitvault.lifecycle.confirmation.quiet_rules import QUIET
from jitvault.lifecycle.record.receipt import unproven_reason
from jitvault.model.states import BEFORE_GRANT, OVER, State
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, TaskQueue, Urgency

PATIENCE_S = 10.0
"""How long one job may work on a task, in seconds: with an act under way then, well within the claim's 30 s."""
BEHIND_S = 3.0
"""From which lateness of renewals on no task is granted, in seconds."""
_LOOK_S = 0.5
_UNGRANTED = BEFORE_GRANT | {State.ISSUING}
# A failed renewal is tried again within this part of a rolling step, so that it has several tries.
_PART_OF_STEP = 8
# a task that is due again so soon stays in this worker's queue
_SOON = 2 * QUIET


class Pool:
    """Take jobs from the queue and advance their tasks.

    `hire` makes a worker context for one thread.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        hire: Callable[[], WorkerContext],
        queue: TaskQueue,
        health: Health,
        log: Log,
        give_back: Callable[[str], None] = lambda _: None,
        late_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Keep the parts.

        `give_back` lets other workers have a due task that was claimed and cannot be handled here. `late_s` returns for
        how many seconds renewals have been due.
        """
        self._supervisor = supervisor
        self._hire = hire
        self._health = health
        self._log = log
        self._queue = queue
        self._changed = Condition()
        self._give_back = give_back
        self._late_s = late_s
        self._was_behind = False
        # the tasks whose end was not proven at the last look, each with the reason that was logged
        self._unproven: dict[str, str] = {}

    def want(self, job: Job, *, news: bool = False) -> bool:
        """Queue a job, ready at once where there is `news` about its task.

        Returns whether it is ready and waits only for a thread.
        """
        with self._changed:
            ready = self._queue.want(job, time.monotonic(), news=news)
            self._changed.notify()
        return ready

    def room(self, *urgencies: Urgency) -> int:
        """Return how many more tasks of these urgencies to take ahead."""
        with self._changed:
            return self._queue.room(time.monotonic(), *urgencies)

    @property
    def is_behind(self) -> bool:
        """Whether renewals are so late that nothing else is begun but what ends or keeps access."""
        return self._late_s() >= BEHIND_S

    def waiting_of(self, author: str) -> int:
        """Return how many tasks wait because of this author's documents."""
        with self._changed:
            return self._queue.waiting_of(author)

    def left(self) -> int:
        """Return how many tasks wait or are worked on."""
        with self._changed:
            return self._queue.waiting + self._queue.running()

    def placed(self) -> int:
        """Return how often a job was queued so far."""
        with self._changed:
            return self._queue.placed

    def already_due(self) -> set[str]:
        """Return the tasks that need no further job for being due."""
        with self._changed:
            return self._queue.already_due(time.monotonic())

    def start(self) -> None:
        for n in range(self._queue.threads):
            name = f"advance-{n + 1}"
            self._supervisor.start(name, _WorkerThread(self, name).serve)

    def _log_unproven(self, record: TaskRecord) -> None:
        """Log why a task's end stays unproven, each reason once.

        A reason that is gone at the next look is never logged.
        """
        task_id = record.task.task_id
        why = unproven_reason(record)
        with self._changed:
            told = self._unproven.pop(task_id, None)
            if why is not None:
                self._unproven[task_id] = "" if told is None else why
        if why is not None and told not in (None, why):
            if not told:
                self._health.count("ends_unproven")
            self._log.warning("the end of a task is not proven yet", task=task_id, why=why)

    def measure(self) -> None:
        """Report queue lengths and how late renewals are to `health`, and forget old records."""
        late_s = self._late_s()
        self._health.set("renewals_late_seconds", round(late_s, 1))
        if self._was_behind != (late_s >= BEHIND_S):
            self._was_behind = not self._was_behind
            if self._was_behind:
                self._log.warning("renewals are late: nothing is granted meanwhile", late_s=round(late_s, 1))
            else:
                self._log.info("renewals are in time again")
        with self._changed:
            now = time.monotonic()
            self._queue.forget_old(now)
            self._health.set("ends_unproven", sum(bool(why) for why in self._unproven.values()))
            self._health.set("tasks_waiting", self._queue.waiting)
            self._health.set("tasks_in_hand", self._queue.running())
            self._health.set("tasks_hanging", self._queue.hanging(now))
            self._health.set("tasks_at_once", int(self._queue.limit))


class _WorkerThread:
    """One thread of the pool."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._worker: WorkerContext | None = None

    def serve(self) -> None:
        """Handle jobs until the worker ends.

        Raises LedgerUnavailable: without the ledger no task can be handled.
        """
        pool = self._pool
        while (job := self._next()) is not None:
            pool._supervisor.beat(self._name)
            try:
                self._advance(job)
            except LedgerUnavailable:
                raise
            except JitvaultError as error:
                self._failed(job, error)
            except BaseException as error:  # noqa: BLE001 - an unreadable task must not stop the others; Rust panics so
                self._failed(job, JitvaultError(f"unexpected {type(error).__name__}"))

    def _next(self) -> Job | None:
        """Wait for the next job; return None when the worker ends."""
        pool = self._pool
        with pool._changed:
            while not pool._supervisor.stopping.is_set():
                pool._supervisor.beat(self._name)
                now = time.monotonic()
                if (job := pool._queue.take(now, only_access=pool.is_behind)) is not None:
                    return job
                pool._changed.wait(pool._queue.wait_s(now, _LOOK_S))
        return None

    def _advance(self, job: Job) -> None:
        """Advance the task of a job, unless another worker has it."""
        pool = self._pool
        worker = self._worker = self._worker or pool._hire()
        before = worker.ledger.task(job.task_id)
        turn = Turn.OURS if before is None else self._turn(job, before, worker)
        if turn is not Turn.OURS:
            self._leave(job, turn)
            return
        worker = replace(worker, mode=replace(worker.mode, is_scheduled=job.if_due))
        patience_s = 0.0 if job.hurry else PATIENCE_S
        until = worker.clock.monotonic() + patience_s
        with worker.ledger.moves() as moved:
            try:
                record = advance_or_end_lost(worker, job.task_id, hint=job.hint, deadline=until, shown=job.shown)
            finally:
                self._count_moves(moved.values())
        pool._log_unproven(record)
        self._done(job, before, record.task, worker)

    def _count_moves(self, moved: Iterable[TaskRow]) -> None:
        """Count and log the moves of tasks that were made here.

        Another worker that looks at a task afterwards has not made its move.
        """
        pool = self._pool
        for task in moved:
            pool._health.count("transitions", state=task.state.value)
            reason = _non_empty(end_reason=task.end_reason)
            pool._log.info("task", task=task.task_id, state=task.state.value, **reason)

    def _turn(self, job: Job, task: TaskRow, worker: WorkerContext) -> Turn:
        """Claim the task; return whether this worker may advance it.

        A task that another worker has claimed is not waited for: that may last as long as a target hangs.
        """
        # The job before granted the task while this document's line was on its way, or another worker did.
        granted = job.to_grant and task.state not in _UNGRANTED
        if granted or (job.if_due and not _is_due(task, worker)):
            worker.ledger.give_back(job.task_id)
            return Turn.OVER
        return worker.ledger.take(job.task_id, since=job.since)

    def _leave(self, job: Job, turn: Turn) -> None:
        """Return a job whose task another worker has or had."""
        pool = self._pool
        with pool._changed:
            # the other worker logs the reason
            pool._unproven.pop(job.task_id, None)
            if turn is Turn.ANOTHERS:
                pool._queue.held_elsewhere(job, time.monotonic())
            else:
                pool._queue.done(job, time.monotonic())
            pool._changed.notify_all()

    def _done(self, job: Job, before: TaskRow | None, after: TaskRow, worker: WorkerContext) -> None:
        """Record that a task was advanced, and when to look at it again."""
        pool = self._pool
        due = _is_due(after, worker)
        soon_s = _soon_s(after, worker)
        pool._health.count("advanced")
        with pool._changed:
            now = time.monotonic()
            queue = pool._queue
            queue.served()
            moved = before is None or (before.version, before.due_at) != (after.version, after.due_at)
            if job.hurry and after.state not in OVER:
                queue.done(job, now, again_in=0.0)
            elif due and after.state is State.ENDING and moved:
                # mostly only the quiet second is missing, which passes while other tasks are handled
                queue.done(job, now, again_in=QUIET.total_seconds())
            elif soon_s is not None:
                queue.done(replace(job, if_due=True), now, again_in=soon_s)
            elif due:
                queue.failed(job, now, longest_s=_longest_s(worker))
            else:
                queue.done(job, now)
            pool._changed.notify_all()

    def _failed(self, job: Job, error: JitvaultError) -> None:
        """Record a failure, and when to try the task again."""
        pool = self._pool
        worker = self._worker
        pool._health.count("failures", kind=type(error).__name__)
        # another worker may succeed with a due task that was claimed here
        pool._give_back(job.task_id)
        # an unreachable target says nothing about Vault
        of_vault = isinstance(error, VaultUnavailable) and not isinstance(error, TargetUnavailable)
        lost = of_vault and not isinstance(error, OutcomeUnknown)
        known = worker is None or worker.ledger.task(job.task_id) is not None
        # WrongState: another process has the claim that the import of a lost task needs
        passes = isinstance(error, VaultUnavailable | AuditUntrusted | WrongState) and not isinstance(error, NotFound)
        retried = known or passes
        with pool._changed:
            if of_vault:
                pool._queue.halve_limit()
            now = time.monotonic()
            if isinstance(error, VaultNotServing):
                pool._queue.pause(now)
            longest_s = _longest_s(worker) if worker else PATIENCE_S
            pause_s = pool._queue.failed(job, now, longest_s=longest_s, forget=not retried)
            pool._changed.notify_all()
        if lost:
            # another node may be active by now: the next job makes new connections
            self._worker = None
        hurried = job.hurry and isinstance(error, WaitTimedOut)
        # not logged: anyone can write thousands of documents that begin no task; they are counted
        if not hurried and (known or not isinstance(error, NotFound)):
            again = f"again in {pause_s:.0f} s" if retried else "not again before there is news of it"
            pool._log.warning("task could not be advanced", task=job.task_id, error=str(error), then=again)


def _is_due(task: TaskRow, worker: WorkerContext) -> bool:
    return task.due_at is not None and task.due_at <= worker.now() and task.state not in OVER


def _soon_s(task: TaskRow, worker: WorkerContext) -> float | None:
    """Return in how many seconds the task is due, None where that is not soon."""
    if task.due_at is None or task.state in OVER:
        return None
    left = task.due_at - worker.now()
    return left / timedelta(seconds=1) if timedelta(0) < left <= _SOON else None


def _longest_s(worker: WorkerContext) -> float:
    """Return the longest pause after a failure, in seconds."""
    return max(1.0, min(PATIENCE_S, worker.rolling_step.total_seconds() / _PART_OF_STEP))


def _non_empty(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}
