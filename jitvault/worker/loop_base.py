"""What all loops of the worker share.

That is how they are repeated, and the parts of the worker that they use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, JitvaultError, VaultUnavailable, WrongState
from jitvault.notices.notifier import Notifier
from jitvault.worker.author_rate import AuthorRate
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.pool import Pool
from jitvault.worker.supervisor import Supervisor

PASSING = (AuditUntrusted, VaultUnavailable, WrongState)
"""Errors that pass by themselves: logged once and tried again. All others end the loop, and with it the worker."""
_TRIES_AGAIN = "Nothing is to be done if it passes: the worker tries again by itself."


@dataclass(frozen=True, slots=True)
class Pace:
    """How often each loop runs, in seconds. `sweep_s` of 0 is never."""

    read_s: float = 0.01
    look_around_s: float = 1.0
    wake_s: float = 0.5
    due_s: float = 0.1
    canary_s: float = 5.0
    targets_s: float = 60.0
    rights_s: float = 3600.0
    upkeep_s: float = 1.0
    list_s: float = 60.0
    sweep_s: float = 3600.0
    remove_s: float = 60.0
    templates_s: float = 60.0
    tell_s: float = 1.0
    retry_s: float = 1.0


@dataclass
class LoopBase:
    """The parts of a worker that its loops use, and how a loop is repeated.

    `hire` makes a context with its own connections for each loop. `news` and `lines` are set whenever a line was
    ingested, for one loop each.
    """

    supervisor: Supervisor
    hire: Callable[[], WorkerContext]
    pool: Pool
    health: Health
    log: Log
    teller: Notifier
    pace: Pace = field(default_factory=Pace)
    fix: bool = False
    keep: timedelta | None = None
    """How long the published documents of a sealed task stay; None keeps them for ever."""
    gate: AuthorRate = field(default_factory=lambda: AuthorRate(per_minute=1200))
    news: Event = field(default_factory=Event)
    lines: Event = field(default_factory=Event)
    is_reader: Callable[[], bool] = lambda: True
    """Whether this process reads the audit stream continuously; of several processes of one worker one does."""

    def tell_news(self) -> None:
        """Wake the loops that wait for lines."""
        self.news.set()
        self.lines.set()

    def every(
        self,
        name: str,
        seconds: float,
        act: Callable[[], None],
        *,
        failed: Callable[[JitvaultError], None] = lambda _: None,
        at_once: bool = True,
    ) -> None:
        """Run `act` every so many seconds until the worker ends.

        An error that passes by itself is logged once, and `act` is tried again a little later.
        """
        stopping = self.supervisor.stopping
        known = ""
        wait_s = 0.0 if at_once else seconds
        while not self._rest(name, wait_s):
            wait_s = seconds
            try:
                act()
            except PASSING as error:
                failed(error)
                if str(error) != known and not stopping.is_set():
                    self.log.warning("trouble", loop=name, error=str(error), hint=_hint(error))
                known = str(error)
                wait_s = max(seconds, self.pace.retry_s)
                continue
            self.supervisor.passed(name)
            if known:
                self.log.info("trouble is over", loop=name)
                known = ""

    def _rest(self, name: str, seconds: float) -> bool:
        """Wait; return True where the worker ends.

        During a long wait the loop still reports that it is alive.
        """
        until = time.monotonic() + seconds
        while True:
            self.supervisor.beat(name)
            remaining_s = until - time.monotonic()
            if self.supervisor.stopping.wait(max(0.0, min(remaining_s, 10.0))):
                return True
            if remaining_s <= 10.0:
                return False


def _hint(error: JitvaultError) -> str:
    """Return what to do about an error that passes.

    The hint that all outages have is for whoever runs a command.
    """
    return _TRIES_AGAIN if isinstance(error, VaultUnavailable) and not error.has_own_hint else error.hint
