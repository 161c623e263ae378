"""By what a hand looks at a task: one that is merely due may go by answers of this second, news never."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_around_loops import Panic

from jitvault.context import RunMode
from jitvault.errors import JitvaultError, NotFound, WrongState
from jitvault.ledger.model import Turn
from jitvault.worker import pool as pool_module
from jitvault.worker.health import Health
from jitvault.worker.pool import Pool, _WorkerThread
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, TaskQueue, Urgency


@dataclass(frozen=True)
class Looker:
    """As much of a Worker as a hand touches."""

    mode: RunMode
    rolling_step: timedelta = timedelta(minutes=1)

    @property
    def ledger(self) -> Any:
        return self

    @property
    def clock(self) -> Any:
        return self

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2030, 1, 31, 9, 0, tzinfo=UTC)

    def task(self, _task_id: str) -> None:
        return None

    def moves(self) -> AbstractContextManager[dict[str, Any]]:
        return nullcontext({})

    def take(self, _task_id: str, *, since: int | None) -> Turn:
        return Turn.OURS


class Looked(Exception):
    pass


@pytest.mark.parametrize("if_due", [True, False])
def test_only_what_is_merely_due_is_looked_at_by_recent_answers(
    monkeypatch: pytest.MonkeyPatch, *, if_due: bool
) -> None:
    seen: list[Looker] = []

    def advance(worker: Looker, *_: object, **__: object) -> None:
        seen.append(worker)
        raise Looked

    monkeypatch.setattr(pool_module, "advance_or_end_lost", advance)
    supervisor = Supervisor()
    looker = Looker(RunMode())
    pool = Pool(supervisor, cast(Any, lambda: looker), TaskQueue(1, 1), Health(supervisor), cast(Any, None))
    hand = _WorkerThread(pool, "advance-1")
    for _ in range(2):
        with pytest.raises(Looked):
            hand._advance(Job("t-1", Urgency.HELD, if_due=if_due))
    assert [one.mode.is_scheduled for one in seen] == [if_due] * 2
    # the next one that is due goes by them again
    with pytest.raises(Looked):
        hand._advance(Job("t-2", Urgency.HELD, if_due=True))
    assert seen[-1].mode.is_scheduled


def test_what_is_due_and_of_which_there_is_news_is_news() -> None:
    due, news = Job("t-1", Urgency.HELD, if_due=True), Job("t-1", Urgency.END)
    assert not due.and_also(news).if_due and not news.and_also(due).if_due


@pytest.mark.parametrize(("error", "again"), [(WrongState("another process sweeps"), True), (NotFound("none"), False)])
def test_a_task_that_the_ledger_lacks_is_tried_again_after_what_passes(error: JitvaultError, *, again: bool) -> None:
    queue, supervisor, log = TaskQueue(1, 1), Supervisor(), SimpleNamespace(warning=lambda *_, **__: None)
    pool = Pool(supervisor, cast(Any, None), queue, Health(supervisor), cast(Any, log))
    pool.want(Job("t-1", Urgency.END))
    job = queue.take(time.monotonic())
    assert job
    hand = _WorkerThread(pool, "advance-1")
    hand._worker = cast(Any, Looker(RunMode()))
    hand._failed(job, error)
    assert (queue.take(time.monotonic() + 60) is not None) is again


@pytest.mark.parametrize("bug", [KeyError("s3cret"), Panic("s3cret")], ids=["raises", "panics"])
def test_a_task_that_nobody_can_handle_costs_no_thread(monkeypatch: pytest.MonkeyPatch, bug: BaseException) -> None:
    queue, supervisor, told = TaskQueue(1, 1), Supervisor(), list[str]()

    def advance(_worker: object, task_id: str, **_: object) -> None:
        if task_id == "poisoned":
            raise bug
        supervisor.stopping.set()
        raise WrongState("the other task had its turn")

    monkeypatch.setattr(pool_module, "advance_or_end_lost", advance)
    looker = Looker(RunMode())
    log = SimpleNamespace(warning=lambda *_, error, **__: told.append(error))
    pool = Pool(supervisor, cast(Any, lambda: looker), queue, Health(supervisor), cast(Any, log))
    pool.want(Job("poisoned", Urgency.END))
    pool.want(Job("other", Urgency.BACKLOG))
    _WorkerThread(pool, "advance-1").serve()
    assert told == [f"unexpected {type(bug).__name__}", "the other task had its turn"]


def test_that_renewals_are_late_is_told_once_and_keeps_new_work_waiting() -> None:
    late_s, said = [0.0], list[str]()
    log = SimpleNamespace(warning=lambda event, **_: said.append(event), info=lambda event, **_: said.append(event))
    supervisor = Supervisor()
    health = Health(supervisor)
    pool = Pool(supervisor, cast(Any, None), TaskQueue(1, 1), health, cast(Any, log), late_s=lambda: late_s[0])
    for name, urgency in (("asked", Urgency.ASKED), ("due", Urgency.DUE), ("held", Urgency.HELD)):
        pool.want(Job(name, urgency))
    late_s[0] = pool_module.BEHIND_S
    for _ in range(2):
        pool.measure()
    hand = _WorkerThread(pool, "advance-1")
    job = hand._next()
    assert job is not None and job.task_id == "held" and pool.is_behind
    late_s[0] = pool_module.BEHIND_S - 0.1
    pool.measure()
    assert said == ["renewals are late: nothing is granted meanwhile", "renewals are in time again"]
    assert health.value("renewals_late_seconds") == round(late_s[0], 1)
    pool._queue.done(job, time.monotonic())
    job = hand._next()
    assert job is not None and job.task_id == "asked"
