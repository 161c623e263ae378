"""Which task is handled next. Pure, given the time.

No task is ever handled by two threads at once: a job for a task in work runs afterwards. A task that fails, or stays
due as it was, pauses for longer and longer, so that it takes no other task's turn; only news about the task ends its
pause at once. Tasks that take long are counted apart: only so many of them run at once, and the other threads are left
to the other tasks.

Revocations by an operator, a tripwire or a freeze come first, and one thread is reserved for them. Of four jobs one is
a renewal while one is due, and one is other work: thousands of revocations keep nobody from a grant. All other jobs
share the threads by the turns of `_TURNS`, so that no kind of work can starve another. Within one kind the authors of
documents and the requesters of tasks take turns. While renewals are late, nothing is granted: whoever has access keeps
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from heapq import heappop, heappush

from jitvault.backoff import doubled
from jitvault.worker.queues import Queues

SLOW_S = 2.0
"""A job that runs for longer, in seconds, waits for something that hangs: its place goes to another job."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FIRST_STOP_S, LONGEST_STOP_S = 0.1, 1.0
"""How long nothing is begun after Vault was not serving, in seconds: Vault is not asked as fast as it refuses."""
HELD_ELSEWHERE_PAUSE_S = 0.2
"""How long a task pauses that another process works on, in seconds."""
RESERVED = 1
"""How many threads handle only revocations that have to happen at once."""
_AHEAD = 3


class Urgency(IntEnum):
    """Why a task is handled, the most urgent first.

    REVOKE: an operator's document, a tripwire or a freeze ends the task. END: a party to the task ends it. HELD: the
    task may hold access, and something of it is due. ASKED: people wait for it. DUE: something else of it is due.
    BACKLOG: no one is known to wait for it.
    """

    REVOKE = 0
    END = 1
    HELD = 2
    ASKED = 3
    DUE = 4
    BACKLOG = 5


_TURNS = (
    *(Urgency.END, Urgency.HELD, Urgency.ASKED, Urgency.HELD),
    *(Urgency.DUE, Urgency.ASKED, Urgency.BACKLOG),
)
"""The urgencies in turn. Where no job of the turn's urgency is ready, the most urgent of the others runs."""
_EVERY = 4
_OTHER, _RENEWAL = 1, 3
"""Of so many jobs, which one is other work than revocations, and which one is a renewal."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task to be handled, and why.

    `hint` is the entity whose request is looked for first. `author` is the entity whose document caused the job, or
    the requester of a task that is due or has to end: they take turns. With `hurry`, only the first act on each token
    is done now, since other tasks wait for theirs; the rest follows by itself. With `to_grant`, the job is only for the
    steps up to the grant. With `if_due`, it is only for the task being due, which the task may not be any more when the
    job runs. `since` is the epoch of the task's newest claim when the work became known: a later claim may have done
    the work. None where it has to be done in any case. `shown` are the places of the documents that it is for, where
    lines have shown each of them.
    """

    task_id: str
    urgency: Urgency
    hint: str | None = None
    author: str = ""
    hurry: bool = False
    to_grant: bool = False
    if_due: bool = False
    since: int | None = None
    shown: tuple[str, ...] = ()

    def and_also(self, other: Job) -> Job:
        """Return one job that does the work of both."""
        first, second = (other, self) if other.urgency < self.urgency else (self, other)
        return Job(
            self.task_id,
            min(self.urgency, other.urgency),
            # the hint of the more urgent job, which may end the task
            hint=first.hint or second.hint,
            author=other.author if other.urgency < self.urgency else self.author,
            hurry=self.hurry or other.hurry,
            to_grant=self.to_grant and other.to_grant,
            if_due=self.if_due and other.if_due,
            since=None if self.since is None or other.since is None else max(self.since, other.since),
            shown=(*self.shown, *other.shown) if self.shown and other.shown else (),
        )


