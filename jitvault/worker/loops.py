"""What the worker does over and over, each in a loop of its own. They only find out which tasks are wanted and why;
`pool` looks after those.

    sources    one more loop for each audit source that appears; the sources that do not count yet are asked whether
               they are ours
    observe    one source's lines into the ledger
    intake     what people wrote, as the stream shows it; everything that is there, every now and then
    due        whose time has come by the ledger
    tripwires  what touched one
    canary     whether the stream is trusted
    sweep      whether Vault, ledger and stream agree; told, and mended only where that was asked for
    retention  what is published of tasks that were sealed long ago, out of Vault
    notices    what people outside are to hear
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from threading import Event

from jitvault.domain.lifecycle import HOLDING
from jitvault.errors import AuditUntrusted, JitvaultError, VaultRefused, VaultUnavailable, WrongState
from jitvault.services.context import Worker
from jitvault.services.notify import Teller
from jitvault.services.observe import observe, read_on
from jitvault.services.pending import Word, requested
from jitvault.services.retention import Removals
from jitvault.services.sweep import sweep
from jitvault.services.swept import outcome
from jitvault.services.trust import Trust, examine
from jitvault.services.urgent import Reasons, covered, tripped
from jitvault.worker.agenda import Job, Urgency
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.pool import Pool
from jitvault.worker.supervisor import Supervisor

PASSING = (AuditUntrusted, VaultUnavailable, WrongState)
"""What passes by itself: it is told once and tried again. Everything else ends the loop, and with it the worker."""
_WHOLE_EVERY = 10
# where more is due than was taken the hands are soon ready for it
_HASTE = 5
_TRIPWIRES_S = 0.25
# however slow a reading was, the next one comes after this
_LONGEST_REST_S = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How often each loop turns, in seconds. `sweep_s` 0: never."""

    read_s: float = 0.01
    look_around_s: float = 1.0
    wake_s: float = 0.5
    due_s: float = 0.1
    canary_s: float = 5.0
    list_s: float = 60.0
    sweep_s: float = 3600.0
    remove_s: float = 60.0
    tell_s: float = 1.0
    retry_s: float = 1.0


