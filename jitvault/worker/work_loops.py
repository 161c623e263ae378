"""The loops that find tasks with work, and queue them for the threads."""

from __future__ import annotations

import time
from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.documents.paths import DocumentEffect, WorkItem
from jitvault.errors import JitvaultError
from jitvault.kill_switch.triggers import Reasons, covered_by_freeze, tripped
from jitvault.ledger.kept_tasks import OfferedTask
from jitvault.ledger.model import TaskRow
from jitvault.ledger.unchanged import NothingDue, Unchanged
from jitvault.lifecycle.record.due_time import due_too_late
from jitvault.lifecycle.requests.pending import Backlog, DocumentWatcher, Triage
from jitvault.lifecycle.requests.quota import record_over_quota
from jitvault.model.states import DELIVERED_STATES, LIVING
from jitvault.worker.author_listings import AuthorListings
from jitvault.worker.due_rounds import DueRounds
from jitvault.worker.loop_base import LoopBase
from jitvault.worker.task_queue import Job, Urgency

_UNGRANTED_EVERY = 10
_BACKLOG_BATCH = 20
# a listing takes at most one in so many parts of the time
_LIST_REST = 20
# how soon everything is listed again while the stream is not trusted
_BLIND_S = 10.0
# the share of an author's quota that the backlog leaves for new documents
_SPARE = 0.5
# an author whose documents wait for longer is reported, and again after this time
_OVER_QUOTA_S, _REPORT_EVERY_S = 5.0, 60.0
# looks so many times sooner where more tasks are due than were taken: the threads are soon ready for them
_FASTER = 5
_TRIPWIRES_S = 0.25


