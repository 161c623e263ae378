"""What the worker does over and over, each in a loop of its own. They only find out which tasks are wanted and why;
`pool` looks after those.

    sources    one more loop for each audit source that appears; the sources that do not count yet are asked whether
               they are ours
    observe    one source's lines into the ledger
    intake     what people wrote, as the stream shows it
    backlog    what lies in Vault and was not done, every now and then; whatever there is of it, new work does not wait
    due        whose time has come by the ledger
    tripwires  what touched one
    canary     whether the stream is trusted
    targets    whether each target can be asked, also while one of its logins keeps everybody out
    upkeep     what engines publish and does not stay valid by itself, such as lists of revoked certificates
    sweep      whether Vault, ledger and stream agree; told, and mended only where that was asked for
    retention  what is published of tasks that were sealed long ago, out of Vault
    notices    what people outside are to hear
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from threading import Event

from jitvault.context import WorkerContext
from jitvault.documents.paths import DocumentEffect, WorkItem
from jitvault.errors import AuditUntrusted, JitvaultError, NotConfirmed, VaultRefused, VaultUnavailable, WrongState
from jitvault.kill_switch.triggers import Reasons, covered, tripped
from jitvault.lifecycle.confirmation.stand_by import Probe, StandBy
from jitvault.lifecycle.renewal.schedule import due_too_late
from jitvault.lifecycle.renewal.upkeep import PublishedListRenewals
from jitvault.lifecycle.requests.pending import Backlog, DocumentWatcher, Triage
from jitvault.lifecycle.requests.quota import tell_over_quota
from jitvault.lifecycle.requests.retention import Removals
from jitvault.model.states import LIVE_STATES
from jitvault.notices.notifier import Notifier
from jitvault.stream.reading import observe, read_on
from jitvault.stream.status import Trust, examine
from jitvault.sweep.report import outcome
from jitvault.sweep.sweep import sweep
from jitvault.worker.gate import Gate
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.pool import Pool
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, Urgency

PASSING = (AuditUntrusted, VaultUnavailable, WrongState)
"""What passes by itself: it is told once and tried again. Everything else ends the loop, and with it the worker."""
CONNECTIONS = "the senders of receivers"
"""The name under which all sources that come and go are read."""
_WHOLE_EVERY = 10
_SOME, _LIST_REST = 20, 20
# how soon what was too much is read again
_BEHIND_S = 10.0
# so much of an author's quota is left to what they write now
_SPARE = 0.5
# whose documents wait for longer is told, and told again as often as this
_OVER_S, _TELL_OVER_EVERY_S = 5.0, 60.0
# where more is due than was taken the hands are soon ready for it
_HASTE = 5
_TRIPWIRES_S = 0.25
_STAND_BY_S = 0.5
# sooner than a client that comes back has taken every lock once more
_THROW_OUT_S = 0.02
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
    targets_s: float = 60.0
    upkeep_s: float = 1.0
    list_s: float = 60.0
    sweep_s: float = 3600.0
    remove_s: float = 60.0
    tell_s: float = 1.0
    retry_s: float = 1.0


@dataclass
class Loops:
    """The loops of one worker. `hire` gives each its own connections; `news` is set whenever a line was read."""

    supervisor: Supervisor
    hire: Callable[[], WorkerContext]
    pool: Pool
    health: Health
    log: Log
    teller: Notifier
    pace: Pace = field(default_factory=Pace)
    fix: bool = False
    keep: timedelta | None = None
    """How long what is published of a sealed task stays; None: for ever."""
    gate: Gate = field(default_factory=lambda: Gate(per_minute=1200))
    news: Event = field(default_factory=Event)

    def start(self) -> None:
        """Each gets its connections here: where Vault does not answer now, nothing begins."""
        loops = [self.sources, self.intake, self.backlog, self.quota, self.due, self.tripwires, self.canary]
        loops += [self.targets, self.upkeep]
        loops += [self.sweep] if self.pace.sweep_s else []
        loops += [self.retention] if self.keep is not None else []
        for run in loops:
            self.supervisor.start(run.__name__, partial(run, self.hire()))
        self.supervisor.start("notices", self.notices)

    # -- the audit stream ------------------------------------------------------------------------------

    def sources(self, worker: WorkerContext) -> None:
        known = set[str]()

        def look_around() -> None:
            # a file that is not ours may grow all the time, and each look at it costs Vault a request
            for source in worker.sources.present():
                # whoever connects to a receiver makes one: all of those share a thread
                name = CONNECTIONS if source.passing else source.name
                if name not in known:
                    reader = self.hire()
                    known.add(name)
                    self.supervisor.start(f"observe {name}", partial(self._read, name, reader))
            if observe(worker):
                self.news.set()

        self._every("sources", self.pace.look_around_s, look_around)

    def _read(self, name: str, worker: WorkerContext) -> None:
        def on() -> None:
            begun = time.monotonic()
            there = [one for one in worker.sources.present() if name == (CONNECTIONS if one.passing else one.name)]
            counting = {n for n, reading in worker.ledger.readings().items() if reading.vouched}
            for source in there:
                if source.name in counting and read_on(worker, source):
                    self.health.count("readings", source=source.name)
                    self.news.set()
            # a batch costs much the same however many lines it has: the busier it is here, the more come at a time
            took_s = time.monotonic() - begun
            self.supervisor.stopping.wait(min(_LONGEST_REST_S, max(self.pace.read_s, 2 * took_s)))

        self._every(f"observe {name}", 0, on)

    def canary(self, worker: WorkerContext) -> None:
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

    def targets(self, worker: WorkerContext) -> None:
        """One more loop for each probe: a target that hangs keeps nobody from another one."""
        stand_by, known = StandBy(worker), set[Probe]()

        def look() -> None:
            for probe in stand_by.probes():
                if probe not in known:
                    known.add(probe)
                    self.supervisor.start(f"target {probe[1]}", partial(self._stand_by, stand_by, probe))

        self._every("targets", self.pace.targets_s, look)

    def _stand_by(self, stand_by: StandBy, probe: Probe) -> None:
        told = set[str]()

        def look() -> None:
            try:
                kept_out = stand_by.look(probe)
            except NotConfirmed as error:
                raise WrongState(f"a target cannot be asked: {error}", hint=error.hint) from None
            for name in set(kept_out) - told:
                self.log.warning("a login kept everybody out of its target, and is thrown out", login=name)
            told.update(kept_out)
            self.supervisor.stopping.wait(_THROW_OUT_S if kept_out else _STAND_BY_S)

        self._every(f"target {probe[1]}", 0, look)

    def upkeep(self, worker: WorkerContext) -> None:
        renewals = PublishedListRenewals(worker)

        def look() -> None:
            self.health.count("renewed", renewals.renew_due())

        self._every("upkeep", self.pace.upkeep_s, look)

    # -- what is wanted --------------------------------------------------------------------------------

    def intake(self, worker: WorkerContext) -> None:
        """Woken by what the stream shows, whoever read it; nothing is lost where it is missed, only later."""
        frozen = dict[str, str]()
        word, triage, listed, quiet, unseen = DocumentWatcher(worker), Triage(worker), -self.pace.list_s, True, False

        def look() -> None:
            nonlocal listed, quiet, unseen
            self.news.wait(self.pace.wake_s)
            self.news.clear()
            asks = word.new()
            for ask, how in triage.sort(asks):
                self._take_in(ask, how)
            for job in self.gate.release(time.monotonic(), self.pool.waiting_of):
                self.pool.want(job, news=True)
            if time.monotonic() - listed >= self.pace.list_s:
                # what the stream did not show
                listed, quiet, unseen = time.monotonic(), False, True
            quiet = quiet and not any(ask.freezes for ask in asks)
            if not quiet:
                # until it went well: a freeze must not be forgotten because Vault did not answer
                eyes = replace(worker, is_blind=self.health.why_not_trusted is not None)
                self._want_all(worker, covered(eyes, list_again=unseen), frozen)
                quiet, unseen = True, False
            self.pool.measure()

        self._every("intake", 0, look)

    def _take_in(self, ask: WorkItem, how: DocumentEffect) -> None:
        """Have a document's task looked after: at once, or in the turn of its author."""
        now, hint = time.monotonic(), ask.author if ask.requests else None
        job = Job(ask.task_id, Urgency.ASKED, hint=hint, author=ask.author, to_grant=ask.grants, since=ask.since)
        if how is DocumentEffect.REVOKE:
            self.pool.want(replace(job, urgency=Urgency.REVOKE), news=True)
        elif how is DocumentEffect.END and self.gate.spend(ask.author, now):
            self.pool.want(replace(job, urgency=Urgency.END), news=True)
        elif how is not DocumentEffect.NOTHING:
            self.gate.keep(job, now)

    def backlog(self, worker: WorkerContext) -> None:
        """What the stream did not show, and what was too much when it did."""
        backlog, triage, listed, next_s, turns = Backlog(worker), Triage(worker), time.monotonic(), 0.0, 0
        waiting, behind = list[str](), set[str]()

        def look() -> None:
            nonlocal listed, next_s, turns
            begun = time.monotonic()
            behind.update(self.gate.take_behind())
            if begun - listed >= self._list_after(next_s, backlog, behind):
                unseen = backlog.list_again(is_blind=self.health.why_not_trusted is not None)
                for ask, how in triage.sort(unseen):
                    self._take_in(ask, how)
                # all that waits for approvals seldom, since each costs Vault requests
                waiting[:] = worker.ledger.ungranted() if behind or turns % _WHOLE_EVERY == 0 else waiting
                # however much lies there, looking through it takes a small part of the time
                listed, turns = time.monotonic(), turns + 1
                behind.clear()
                next_s = max(self.pace.list_s, _LIST_REST * (listed - begun))
            room = self.pool.room(Urgency.BACKLOG)
            for task_id in waiting[:room]:
                self.pool.want(Job(task_id, Urgency.BACKLOG))
            del waiting[:room]
            found = backlog.some(min(room, _SOME), lambda author: self.gate.spend(author, begun, spare=_SPARE))
            for task_id, author in found:
                self.pool.want(Job(task_id, Urgency.BACKLOG, hint=author, author=author))
            self.health.set("backlog", backlog.left + len(waiting))
            # never more than a third of the time, and the hands work meanwhile
            self.supervisor.stopping.wait(max(self.pace.due_s, 2 * (time.monotonic() - begun)))

        self._every("backlog", 0, look)

    def _list_after(self, next_s: float, backlog: Backlog, behind: set[str]) -> float:
        """How long after the last list the next one comes: sooner where the stream does not tell what lies there."""
        if not backlog.is_told:
            return min(next_s, self.pace.retry_s)
        return min(next_s, _BEHIND_S) if behind or self.health.why_not_trusted is not None else next_s

    def quota(self, worker: WorkerContext) -> None:
        """Tell those whose documents wait since they are too many, and whoever looks at the ledger."""
        told = dict[str, float]()

        def look() -> None:
            now = time.monotonic()
            over = self.gate.waiting(now, longer_than_s=_OVER_S)
            for author in [author for author in told if author not in over]:
                tell_over_quota(worker, author, 0, self.gate.per_minute)
                del told[author]
            for author, waiting in over.items():
                if now - told.get(author, -_TELL_OVER_EVERY_S) >= _TELL_OVER_EVERY_S:
                    self.log.warning("an author writes more than is taken in", author=author, waiting=waiting)
                    told[author] = now
                    tell_over_quota(worker, author, waiting, self.gate.per_minute)
            self.health.set("documents_over_quota", sum(over.values()))

        self._every("quota", self.pace.tell_s, look)

    def due(self, worker: WorkerContext) -> None:
        looked = -self.pace.list_s

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked >= self.pace.list_s:
                looked = time.monotonic()
                for task_id in due_too_late(worker):
                    self.log.warning("the next look at a task lies too far away: a clock was wrong", task=task_id)
                    self.pool.want(Job(task_id, Urgency.DUE), news=True)
            more = self._take_due(worker)
            self.supervisor.stopping.wait(self.pace.due_s / (_HASTE if more else 1))

        self._every("due", 0, look)

    def tripwires(self, worker: WorkerContext) -> None:
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

    def _take_due(self, worker: WorkerContext) -> bool:
        """Take as much of what is due as the hands are ready for; gives whether there may be more of it."""
        ledger, pool = worker.ledger, self.pool
        # that much else is due must not keep from its renewal what would starve
        only_held = not pool.room(Urgency.HELD, Urgency.DUE)
        room = pool.room(Urgency.HELD) if only_held else pool.room(Urgency.HELD, Urgency.DUE)
        if not room:
            return True
        taken = ledger.take_due(worker.now(), room, besides=pool.seen_to(), only_held=only_held)
        for task_id in taken:
            task = ledger.task(task_id)
            urgency = Urgency.HELD if task is not None and task.state in LIVE_STATES else Urgency.DUE
            if not pool.want(Job(task_id, urgency, if_due=True)):
                ledger.give_back(task_id)
        return only_held or len(taken) == room

    def _want_all(self, worker: WorkerContext, reasons: Reasons, known: dict[str, str]) -> None:
        """All doors first, then the rest of each. `known` are the reasons that were found last time."""
        claims = worker.ledger.newest_claims(reasons) if reasons else {}
        for task_id, why in reasons.items():
            new = known.get(task_id) != why
            if new:
                self.log.warning("task has to end", task=task_id, why=why)
            self.pool.want(Job(task_id, Urgency.REVOKE, hurry=new, since=claims.get(task_id)), news=new)
        known.clear()
        known.update(reasons)

    # -- the rest --------------------------------------------------------------------------------------

    def sweep(self, worker: WorkerContext) -> None:
        def look() -> None:
            swept = sweep(worker, fix=self.fix)
            self.health.set("sweep_remaining", len(swept.remaining))
            if (failure := outcome(swept)) is not None:
                self.log.warning("sweep", found=str(failure), hint=failure.hint)

        self._every("sweep", self.pace.sweep_s, look, at_once=False)

    def retention(self, worker: WorkerContext) -> None:
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
