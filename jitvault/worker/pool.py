"""The hands that look after tasks: threads, each with its own connections to Vault, that take from one agenda."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition

from jitvault.domain.lifecycle import BEFORE_GRANT, OVER, State
from jitvault.domain.quiet import QUIET
from jitvault.errors import (
    AuditUntrusted,
    JitvaultError,
    LedgerUnavailable,
    OutcomeUnknown,
    VaultUnavailable,
    WaitTimedOut,
)
from jitvault.ports.ledger import TaskRow
from jitvault.services.advance import advance
from jitvault.services.context import Worker
from jitvault.worker.agenda import Agenda, Job
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.supervisor import Supervisor

PATIENCE_S = 10.0
"""For one task at a time, with an act that is under way then well within the claim's 30 s."""
_LOOK_S = 0.5
_UNGRANTED = BEFORE_GRANT | {State.ISSUING}
# so much of a rolling step may pass before a renewal that failed is tried again: it has several tries
_PART_OF_STEP = 8


class Pool:
    """Takes what is wanted and advances it. `hire` gives a thread its own Worker."""

    def __init__(
        self, supervisor: Supervisor, hire: Callable[[], Worker], agenda: Agenda, health: Health, log: Log
    ) -> None:
        self._supervisor, self._hire, self._health, self._log = supervisor, hire, health, log
        self._agenda, self._changed = agenda, Condition()

    def want(self, job: Job, *, news: bool = False) -> None:
        """Have a task looked after, at once where there is `news` about it."""
        with self._changed:
            self._agenda.want(job, time.monotonic(), news=news)
            self._changed.notify()

    def knows(self, task_id: str) -> bool:
        """Whether the task is in hand, or waits for its turn or for its pause to be over."""
        with self._changed:
            return self._agenda.knows(task_id)

    def start(self) -> None:
        for n in range(self._agenda.hands + self._agenda.may_hang):
            name = f"advance-{n + 1}"
            self._supervisor.start(name, _Hand(self, name).serve)

    def measure(self) -> None:
        """Tell the health how much is waited for, and forget what is long over."""
        with self._changed:
            now = time.monotonic()
            self._agenda.forget_old(now)
            self._health.set("tasks_waiting", self._agenda.waiting)
            self._health.set("tasks_in_hand", self._agenda.running())
            self._health.set("tasks_hanging", self._agenda.hanging(now))
            self._health.set("tasks_at_once", int(self._agenda.limit))


class _Hand:
    """One thread of the pool."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool, self._name = pool, name
        self._worker: Worker | None = None

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
        if job.to_grant and before is not None and before.state not in _UNGRANTED:
            # the run before saw the wish, while its line was still on its way
            with pool._changed:
                pool._agenda.done(job, time.monotonic())
            return
        patience_s = 0.0 if job.hurry else PATIENCE_S
        after = advance(worker, job.task_id, hint=job.hint, deadline=worker.clock.monotonic() + patience_s).task
        if before is None or before.state is not after.state:
            pool._health.count("transitions", state=after.state.value)
            pool._log.info("task", task=after.task_id, state=after.state.value, **_given(end_reason=after.end_reason))
        self._done(job, before, after, worker)

    def _done(self, job: Job, before: TaskRow | None, after: TaskRow, worker: Worker) -> None:
        pool, due = self._pool, after.due_at is not None and after.due_at <= worker.now()
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
            elif due and after.state not in OVER:
                agenda.failed(job, now, longest_s=_longest_s(worker))
            else:
                agenda.done(job, now)
            pool._changed.notify_all()

    def _failed(self, job: Job, error: JitvaultError) -> None:
        pool, worker = self._pool, self._worker
        pool._health.count("failures", kind=type(error).__name__)
        lost = isinstance(error, VaultUnavailable) and not isinstance(error, OutcomeUnknown)
        known = worker is None or worker.ledger.task(job.task_id) is not None
        retried = known or isinstance(error, VaultUnavailable | AuditUntrusted)
        with pool._changed:
            if isinstance(error, VaultUnavailable):
                pool._agenda.refused()
            now = time.monotonic()
            longest_s = _longest_s(worker) if worker else PATIENCE_S
            pause_s = pool._agenda.failed(job, now, longest_s=longest_s, forget=not retried)
            pool._changed.notify_all()
        if lost:
            # another node may be the active one by now: the next job finds it
            self._worker = None
        hurried = job.hurry and isinstance(error, WaitTimedOut)
        if not hurried:
            again = f"again in {pause_s:.0f} s" if retried else "not again before there is news of it"
            pool._log.warning("task could not be looked after", task=job.task_id, error=str(error), then=again)


def _longest_s(worker: Worker) -> float:
    return max(1.0, min(PATIENCE_S, worker.rolling_step.total_seconds() / _PART_OF_STEP))


def _given(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value}
