"""One act serves all threads that waited when it began, and nobody who came later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from jitvault.errors import AuditUntrusted
from jitvault.vault.one_for_all import OneForAll


class Act:
    """An act that lasts until it is let go; each result is its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = threading.Semaphore(0)
        self.fails: type[BaseException] | None = None

    def __call__(self) -> int:
        self.begun += 1
        own = self.begun
        self.go.acquire()
        if self.fails is not None:
            raise self.fails("it failed")
        return own


def waits_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so() and time.monotonic() < until:
        time.sleep(0.001)
    assert is_so()


def waiting(one: OneForAll[int]) -> int:
    return len(one._changed._waiters)  # type: ignore[attr-defined]


def test_who_is_alone_acts_each_time() -> None:
    one, n = OneForAll[int](), iter(range(10))
    assert [one.of(lambda: next(n)) for _ in range(3)] == [0, 1, 2]


def test_who_comes_during_an_act_waits_for_the_next_one_which_serves_all_of_them() -> None:
    one, act = OneForAll[int](), Act()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(one.of, act)
        waits_for(lambda: act.begun == 1)
        later: list[Future[int]] = [pool.submit(one.of, act) for _ in range(4)]
        waits_for(lambda: waiting(one) == 4)
        act.go.release()
        waits_for(lambda: act.begun == 2)
        last = pool.submit(one.of, act)
        waits_for(lambda: waiting(one) == 4)
        act.go.release(2)
        assert [first.result(10), {each.result(10) for each in later}, last.result(10)] == [1, {2}, 3]


def test_an_error_of_an_act_is_that_of_all_that_waited_for_it() -> None:
    one, act = OneForAll[int](), Act()
    act.fails = AuditUntrusted
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(one.of, act)
        waits_for(lambda: act.begun == 1)
        later = [pool.submit(one.of, act) for _ in range(2)]
        waits_for(lambda: waiting(one) == 2)
        act.go.release(2)
        for each in (first, *later):
            with pytest.raises(AuditUntrusted):
                each.result(10)
    assert act.begun == 2


def test_where_the_acting_thread_is_stopped_another_one_acts() -> None:
    one, act = OneForAll[int](), Act()
    act.fails = KeyboardInterrupt
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(one.of, act)
        waits_for(lambda: act.begun == 1)
        later = [pool.submit(one.of, act) for _ in range(2)]
        waits_for(lambda: waiting(one) == 2)
        act.go.release()
        with pytest.raises(KeyboardInterrupt):
            first.result(10)
        waits_for(lambda: act.begun == 2)
        act.fails = None
        act.go.release(2)
        assert {each.result(10) for each in later} <= {2, 3}