class WorkLoops(LoopBase):
    """Find tasks by documents, by their due time and by tripwires."""

    def intake(self, worker: WorkerContext) -> None:
        """Queue the tasks of documents that the stream shows.

        Woken by each new line, whichever loop ingested it. A missed wake-up delays documents and loses none.
        """
        frozen = dict[str, str]()
        watcher = DocumentWatcher(worker)
        triage = Triage(worker)
        unchanged = Unchanged(worker.ledger.mark)
        listed = -self.pace.list_s
        freezes_checked = True
        list_again = False

        def look() -> None:
            nonlocal listed, freezes_checked, list_again
            self.news.wait(self.pace.wake_s)
            self.news.clear()
            items = [] if unchanged.is_so() else watcher.new()
            self.gate.leave_behind(watcher.take_unshown())
            for item, effect in triage.sort(items) if items else ():
                self._queue_document(item, effect)
            unchanged.looked()
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

        self.every("intake", 0, look)

    def _queue_document(self, item: WorkItem, effect: DocumentEffect) -> None:
        """Queue a document's task: at once, or in its author's turn."""
        now = time.monotonic()
        hint = item.author if item.requests else None
        job = Job(
            item.task_id,
            Urgency.ASKED,
            hint=hint,
            author=item.author,
            to_grant=item.grants,
            since=item.since,
            shown=item.shown,
        )
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
        authors = AuthorListings()
        unchanged = Unchanged(worker.ledger.mark)

        def look() -> None:
            nonlocal listed, next_s, turns
            begun = time.monotonic()
            for author in self.gate.take_behind():
                authors.want(author, begun)
            # whether the stream shows all documents is in the ledger
            list_after_s = next_s if unchanged.is_so() else self._list_after(next_s, backlog)
            unchanged.looked()
            if begun - listed >= list_after_s:
                # the net below the stream: seldom, since it costs a request for each open task
                whole = turns % _UNGRANTED_EVERY == 0
                unseen = backlog.list_again(again=whole or self.health.why_not_trusted is not None)
                for item, effect in triage.sort(unseen):
                    self._queue_document(item, effect)
                # tasks that wait for approvals only seldom, since each costs Vault requests
                waiting[:] = worker.ledger.ungranted() if whole else waiting
                # however many documents there are, listing them takes a small part of the time
                listed = time.monotonic()
                turns += 1
                next_s = max(self.pace.list_s, _LIST_REST * (listed - begun))
            elif (behind := authors.take(begun)) is not None:
                try:
                    self._list_author(backlog, triage, behind, waiting)
                finally:
                    authors.done(behind, begun, time.monotonic())
            has_work = bool(waiting or backlog.left)
            room = self.pool.room(Urgency.BACKLOG)
            for task_id in waiting[:room]:
                self.pool.want(Job(task_id, Urgency.BACKLOG))
            del waiting[:room]
            found = backlog.some(min(room, _BACKLOG_BATCH), lambda author: self.gate.spend(author, begun, spare=_SPARE))
            for task_id, author in found:
                self.pool.want(Job(task_id, Urgency.BACKLOG, hint=author, author=author))
            self.health.set("backlog", backlog.left + len(waiting))
            # at most a third of the time, and the threads work meanwhile
            pause_s = self.pace.due_s if has_work else self.pace.wake_s
            self.supervisor.stopping.wait(max(pause_s, 2 * (time.monotonic() - begun)))

        self.every("backlog", 0, look)

    def _list_author(self, backlog: Backlog, triage: Triage, author: str, waiting: list[str]) -> None:
        """Queue what one author wrote and the stream did not show.

        Ungranted tasks are added to `waiting`. A listing that fails is repeated.
        """
        try:
            ends, ungranted = backlog.list_author(author)
        except JitvaultError:
            self.gate.leave_behind([author])
            raise
        for item, effect in triage.sort(ends):
            self._queue_document(item, effect)
        known = set(waiting)
        waiting += [task_id for task_id in ungranted if task_id not in known]

    def _list_after(self, next_s: float, backlog: Backlog) -> float:
        """Return how long after the last listing the next one comes, in seconds.

        Sooner where the stream does not show which documents exist.
        """
        if not backlog.is_told:
            return min(next_s, self.pace.retry_s)
        return min(next_s, _BLIND_S) if self.health.why_not_trusted is not None else next_s

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
                    reported[author] = now
                    record_over_quota(worker, author, waiting, self.gate.per_minute)
                    self.log.warning("an author writes more documents than the quota", author=author, waiting=waiting)
            self.health.set("documents_over_quota", sum(over.values()))

        self.every("quota", self.pace.tell_s, look)

    def due(self, worker: WorkerContext) -> None:
        """Queue tasks whose time has come."""
        looked = -self.pace.list_s
        rest = NothingDue(worker.ledger.mark)
        rounds = DueRounds()
        pause_s = 0.0

        def look() -> None:
            nonlocal looked, pause_s
            if time.monotonic() - looked >= self.pace.list_s:
                looked = time.monotonic()
                for task_id in due_too_late(worker):
                    self.log.warning("a task is due too far in the future: a clock was wrong", task=task_id)
                    self.pool.want(Job(task_id, Urgency.DUE), news=True)
            if not rest.is_so(worker.now()):
                pause_s = self._take_due(worker, rest, rounds)
            self.supervisor.stopping.wait(pause_s)

        self.every("due", 0, look)

    def tripwires(self, worker: WorkerContext) -> None:
        """Queue held tasks that touched a tripwire.

        A loop beside `due`: with thousands of held tasks one look takes seconds, and renewals must not wait for it.
        """
        seen = dict[str, int]()
        known = dict[str, str]()
        unchanged = Unchanged(worker.ledger.mark)
        whole = False

        def look() -> None:
            nonlocal whole
            if whole:
                # a tripwire is a line; a freeze may come without one that is read here
                self.lines.wait(self.pace.wake_s)
            self.lines.clear()
            if unchanged.is_so():
                return
            begun = time.monotonic()
            whole = True

            def go_on() -> bool:
                nonlocal whole
                whole = time.monotonic() - begun < _TRIPWIRES_S
                return whole

            # a part of the tasks at a time, so that hits and freezes are handled soon
            found = tripped(worker, seen, go_on)
            self._want_all(worker, found, known)
            if whole and not found:
                unchanged.looked()
            # at most a tenth of the time
            self.supervisor.stopping.wait(max(self.pace.due_s, 10 * (time.monotonic() - begun)))

        self.every("tripwires", 0, look)

    def _take_due(self, worker: WorkerContext, rest: NothingDue, rounds: DueRounds) -> float:
        """Claim as many due tasks as can soon be handled, in turns of their requesters.

        Returns after how many seconds to look again. Where no task is due, `rest` is told.
        """
        pool = self.pool
        # other due work must not delay the renewals of held tasks, whose credentials would expire
        with_access = pool.room(Urgency.HELD) + worker.kept.room
        others = 0 if pool.is_behind else pool.room(Urgency.HELD, Urgency.DUE)
        taken = self._claim_due(worker, with_access, rounds, only_held=True) if with_access else 0
        more = self._claim_due(worker, others, rounds, only_held=False) if others else 0
        if pool.is_behind:
            # finding more takes the longer the more is late
            return self.pace.wake_s
        if taken == with_access or more == others:
            return self.pace.due_s / _FASTER
        return self.pace.due_s if taken or more else self._until_due(worker, rest)

    def _claim_due(self, worker: WorkerContext, room: int, rounds: DueRounds, *, only_held: bool) -> int:
        """Claim due tasks, and hand each to the renewals of many or to a thread of its own; return how many."""
        ledger, now = worker.ledger, worker.now()
        besides = self.pool.already_due() | worker.kept.due_here(now)
        taken = ledger.take_due(now, room, besides=besides, served=rounds.served, only_held=only_held)
        tasks = {task.task_id: task for task in ledger.known_tasks(taken)}
        for task_id in taken:
            task = tasks.get(task_id)
            if task is not None and _offered(worker, task):
                continue
            urgency = Urgency.HELD if task is not None and task.state in LIVING else Urgency.DUE
            requester = task.requester if task is not None else ""
            if not self.pool.want(Job(task_id, urgency, author=requester, if_due=True)):
                ledger.give_back(task_id)
        rounds.took({task.requester for task in tasks.values()})
        return len(taken)

    def _until_due(self, worker: WorkerContext, rest: NothingDue) -> float:
        """Return how long nothing is due that the ledger knows now.

        Whoever makes a task due sooner waits for `wake_s` at most.
        """
        now = worker.now()
        next_due = worker.ledger.earliest_due()
        if next_due is None or next_due > now:
            rest.looked(next_due)
        else:
            next_due = worker.ledger.next_due(now)
        left_s = self.pace.wake_s if next_due is None else (next_due - now).total_seconds()
        return min(self.pace.wake_s, max(self.pace.due_s, left_s))

    def _want_all(self, worker: WorkerContext, reasons: Reasons, known: dict[str, str]) -> None:
        """Queue all tasks that have to end.

        First a quick job for each, which revokes the tokens, then the rest of each. `known` are the reasons that were
        found last time; it is updated.
        """
        claims = worker.ledger.newest_claims(reasons) if reasons else {}
        requesters = worker.ledger.requesters(reasons) if reasons else {}
        for task_id, why in reasons.items():
            is_new = known.get(task_id) != why
            if is_new:
                self.log.warning("task has to end", task=task_id, why=why)
            whose = requesters.get(task_id, "")
            job = Job(task_id, Urgency.REVOKE, author=whose, hurry=is_new, since=claims.get(task_id))
            self.pool.want(job, news=is_new)
        known.clear()
        known.update(reasons)


def _offered(worker: WorkerContext, task: TaskRow) -> bool:
    """Offer a due task to be looked at and renewed with others.

    Returns False where it needs a thread of its own.
    """
    if task.state not in DELIVERED_STATES or task.due_at is None or not worker.kept.takes(task.task_id):
        return False
    # before it is offered: whoever takes it continues the claim
    if worker.ledger.lend(task.task_id):
        worker.kept.offer(OfferedTask(task.task_id, task.due_at))
    return True