@dataclass
class Loops:
    """The loops of one worker. `hire` gives each its own connections; `news` is set whenever a line was read."""

    supervisor: Supervisor
    hire: Callable[[], Worker]
    pool: Pool
    health: Health
    log: Log
    teller: Teller
    pace: Pace = field(default_factory=Pace)
    fix: bool = False
    keep: timedelta | None = None
    """How long what is published of a sealed task stays; None: for ever."""
    news: Event = field(default_factory=Event)

    def start(self) -> None:
        """Each gets its connections here: where Vault does not answer now, nothing begins."""
        loops = [self.sources, self.intake, self.due, self.tripwires, self.canary]
        loops += [self.sweep] if self.pace.sweep_s else []
        loops += [self.retention] if self.keep is not None else []
        for run in loops:
            self.supervisor.start(run.__name__, partial(run, self.hire()))
        self.supervisor.start("notices", self.notices)

    # -- the audit stream ------------------------------------------------------------------------------

    def sources(self, worker: Worker) -> None:
        known = set[str]()

        def look_around() -> None:
            # a file that is not ours may grow all the time, and each look at it costs Vault a request
            for source in worker.sources.present():
                if source.name not in known:
                    known.add(source.name)
                    self.supervisor.start(f"observe {source.name}", partial(self._read, source.name, worker))
            if observe(worker):
                self.news.set()

        self._every("sources", self.pace.look_around_s, look_around)

    def _read(self, name: str, worker: Worker) -> None:
        # reading asks Vault for nothing, so the connections of another thread are not touched
        def on() -> None:
            begun = time.monotonic()
            for source in worker.sources.present():
                if source.name == name and read_on(worker, source):
                    self.health.count("readings", source=name)
                    self.news.set()
            # a batch costs much the same however many lines it has: the busier it is here, the more come at a time
            took_s = time.monotonic() - begun
            self.supervisor.stopping.wait(min(_LONGEST_REST_S, max(self.pace.read_s, 2 * took_s)))

        self._every(f"observe {name}", 0, on)

    def canary(self, worker: Worker) -> None:
        def look() -> None:
            found = examine(worker)
            trusted = found.trust is Trust.TRUSTED
            why = None if trusted else found.why or "the audit stream is not trusted"
            if found.lag is not None:
                self.health.set("stream_lag_seconds", found.lag / timedelta(seconds=1))
            if why != self.health.why_not_trusted:
                if trusted:
                    self.log.info("the audit stream is trusted", lag_ms=found.as_json()["lag_ms"])
                else:
                    self.log.error("the audit stream is not trusted", why=why, hint=found.hint)
            self.health.why_not_trusted = why

        def failed(error: JitvaultError) -> None:
            self.health.why_not_trusted = str(error)

        self._every("canary", self.pace.canary_s, look, failed=failed)

    # -- what is wanted --------------------------------------------------------------------------------

    def intake(self, worker: Worker) -> None:
        """Woken by what the stream shows, whoever read it; nothing is lost where it is missed, only later."""
        frozen = dict[str, str]()
        word, listed, turns, quiet = Word(worker), -self.pace.list_s, 0, True

        def look() -> None:
            nonlocal listed, turns, quiet
            self.news.wait(self.pace.wake_s)
            self.news.clear()
            for one in word.new():
                quiet = quiet and not one.freezes
                if one.task_id:
                    urgency = Urgency.END if one.ends else Urgency.ASKED
                    job = Job(one.task_id, urgency, hint=one.author, to_grant=one.grants, since=one.since)
                    self.pool.want(job, news=True)
            if not quiet:
                # until it went well: a freeze must not be forgotten because Vault did not answer
                self._want_all(worker, covered(worker), frozen)
                quiet = True
            if time.monotonic() - listed >= self.pace.list_s:
                # what the stream did not show; all that waits for approvals seldom, since each costs Vault requests
                for task_id, entity in requested(worker, ungranted=turns % _WHOLE_EVERY == 0).items():
                    self.pool.want(Job(task_id, Urgency.ASKED, hint=entity))
                listed, turns, quiet = time.monotonic(), turns + 1, False
            self.pool.measure()

        self._every("intake", 0, look)

    def due(self, worker: Worker) -> None:
        def look() -> None:
            more = self._take_due(worker)
            self.supervisor.stopping.wait(self.pace.due_s / (_HASTE if more else 1))

        self._every("due", 0, look)

    def tripwires(self, worker: Worker) -> None:
        """Beside `due`: with thousands of tasks that are held one look takes seconds, and renewals do not wait."""
        seen, known = dict[str, int](), dict[str, str]()

        def look() -> None:
            begun = time.monotonic()
            # a part of them at a time, so that what was found and a freeze are soon told
            found = tripped(worker, seen, lambda: time.monotonic() - begun < _TRIPWIRES_S)
            self._want_all(worker, found, known)
            # never more than a tenth of the time
            self.supervisor.stopping.wait(max(self.pace.due_s, 10 * (time.monotonic() - begun)))

        self._every("tripwires", 0, look)

    def _take_due(self, worker: Worker) -> bool:
        """Take as much of what is due as the hands are ready for; gives whether there may be more of it."""
        ledger, pool = worker.ledger, self.pool
        # that everybody asks for something must not keep from its renewal what would starve
        only_held = not pool.room()
        room = pool.room(only_held=only_held)
        if not room:
            return True
        taken = ledger.take_due(worker.now(), room, besides=pool.seen_to(), only_held=only_held)
        for task_id in taken:
            task = ledger.task(task_id)
            urgency = Urgency.HELD if task is not None and task.state in HOLDING else Urgency.DUE
            if not pool.want(Job(task_id, urgency, if_due=True)):
                ledger.give_back(task_id)
        return only_held or len(taken) == room

    def _want_all(self, worker: Worker, reasons: Reasons, known: dict[str, str]) -> None:
        """All doors first, then the rest of each. `known` are the reasons that were found last time."""
        claims = worker.ledger.newest_claims(reasons) if reasons else {}
        for task_id, why in reasons.items():
            new = known.get(task_id) != why
            if new:
                self.log.warning("task has to end", task=task_id, why=why)
            self.pool.want(Job(task_id, Urgency.END, hurry=new, since=claims.get(task_id)), news=new)
        known.clear()
        known.update(reasons)

    # -- the rest --------------------------------------------------------------------------------------

    def sweep(self, worker: Worker) -> None:
        def look() -> None:
            swept = sweep(worker, fix=self.fix)
            self.health.set("sweep_remaining", len(swept.remaining))
            if (failure := outcome(swept)) is not None:
                self.log.warning("sweep", found=str(failure), hint=failure.hint)

        self._every("sweep", self.pace.sweep_s, look, at_once=False)

    def retention(self, worker: Worker) -> None:
        removals = Removals(worker, self.keep or timedelta.max)

        def look() -> None:
            try:
                removed = removals.some()
            except VaultRefused as error:
                # a policy of an older version: nobody's access hangs on it
                raise WrongState(f"what is published cannot be removed: {error}", hint=error.hint) from None
            self.health.count("removed", removed)
            if removed:
                self.log.info("removed what was published of sealed tasks", tasks=removed)

        self._every("retention", self.pace.remove_s, look)

    def notices(self) -> None:
        known = ""

        def tell() -> None:
            nonlocal known
            whys: list[str] = []
            arrived = self.teller.tell(whys.append, stopped=self.supervisor.stopping.is_set)
            self.health.count("notices", arrived)
            if whys and whys[-1] != known:
                known = whys[-1]
                self.log.warning("notices are not taken, and told again for a day", why=known)
            elif known and arrived and not whys:
                known = ""
                self.log.info("notices are taken again")

        self._every("notices", self.pace.tell_s, tell)

    def _every(
        self,
        name: str,
        seconds: float,
        act: Callable[[], None],
        *,
        failed: Callable[[JitvaultError], None] = lambda _: None,
        at_once: bool = True,
    ) -> None:
        """Do it until the worker ends. What passes by itself is told once, and tried again a little later."""
        stopping, known = self.supervisor.stopping, ""
        wait_s = 0.0 if at_once else seconds
        while not self._rest(name, wait_s):
            wait_s = seconds
            try:
                act()
            except PASSING as error:
                failed(error)
                if str(error) != known and not stopping.is_set():
                    self.log.warning("trouble", loop=name, error=str(error), hint=error.hint)
                known, wait_s = str(error), max(seconds, self.pace.retry_s)
                continue
            if known:
                self.log.info("trouble is over", loop=name)
                known = ""

    def _rest(self, name: str, seconds: float) -> bool:
        """Wait; True where the worker ends. A loop that waits for long says meanwhile that it lives."""
        until = time.monotonic() + seconds
        while True:
            self.supervisor.beat(name)
            left = until - time.monotonic()
            if self.supervisor.stopping.wait(max(0.0, min(left, 10.0))):
                return True
            if left <= 10.0:
                return False
