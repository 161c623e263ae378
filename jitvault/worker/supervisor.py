"""Run loops as threads; the first one that dies stops all of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from jitvault.errors import JitvaultError


@dataclass(frozen=True, slots=True)
class Death:
    """Which loop died, and of which error."""

    loop: str
    error: BaseException

    def as_error(self) -> JitvaultError:
        """Return the error that the worker ends with.

        Of the kind of the loop's error, so with its exit code.
        """
        if isinstance(self.error, JitvaultError):
            return type(self.error)(f"the worker's loop {self.loop!r} ended: {self.error}", hint=self.error.hint)
        # of a bug only the kind is shown: its text may hold anything
        return JitvaultError(f"the worker's loop {self.loop!r} ended: unexpected {type(self.error).__name__}")


@dataclass
class Supervisor:
    """Starts loops and knows whether they are alive.

    `stopping` is set when all of them are to end.
    """

    stopping: Event = field(default_factory=Event)
    death: Death | None = None
    _threads: list[Thread] = field(default_factory=list)
    _beats: dict[str, float] = field(default_factory=dict)
    _passes: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Run a loop in a thread of its own.

        The loop must not return before `stopping` is set.
        """
        # daemon: a thread that hangs in a request must not keep the process; its act is in the ledger as intended
        thread = Thread(target=self._run, args=(name, run), name=name, daemon=True)
        with self._lock:
            self._threads.append(thread)
        self.beat(name)
        thread.start()

    def beat(self, name: str) -> None:
        """Record that a loop is alive."""
        self._beats[name] = time.monotonic()

    def passed(self, name: str) -> None:
        """Record that a loop did once what it repeats, without an error."""
        self._passes[name] += 1

    def passes(self) -> dict[str, int]:
        """Return how often each loop has come round."""
        return dict(self._passes)

    def silent(self, longer_than_s: float) -> list[str]:
        """Return the loops that have not been heard of for so long."""
        since = time.monotonic() - longer_than_s
        return sorted(name for name, at in dict(self._beats).items() if at < since)

    def join(self, within_s: float) -> list[str]:
        """Wait for all loops to end; return the names of those that did not."""
        deadline = time.monotonic() + within_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]

    def _run(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
            if self.stopping.is_set():
                return
            error: BaseException = JitvaultError("it ended although the worker was not stopping")
        except BaseException as failure:  # noqa: BLE001 - the boundary of a thread: whatever it is, it stops the worker
            error = failure
        with self._lock:
            self.death = self.death or Death(name, error)
        self.stopping.set()
