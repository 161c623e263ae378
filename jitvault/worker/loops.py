"""What the worker does repeatedly, each in a loop of its own.

The loops only find out which tasks need work and why; the threads of `pool` advance the tasks.

    sources    starts a loop for each audit source that appears, and looks whether untrusted ones show a canary
    observe    ingests the lines of one source
    intake     documents that people wrote, as the stream shows them
    backlog    documents in Vault that were not handled, every now and then; however many, new work does not wait
    quota      authors who write more than their quota
    due        tasks whose time has come by the ledger
    tripwires  tasks that touched a tripwire
    canary     whether the stream is trusted
    targets    whether each target can be reached, also while one of its logins locks everyone out
    upkeep     what engines publish and has to renew, such as lists of revoked certificates
    sweep      whether Vault, ledger and stream agree; reported, and mended only where that was asked for
    retention  removes the published documents of tasks that were sealed long ago
    notices    sends notices to people
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
from jitvault.kill_switch.triggers import Reasons, covered_by_freeze, tripped
from jitvault.lifecycle.confirmation.probe_sessions import Probe, ProbeSessions
from jitvault.lifecycle.record.due_time import due_too_late
from jitvault.lifecycle.renewal.upkeep import PublishedListRenewals
from jitvault.lifecycle.requests.pending import Backlog, DocumentWatcher, Triage
from jitvault.lifecycle.requests.quota import record_over_quota
from jitvault.lifecycle.requests.retention import Removals
from jitvault.model.states import LIVE_STATES
from jitvault.notices.notifier import Notifier
from jitvault.stream.reading import observe
from jitvault.stream.source_reading import read_on
from jitvault.stream.status import Trust, examine
from jitvault.sweep.report import outcome
from jitvault.sweep.sweep import sweep
from jitvault.worker.author_rate import AuthorRate
from jitvault.worker.health import Health
from jitvault.worker.logs import Log
from jitvault.worker.pool import Pool
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, Urgency

PASSING = (AuditUntrusted, VaultUnavailable, WrongState)
"""Errors that pass by themselves: logged once and tried again. All others end the loop, and with it the worker."""
CONNECTIONS = "the senders of receivers"
"""The name of the one loop that reads all sources that come and go."""
_UNGRANTED_EVERY = 10
_BACKLOG_BATCH = 20
# a listing takes at most one in so many parts of the time
_LIST_REST = 20
# how soon documents that were too many are listed again
_BEHIND_S = 10.0
# the share of an author's quota that the backlog leaves for new documents
_SPARE = 0.5
# an author whose documents wait for longer is reported, and again after this time
_OVER_QUOTA_S, _REPORT_EVERY_S = 5.0, 60.0
# looks so many times sooner where more tasks are due than were taken: the threads are soon ready for them
_FASTER = 5
_TRIPWIRES_S = 0.25
_STAND_BY_S = 0.5
# sooner than a client that reconnects can have taken every lock again
_THROW_OUT_S = 0.02
# the longest pause between two readings
_LONGEST_REST_S = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How often each loop runs, in seconds. `sweep_s` of 0 is never."""

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
    """The loops of one worker.

    `hire` makes a context with its own connections for each loop. `news` is set whenever a line was ingested.
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

    def start(self) -> None:
        """Start all loops.

        Each gets its connections here, so that nothing begins where Vault does not answer.
        """
        loops = [self.sources, self.intake, self.backlog, self.quota, self.due, self.tripwires, self.canary]
        loops += [self.targets, self.upkeep]
        loops += [self.sweep] if self.pace.sweep_s else []
        loops += [self.retention] if self.keep is not None else []
        for run in loops:
            self.supervisor.start(run.__name__, partial(run, self.hire()))
        self.supervisor.start("notices", self.notices)

    # -- the audit stream ------------------------------------------------------------------------------

    def sources(self, worker: WorkerContext) -> None:
        """Start a loop for each new source, and look for canaries in the others."""
        known = set[str]()

        def look_around() -> None:
            # not each time a file grows: a file that is not this Vault's may always grow, and each look costs a request
            for source in worker.sources.present():
                # each connection to a receiver is a source: all of these share a thread
                name = CONNECTIONS if source.passing else source.name
                if name not in known:
                    reader = self.hire()
                    known.add(name)
                    self.supervisor.start(f"observe {name}", partial(self._read, name, reader))
            if observe(worker):
                self.news.set()

        self._every("sources", self.pace.look_around_s, look_around)

    def _read(self, name: str, worker: WorkerContext) -> None:
        """Ingest the sources of this name over and over."""

        def read_all() -> None:
            begun = time.monotonic()
            present = worker.sources.present()
            sources = [source for source in present if name == (CONNECTIONS if source.passing else source.name)]
            trusted = {n for n, reading in worker.ledger.readings().items() if reading.vouched}
            for source in sources:
                if source.name in trusted and read_on(worker, source):
                    self.health.count("readings", source=source.name)
                    self.news.set()
            # A batch costs much the same however many lines it has, so a busy worker reads more lines at a time.
            took_s = time.monotonic() - begun
            self.supervisor.stopping.wait(min(_LONGEST_REST_S, max(self.pace.read_s, 2 * took_s)))

        self._every(f"observe {name}", 0, read_all)

    def canary(self, worker: WorkerContext) -> None:
        """Send canaries, and log when the stream becomes trusted or untrusted."""

        def look() -> None:
            status = examine(worker)
            trusted = status.trust is Trust.TRUSTED
            why = None if trusted else status.why or "the audit stream is not trusted"
            if status.lag is not None:
                self.health.set("stream_lag_seconds", status.lag / timedelta(seconds=1))
            if why != self.health.why_not_trusted:
                if trusted:
                    self.log.info("the audit stream is trusted", lag_ms=status.as_json()["lag_ms"])
                else:
                    self.log.error("the audit stream is not trusted", why=why, hint=status.hint)
            self.health.why_not_trusted = why

        def failed(error: JitvaultError) -> None:
            self.health.why_not_trusted = str(error)

        self._every("canary", self.pace.canary_s, look, failed=failed)

    def targets(self, worker: WorkerContext) -> None:
        """Start a loop for each probe.

        A target that hangs then does not delay the others.
        """
        stand_by = ProbeSessions(worker)
        known = set[Probe]()

        def look() -> None:
            for probe in stand_by.probes():
                if probe not in known:
                    known.add(probe)
                    self.supervisor.start(f"target {probe[1]}", partial(self._stand_by, stand_by, probe))

        self._every("targets", self.pace.targets_s, look)

    def _stand_by(self, stand_by: ProbeSessions, probe: Probe) -> None:
        """Keep one target reachable."""
        logged = set[str]()

        def look() -> None:
            try:
                locking_logins = stand_by.look(probe)
            except NotConfirmed as error:
                raise WrongState(f"a target cannot be asked: {error}", hint=error.hint) from None
            for name in set(locking_logins) - logged:
                self.log.warning("a login locked everybody out of its target; its sessions are ended", login=name)
            logged.update(locking_logins)
            self.supervisor.stopping.wait(_THROW_OUT_S if locking_logins else _STAND_BY_S)

        self._every(f"target {probe[1]}", 0, look)

    def upkeep(self, worker: WorkerContext) -> None:
        """Renew what engines publish."""
        renewals = PublishedListRenewals(worker)

        def look() -> None:
            self.health.count("renewed", renewals.renew_due())

        self._every("upkeep", self.pace.upkeep_s, look)

    # -- finding work ---------------------------------------------------------------------------------

    def intake(self, worker: WorkerContext) -> None:
        """Queue the tasks of documents that the stream shows.

        Woken by each new line, whichever loop ingested it. A missed wake-up delays documents and loses none.
        """
        frozen = dict[str, str]()
        watcher = DocumentWatcher(worker)
        triage = Triage(worker)
        listed = -self.pace.list_s
        freezes_checked = True
        list_again = False

        def look() -> None:
            nonlocal listed, freezes_checked, list_again
            self.news.wait(self.pace.wake_s)
            self.news.clear()
            items = watcher.new()
            for item, effect in triage.sort(items):
                self._queue_document(item, effect)
            for job in self.gate.release(time.monotonic(), self.pool.waiting_of):
                self.pool.want(job, news=True)
            if time.monotonic() - listed >= self.pace.list_s:
                # for freezes that the stream did not show
                listed = time.monotonic()
                freezes_checked = False
                list_again = True
            freezes_checked = freezes_checked and not any(item.freezes for item in items)
            if not freezes_checked:
                # repeated until it succeeds: a freeze must not be forgotten because Vault did not answer
                looking_worker = replace(worker, is_blind=self.health.why_not_trusted is not None)
                self._want_all(worker, covered_by_freeze(looking_worker, list_again=list_again), frozen)
                freezes_checked = True
                list_again = False
            self.pool.measure()

        self._every("intake", 0, look)

    def _queue_document(self, item: WorkItem, effect: DocumentEffect) -> None:
        """Queue a document's task: at once, or in its author's turn."""
        now = time.monotonic()
        hint = item.author if item.requests else None
        job = Job(item.task_id, Urgency.ASKED, hint=hint, author=item.author, to_grant=item.grants, since=item.since)
        if effect is DocumentEffect.REVOKE:
            self.pool.want(replace(job, urgency=Urgency.REVOKE), news=True)
        elif effect is DocumentEffect.END and self.gate.spend(item.author, now):
            self.pool.want(replace(job, urgency=Urgency.END), news=True)
        elif effect is not DocumentEffect.NOTHING:
            self.gate.keep(job, now)

    def backlog(self, worker: WorkerContext) -> None:
        """Queue documents that the stream did not show or that were too many."""
        backlog = Backlog(worker)
        triage = Triage(worker)
        listed = time.monotonic()
        next_s = 0.0
        turns = 0
        waiting = list[str]()
        behind = set[str]()

        def look() -> None:
            nonlocal listed, next_s, turns
            begun = time.monotonic()
            behind.update(self.gate.take_behind())
            if begun - listed >= self._list_after(next_s, backlog, behind):
                unseen = backlog.list_again(is_blind=self.health.why_not_trusted is not None)
                for item, effect in triage.sort(unseen):
                    self._queue_document(item, effect)
                # tasks that wait for approvals only seldom, since each costs Vault requests
                waiting[:] = worker.ledger.ungranted() if behind or turns % _UNGRANTED_EVERY == 0 else waiting
                # however many documents there are, listing them takes a small part of the time
                listed = time.monotonic()
                turns += 1
                behind.clear()
                next_s = max(self.pace.list_s, _LIST_REST * (listed - begun))
            room = self.pool.room(Urgency.BACKLOG)
            for task_id in waiting[:room]:
                self.pool.want(Job(task_id, Urgency.BACKLOG))
            del waiting[:room]
            found = backlog.some(min(room, _BACKLOG_BATCH), lambda author: self.gate.spend(author, begun, spare=_SPARE))
            for task_id, author in found:
                self.pool.want(Job(task_id, Urgency.BACKLOG, hint=author, author=author))
            self.health.set("backlog", backlog.left + len(waiting))
            # at most a third of the time, and the threads work meanwhile
            self.supervisor.stopping.wait(max(self.pace.due_s, 2 * (time.monotonic() - begun)))

        self._every("backlog", 0, look)

    def _list_after(self, next_s: float, backlog: Backlog, behind: set[str]) -> float:
        """Return how long after the last listing the next one comes, in seconds.

        Sooner where the stream does not show which documents exist.
        """
        if not backlog.is_told:
            return min(next_s, self.pace.retry_s)
        return min(next_s, _BEHIND_S) if behind or self.health.why_not_trusted is not None else next_s

    def quota(self, worker: WorkerContext) -> None:
        """Report authors whose documents wait because of their quota.

        To the authors and to readers of the ledger.
        """
        reported = dict[str, float]()

        def look() -> None:
            now = time.monotonic()
            over = self.gate.waiting(now, longer_than_s=_OVER_QUOTA_S)
            for author in set(reported) - set(over):
                record_over_quota(worker, author, 0, self.gate.per_minute)
                del reported[author]
            for author, waiting in over.items():
                if now - reported.get(author, -_REPORT_EVERY_S) >= _REPORT_EVERY_S:
                    self.log.warning("an author writes more documents than the quota", author=author, waiting=waiting)
                    reported[author] = now
                    record_over_quota(worker, author, waiting, self.gate.per_minute)
            self.health.set("documents_over_quota", sum(over.values()))

        self._every("quota", self.pace.tell_s, look)

    def due(self, worker: WorkerContext) -> None:
        """Queue tasks whose time has come."""
        looked = -self.pace.list_s

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked >= self.pace.list_s:
                looked = time.monotonic()
                for task_id in due_too_late(worker):
                    self.log.warning("a task is due too far in the future: a clock was wrong", task=task_id)
                    self.pool.want(Job(task_id, Urgency.DUE), news=True)
            more = self._take_due(worker)
            self.supervisor.stopping.wait(self.pace.due_s / (_FASTER if more else 1))

        self._every("due", 0, look)

    def tripwires(self, worker: WorkerContext) -> None:
        """Queue held tasks that touched a tripwire.

        A loop beside `due`: with thousands of held tasks one look takes seconds, and renewals must not wait for it.
        """
        seen = dict[str, int]()
        known = dict[str, str]()

        def look() -> None:
            begun = time.monotonic()
            # a part of the tasks at a time, so that hits and freezes are handled soon
            found = tripped(worker, seen, lambda: time.monotonic() - begun < _TRIPWIRES_S)
            self._want_all(worker, found, known)
            # at most a tenth of the time
            self.supervisor.stopping.wait(max(self.pace.due_s, 10 * (time.monotonic() - begun)))

        self._every("tripwires", 0, look)

    def _take_due(self, worker: WorkerContext) -> bool:
        """Claim as many due tasks as the threads are ready for.

        Returns whether there may be more.
        """
        ledger = worker.ledger
        pool = self.pool
        # other due work must not delay the renewals of held tasks, whose credentials would expire
        only_held = not pool.room(Urgency.HELD, Urgency.DUE)
        room = pool.room(Urgency.HELD) if only_held else pool.room(Urgency.HELD, Urgency.DUE)
        if not room:
            return True
        taken = ledger.take_due(worker.now(), room, besides=pool.already_due(), only_held=only_held)
        for task_id in taken:
            task = ledger.task(task_id)
            urgency = Urgency.HELD if task is not None and task.state in LIVE_STATES else Urgency.DUE
            if not pool.want(Job(task_id, urgency, if_due=True)):
                ledger.give_back(task_id)
        return only_held or len(taken) == room

    def _want_all(self, worker: WorkerContext, reasons: Reasons, known: dict[str, str]) -> None:
        """Queue all tasks that have to end.

        First a quick job for each, which revokes the tokens, then the rest of each. `known` are the reasons that were
        found last time; it is updated.
        """
        claims = worker.ledger.newest_claims(reasons) if reasons else {}
        for task_id, why in reasons.items():
            is_new = known.get(task_id) != why
            if is_new:
                self.log.warning("task has to end", task=task_id, why=why)
            self.pool.want(Job(task_id, Urgency.REVOKE, hurry=is_new, since=claims.get(task_id)), news=is_new)
        known.clear()
        known.update(reasons)

    # -- the rest --------------------------------------------------------------------------------------

    def sweep(self, worker: WorkerContext) -> None:
        """Run the sweep, and log what remains."""

        def look() -> None:
            result = sweep(worker, fix=self.fix)
            self.health.set("sweep_remaining", len(result.remaining))
            failure = outcome(result)
            if failure is not None:
                self.log.warning("sweep", found=str(failure), hint=failure.hint)

        self._every("sweep", self.pace.sweep_s, look, at_once=False)

    def retention(self, worker: WorkerContext) -> None:
        """Remove published documents of tasks that were sealed long ago."""
        removals = Removals(worker, self.keep or timedelta.max)

        def look() -> None:
            try:
                removed = removals.some()
            except VaultRefused as error:
                # a worker policy of an older version lacks the right, and no access depends on it
                raise WrongState(f"published documents cannot be deleted: {error}", hint=error.hint) from None
            self.health.count("removed", removed)
            if removed:
                self.log.info("removed what was published of sealed tasks", tasks=removed)

        self._every("retention", self.pace.remove_s, look)

    def notices(self) -> None:
        """Send notices, and log when channels fail or recover."""
        known = ""

        def tell() -> None:
            nonlocal known
            whys: list[str] = []
            arrived = self.teller.tell(whys.append, stopped=self.supervisor.stopping.is_set)
            self.health.count("notices", arrived)
            if whys and whys[-1] != known:
                known = whys[-1]
                self.log.warning("notices are not delivered and will be retried for a day", why=known)
            elif known and arrived and not whys:
                known = ""
                self.log.info("notices are delivered again")

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
                    self.log.warning("trouble", loop=name, error=str(error), hint=error.hint)
                known = str(error)
                wait_s = max(seconds, self.pace.retry_s)
                continue
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