@dataclass(slots=True)
class _Entry:
    """A job that waits.

    `is_ready` says that its time has come; it stands in the queues under `ticket`.
    """

    job: Job
    ready_at: float
    ticket: int
    is_ready: bool = False


@dataclass(slots=True)
class _Record:
    """How a task's jobs went lately.

    `failures` in a row, whether the last one was `slow`, and `until` when the task pauses.
    """

    failures: int = 0
    slow: bool = False
    until: float = 0.0


class TaskQueue:
    """The jobs that wait and run.

    `hands` jobs run at once, besides `may_hang` slow ones and `RESERVED` urgent revocations. `limit` is how many
    jobs at once Vault takes at the moment. All times are seconds of one monotonic clock.
    """

    def __init__(self, hands: int, may_hang: int) -> None:
        self.hands = hands
        self.may_hang = may_hang
        self.limit = float(hands)
        self._waiting: dict[str, _Entry] = {}
        self._tickets: dict[int, str] = {}
        # tickets of ready jobs, those of slow tasks apart, and of later jobs by the time at which they are ready
        self._queues = {False: Queues(), True: Queues()}
        self._ready = Counter[Urgency]()
        self._later: list[tuple[float, int]] = []
        # the ready jobs of each urgency and author
        self._authors = Counter[tuple[Urgency, str]]()
        self._running: dict[str, float] = {}
        self._reserved: set[str] = set()
        self._again: dict[str, Job] = {}
        self._records: dict[str, _Record] = {}
        self._seq = 0
        self._turn = 0
        self._stop_s = 0.0
        self._stopped_until = 0.0

    @property
    def threads(self) -> int:
        """How many jobs may run at once in all."""
        return self.hands + self.may_hang + RESERVED

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def placed(self) -> int:
        """How often a job was placed so far."""
        return self._seq

    def waiting_of(self, author: str) -> int:
        """Return how many tasks wait for a thread because this author asked for it."""
        return self._authors[Urgency.ASKED, author]

    def room(self, now: float, *urgencies: Urgency) -> int:
        """Return how many more tasks of these urgencies to take ahead.

        Enough that no thread runs out of jobs. More would wait here while another worker has nothing to do.
        """
        self._wake(now)
        return max(0, _AHEAD * max(1, int(self.limit)) - sum(self._ready[urgency] for urgency in urgencies))

    def already_due(self, now: float) -> set[str]:
        """Return the tasks that need no further job for being due.

        They run, pause, or are queued as due or more urgent.
        """
        not_due = (Urgency.ASKED, Urgency.BACKLOG)
        due = {t for t, e in self._waiting.items() if e.ready_at > now or e.job.urgency not in not_due}
        return due | self._running.keys()

    def running(self) -> int:
        """Return how many jobs run."""
        return len(self._running)

    def hanging(self, now: float) -> int:
        """Return how many running jobs are slow, without reserved ones."""
        return sum(
            self._is_slow(task_id, since, now)
            for task_id, since in self._running.items()
            if task_id not in self._reserved
        )

    def want(self, job: Job, now: float, *, news: bool = False) -> bool:
        """Queue a job; return whether it is ready and waits only for a thread.

        `news` ends the pause of its task.
        """
        if job.task_id in self._running:
            if news:
                before = self._again.get(job.task_id)
                self._again[job.task_id] = before.and_also(job) if before else job
            return False
        entry = self._waiting.get(job.task_id)
        record = self._records.get(job.task_id)
        if entry is not None:
            self._merge(entry, job, now, news=news)
        elif news or record is None:
            self._put(job, now, now)
        else:
            self._put(job, max(now, record.until), now)
        return self._waiting[job.task_id].ready_at <= now

    def take(self, now: float, *, only_access: bool = False) -> Job | None:
        """Return the next job, which runs from now on.

        None where no job is ready, or every thread is busy. With `only_access`, jobs wait that neither end nor keep the
        access of a task.
        """
        self._wake(now)
        if now < self._stopped_until:
            return None
        slow = self.hanging(now)
        unreserved = len(self._running) - len(self._reserved)
        if unreserved < self.hands + self.may_hang:
            room = unreserved - slow < max(1, int(self.limit))
            room_to_hang = slow < self.may_hang
            for urgency in self._order(only_access=only_access):
                for took_long, fits in ((False, room), (True, room_to_hang)):
                    job = self._pop(urgency, took_long=took_long) if fits else None
                    if job is not None:
                        self._running[job.task_id] = now
                        self._turn += 1
                        return job
        return self._take_reserved(now)

    def _take_reserved(self, now: float) -> Job | None:
        """Return an urgent revocation for the reserved thread.

        It is used when all other threads are busy.
        """
        if len(self._reserved) < RESERVED:
            for took_long in (False, True):
                job = self._pop(Urgency.REVOKE, took_long=took_long)
                if job is not None:
                    self._running[job.task_id] = now
                    self._reserved.add(job.task_id)
                    return job
        return None

    def _order(self, *, only_access: bool) -> Iterator[Urgency]:
        """Yield the urgencies in the order of this turn."""
        if only_access:
            yield from (Urgency.REVOKE, (Urgency.END, Urgency.HELD)[self._turn % 2], Urgency.END, Urgency.HELD)
            return
        part, place = divmod(self._turn, _EVERY)
        if place == _OTHER:
            first = part % len(_TURNS)
            yield from (*_TURNS[first:], *_TURNS[:first])
        elif place == _RENEWAL:
            yield Urgency.HELD
        yield Urgency.REVOKE
        yield _TURNS[self._turn % len(_TURNS)]
        yield from Urgency

    def wait_s(self, now: float, at_most: float) -> float:
        """Return how long to wait for the next job, in seconds.

        Until a waiting job is ready, or until jobs may begin again.
        """
        self._wake(now)
        moments = (self._stopped_until, *(ready_at for ready_at, _ in self._later[:1]))
        return max(0.0, min([at_most, *(moment - now for moment in moments if moment > now)]))

    def done(self, job: Job, now: float, *, again_in: float | None = None) -> None:
        """Record a success.

        With `again_in`, the task is handled again in so many seconds: only time is missing.
        """
        record = self._ended(job, now)
        record.failures = 0
        record.until = 0.0
        if not record.slow:
            del self._records[job.task_id]
        self._queue_again(job, now, again_in)

    def failed(self, job: Job, now: float, *, longest_s: float = LONGEST_PAUSE_S, forget: bool = False) -> float:
        """Record a failure; return how long the task pauses, in seconds.

        With `forget`, the task is handled again only when a new job asks for it.
        """
        record = self._ended(job, now)
        record.failures += 1
        pause_s = doubled(FIRST_PAUSE_S, record.failures - 1, longest_s)
        record.until = now + pause_s
        self._queue_again(job, now, None if forget else pause_s)
        return pause_s

    def held_elsewhere(self, job: Job, now: float) -> None:
        """Try a task again shortly that another process works on.

        That process may then have done the work.
        """
        self._stop_running(job.task_id)
        again = self._again.pop(job.task_id, None)
        self._put(again.and_also(job) if again else job, now + HELD_ELSEWHERE_PAUSE_S, now)

    def halve_limit(self) -> None:
        """Halve `limit`: Vault refused requests, or did not answer."""
        self.limit = max(1.0, self.limit / 2)

    def pause(self, now: float) -> None:
        """Begin no job for a moment, because Vault is not serving.

        The moment grows each time until Vault serves again.
        """
        self._stop_s = min(LONGEST_STOP_S, 2 * self._stop_s or FIRST_STOP_S)
        self._stopped_until = now + self._stop_s

    def served(self) -> None:
        """Record that Vault served a job; raise `limit` slowly.

        By one after as many jobs as run at once.
        """
        self._stop_s = 0.0
        self.limit = min(float(self.hands), self.limit + 1 / max(1.0, self.limit))

    def forget_old(self, now: float) -> None:
        """Forget records of tasks that no job has asked for since their pause."""
        kept = self._waiting.keys() | self._running.keys()
        old = [t for t, r in self._records.items() if t not in kept and r.until + LONGEST_PAUSE_S < now]
        for task_id in old:
            del self._records[task_id]

    def _ended(self, job: Job, now: float) -> _Record:
        """Take a job's task from the running ones; return its record."""
        since = self._stop_running(job.task_id)
        record = self._records.setdefault(job.task_id, _Record())
        record.slow = now - since >= SLOW_S
        return record

    def _stop_running(self, task_id: str) -> float:
        self._reserved.discard(task_id)
        return self._running.pop(task_id)

    def _queue_again(self, job: Job, now: float, again_in: float | None) -> None:
        again = self._again.pop(job.task_id, None)
        if again is not None:
            self._put(again, now, now)
        elif again_in is not None:
            # a repetition has to be done in any case, and completely
            self._put(replace(job, hurry=False, to_grant=False, since=None), now + again_in, now)

    # -- the queues --------------------------------------------------------------------------------------

    def _put(self, job: Job, ready_at: float, now: float) -> None:
        entry = self._waiting[job.task_id] = _Entry(job, ready_at, 0)
        self._place(entry, now)

    def _merge(self, entry: _Entry, job: Job, now: float, *, news: bool) -> None:
        """Merge a job into a waiting entry; move the entry if its place changed."""
        before = entry.job
        ready_at = min(entry.ready_at, now) if news else entry.ready_at
        entry.job = before.and_also(job)
        waiting, urgency = self._authors, before.urgency
        if job.urgency is urgency and waiting[urgency, job.author] < waiting[urgency, before.author]:
            # of two authors with equally urgent jobs, the one with the shorter queue counts
            entry.job = replace(entry.job, author=job.author)
        if (entry.job.urgency, entry.job.author, ready_at) == (before.urgency, before.author, entry.ready_at):
            return
        self._withdraw(entry, before)
        entry.ready_at = ready_at
        self._place(entry, now)

    def _place(self, entry: _Entry, now: float) -> None:
        """Put an entry into a queue, or among the later ones if not ready yet."""
        self._seq += 1
        entry.ticket = self._seq
        entry.is_ready = entry.ready_at <= now
        self._tickets[entry.ticket] = entry.job.task_id
        if entry.is_ready:
            self._ready[entry.job.urgency] += 1
            self._authors[entry.job.urgency, entry.job.author] += 1
            took_long = self._was_slow(entry.job.task_id)
            self._queues[took_long].add(entry.job.urgency, entry.job.author, entry.ticket)
        else:
            heappush(self._later, (entry.ready_at, entry.ticket))

    def _withdraw(self, entry: _Entry, job: Job) -> None:
        """Take an entry, which was placed as `job`, from its place.

        Its ticket is not valid any more.
        """
        del self._tickets[entry.ticket]
        self._ready[job.urgency] -= entry.is_ready
        whose = (job.urgency, job.author)
        self._authors[whose] -= entry.is_ready
        if not self._authors[whose]:
            del self._authors[whose]

    def _wake(self, now: float) -> None:
        """Move entries whose time has come into their queues."""
        while self._later and (self._later[0][0] <= now or self._later[0][1] not in self._tickets):
            _, ticket = heappop(self._later)
            task_id = self._tickets.pop(ticket, None)
            if task_id is not None:
                self._place(self._waiting[task_id], now)

    def _pop(self, urgency: Urgency, *, took_long: bool) -> Job | None:
        ticket = self._queues[took_long].pop(urgency, self._tickets.__contains__)
        if ticket is None:
            return None
        entry = self._waiting.pop(self._tickets[ticket])
        self._withdraw(entry, entry.job)
        return entry.job

    def _is_slow(self, task_id: str, since: float, now: float) -> bool:
        return now - since >= SLOW_S or self._was_slow(task_id)

    def _was_slow(self, task_id: str) -> bool:
        record = self._records.get(task_id)
        return record is not None and record.slow
