"""The threads that renew kept tasks, many at once.

They are beside those that advance tasks one by one: an end never waits for renewals, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, LedgerUnavailable
from jitvault.lifecycle.keeping.keep import renew_kept
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.supervisor import Supervisor

THREADS = 4
"""How many batches are under way at once: where a target hangs, one waits for it."""
_BATCH = 50
_SHORTEST_S, _LONGEST_S = 0.02, 0.5
_COLLECTED, _PART_OF_STEP = timedelta(seconds=1), 20
"""How long to collect what is due: a batch costs a canary and two commits, whatever its size.

Half a step is left when a renewal is due, so the time is at most a twentieth of the rolling step.
"""


class Renewals:
    """Renew kept tasks when they are due. `hire` makes a worker context for one thread."""

    def __init__(self, supervisor: Supervisor, hire: Callable[[], WorkerContext], health: Health, log: Log) -> None:
        self._supervisor = supervisor
        self._hire = hire
        self._health = health
        self._log = log

    def start(self) -> None:
        for n in range(THREADS):
            name = f"renew-{n + 1}"
            self._supervisor.start(name, partial(self._serve, name))

    def _serve(self, name: str) -> None:
        """Renew until the worker ends.

        Raises LedgerUnavailable: without the ledger nothing can be renewed.
        """
        worker: WorkerContext | None = None
        while not self._supervisor.stopping.is_set():
            self._supervisor.beat(name)
            rest_s = _LONGEST_S
            try:
                worker = worker or self._hire()
                if (rest_s := self._rest_s(worker)) <= 0:
                    self._health.count("renewed_together", by=renew_kept(worker, _BATCH))
                    rest_s = _SHORTEST_S
                self._health.set("tasks_kept", len(worker.kept))
            except LedgerUnavailable:
                raise
            except JitvaultError as error:
                # whole turns do what was left, and say what is in the way
                self._health.count("failures", kind=type(error).__name__)
                # another node may be active by now
                worker = None
            except BaseException as error:  # noqa: BLE001 - a bug must not end the worker; Rust panics so
                self._health.count("failures", kind="JitvaultError")
                self._log.error("tasks could not be renewed together", why=f"unexpected {type(error).__name__}")
            self._supervisor.stopping.wait(rest_s)

    def _rest_s(self, worker: WorkerContext) -> float:
        """Return how long to collect further tasks, 0 or less where those that are due have waited enough."""
        due_at = worker.kept.next_due()
        if due_at is None:
            return _LONGEST_S
        collected = min(_COLLECTED, worker.rolling_step / _PART_OF_STEP)
        return min(_LONGEST_S, (due_at + collected - worker.now()) / timedelta(seconds=1))
