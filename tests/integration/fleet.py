"""Several workers on one ledger, of which one is killed every few seconds and started again."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import Event, Thread

from rig import Rig
from worker_process import WorkerProcess


class Fleet:
    """`size` workers that run until the block is left. Those that were killed are kept: they have logs."""

    def __init__(self, rig: Rig, size: int = 2, *options: str) -> None:
        self._rig, self._options = rig, options
        self.workers = [self._new() for _ in range(size)]
        self.gone: list[list[WorkerProcess]] = [[] for _ in range(size)]

    def _new(self) -> WorkerProcess:
        return WorkerProcess(self._rig, *self._options)

    def __enter__(self) -> Fleet:
        for worker in self.workers:
            worker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.__exit__()

    def replace(self, n: int) -> None:
        """Kill one by SIGKILL and start another in its place."""
        self.workers[n].kill()
        self.gone[n].append(self.workers[n])
        self.workers[n] = self._new()
        self.workers[n].__enter__()

    @contextmanager
    def dying(self, every_s: float, at_most: float = inf) -> Iterator[None]:
        """Kill and replace one after the other, one every so often, while the block lasts."""
        over, failures = Event(), list[BaseException]()

        def kill_on() -> None:
            n, due = 0, time.monotonic() + every_s
            while n < at_most and not over.wait(max(0.0, due - time.monotonic())):
                try:
                    self.replace(n % len(self.workers))
                except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                    failures.append(error)
                    return
                n, due = n + 1, due + every_s

        thread = Thread(target=kill_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)
        assert not failures, failures

    def kills(self) -> int:
        return sum(map(len, self.gone))

    def said(self, event: str) -> Counter[str]:
        """How often something was told by all of them, by its error where it has one."""
        every = (*itertools.chain(*self.gone), *self.workers)
        return Counter(str(entry.get("error", "")) for one in every for entry in one.said(event))

    def transitions(self) -> list[Counter[str]]:
        """How many tasks each came to each state with, those that were killed in its place included."""
        return [
            Counter(str(entry["state"]) for one in (*gone, worker) for entry in one.said("task"))
            for gone, worker in zip(self.gone, self.workers, strict=True)
        ]
