"""Several workers of several processes each on one ledger, of which one process is killed every few seconds."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from threading import Event, Thread

from rig import Rig
from worker_process import WorkerProcess

_KEEPER_TOO = 0.25


class Fleet:
    """`size` workers of so many processes that run until the block is left. Killed ones are kept: they have logs."""

    def __init__(self, rig: Rig, size: int = 2, *options: str, processes: int = 1) -> None:
        self._rig, self._options = rig, options
        if processes > 1:
            self._options = ("--processes", str(processes), *options)
        self.killed = Counter[str]()
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

    def kill_one(self, n: int) -> None:
        """Kill a process of one worker by SIGKILL: one that its keeper starts again, or all by killing their keeper."""
        pids = {said["process"]: said["pid"] for said in self.workers[n].said("started a process")}
        if not pids or random.random() < _KEEPER_TOO:
            self.killed["whole"] += 1
            self.replace(n)
            return
        # it may have ended since it was started
        with suppress(ProcessLookupError):
            os.kill(random.choice(list(pids.values())), signal.SIGKILL)
            self.killed["process"] += 1

    @contextmanager
    def dying(self, every_s: float, at_most: float = inf) -> Iterator[None]:
        """Kill a process of one after the other, one every so often, while the block lasts."""
        over, failures = Event(), list[BaseException]()

        def kill_on() -> None:
            n, due = 0, time.monotonic() + every_s
            while n < at_most and not over.wait(max(0.0, due - time.monotonic())):
                try:
                    self.kill_one(n % len(self.workers))
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
