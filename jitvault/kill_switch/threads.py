"""A pool of threads that do one thing to many tasks.

Each thread has its own connection to Vault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from jitvault.context import Person, WorkerContext
from jitvault.errors import JitvaultError
from jitvault.lifecycle.unexpected_error import failure_of

CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class ThreadContext:
    """One thread's own contexts: adapters are not shared between threads."""

    worker: WorkerContext
    person: Person


class Tell(Protocol):
    """Is called with the progress."""

    def __call__(self, what: str, done: int, of: int, *, final: bool = False) -> None:
        """Report that `what` is true for `done` of `of` tasks.

        `final` says that no more follow.
        """
        ...


def report_nothing(what: str, done: int, of: int, *, final: bool = False) -> None:
    """Report no progress."""


class TaskPool:
    """Does one thing to many tasks, a few at a time."""

    def __init__(self, hire: Callable[[], ThreadContext], tell: Tell) -> None:
        self._hire, self._tell = hire, tell
        self._own = threading.local()

    def each(
        self, what: str, act: Callable[[ThreadContext, str, str], bool], tasks: Sequence[str], note: str
    ) -> dict[str, JitvaultError]:
        """Do `act` to each task; return the errors by task.

        `what` names the result in the progress reports, and `act` returns whether the result is true of the task.
        """
        failed: dict[str, JitvaultError] = {}
        counted, lock = 0, threading.Lock()

        def one(task_id: str) -> None:
            nonlocal counted
            came_true = False
            try:
                came_true = act(self._hand(), task_id, note)
            except JitvaultError as error:
                failed[task_id] = error
            except Exception as error:  # noqa: BLE001 - a bug must not keep the access of the other tasks alive
                failed[task_id] = failure_of(task_id, error)
            with lock:
                counted += came_true
                self._tell(what, counted, len(tasks))

        self._tell(what, 0, len(tasks))
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(one, tasks))
        self._tell(what, counted, len(tasks), final=True)
        return failed

    def _hand(self) -> ThreadContext:
        hand: ThreadContext | None = getattr(self._own, "hand", None)
        if hand is None:
            hand = self._own.hand = self._hire()
        return hand
