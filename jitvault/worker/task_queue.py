"""Which task is looked after next: pure, given the time. One task is never in two hands at once.

What was wanted while a task is in hand is looked at afterwards. A task that fails, or stays due as it was, is left
alone for longer and longer, so that it takes nobody's turn; only news about it brings it back at once. Tasks that take
long are counted apart: so many of them may be in hand, and everybody else has the other hands.

An operator's revocation comes before all else, and one hand is kept for it alone. Every fourth job is a renewal while
one is due. All other jobs share the hands by the turns of `_TURNS`, so that no kind of work can keep another from being
done, and within one kind the authors of documents take turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from heapq import heappop, heappush

from jitvault.worker.queues import Queues

SLOW_S = 2.0
"""Whoever is in hand for longer waits for something that hangs, and takes none of the places of others."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FIRST_SHUT_S, LONGEST_SHUT_S = 0.1, 1.0
"""For how long nothing is begun after Vault served nobody; it is not asked at the pace at which it refuses."""
ANOTHERS_PAUSE_S = 0.2
"""How long one is left alone that another process works on."""
RESERVED = 1
"""So many hands do nothing but what is to be revoked at once."""
_AHEAD = 3


class Urgency(IntEnum):
    """Why a task is looked after, the most urgent first.

    REVOKE: an operator's word, a tripwire or a freeze ends it. END: somebody with a part in it ends it. HELD: it holds
    access, and something of it is due. ASKED: people wait for it. DUE: something else of it is due. BACKLOG: nobody is
    known to wait for it.
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
"""Whose turn it is. Where nothing of that urgency is ready, the most urgent of the others has it."""
_RENEWAL_EVERY = 4


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is wanted. `hint` is the entity whose request is looked for first.

    `hurry`: only the first act on each token now, since others wait for theirs; the rest of it follows by itself.
    `author` is the entity whose document it is wanted for: authors take turns.
    `to_grant`: it is wanted for nothing but what comes before a grant. `if_due`: for nothing but that it is due, which
    it may not be any more when its turn comes. `since`: the newest claim of the task when it became known that it is
    wanted, so that a later one may have done it; None where it has to be done in any case.
    """

    task_id: str
    urgency: Urgency
    hint: str | None = None
    author: str = ""
    hurry: bool = False
    to_grant: bool = False
    if_due: bool = False
    since: int | None = None

    def and_also(self, other: Job) -> Job:
        """One job that is as good as both."""
        first, second = (other, self) if other.urgency < self.urgency else (self, other)
        return Job(
            self.task_id,
            min(self.urgency, other.urgency),
            # the more urgent one is of whoever wants it ended
            hint=first.hint or second.hint,
            author=other.author if other.urgency < self.urgency else self.author,
            hurry=self.hurry or other.hurry,
            to_grant=self.to_grant and other.to_grant,
            if_due=self.if_due and other.if_due,
            since=None if self.since is None or other.since is None else max(self.since, other.since),
        )


@dataclass(slots=True)
class _Entry:
    """A job that waits. `is_ready`: its time has come, and it stands in the queues under `ticket`."""

    job: Job
    ready_at: float
    ticket: int
    is_ready: bool = False


@dataclass(slots=True)
class _Record:
    """How it went lately: failures in a row, and whether it took long."""

    failures: int = 0
    slow: bool = False
    until: float = 0.0


class TaskQueue:
    """`hands` tasks are in hand at once besides `may_hang` that take long, and `RESERVED` that are to be revoked at
    once. `limit` is what Vault takes at the moment.

    All times are seconds of one monotonic clock.
    """

    def __init__(self, hands: int, may_hang: int) -> None:
        self.hands, self.may_hang = hands, may_hang
        self.limit = float(hands)
        self._waiting: dict[str, _Entry] = {}
        self._tickets: dict[int, str] = {}
        # the ready ones, those apart that took long, and the others by the moment at which they will be
        self._queues = {False: Queues(), True: Queues()}
        self._ready = Counter[Urgency]()
        self._later: list[tuple[float, int]] = []
        self._authors = Counter[str]()
        self._running: dict[str, float] = {}
        self._reserved: set[str] = set()
        self._again: dict[str, Job] = {}
        self._records: dict[str, _Record] = {}
        self._seq, self._turn = 0, 0
        self._shut_s, self._shut_until = 0.0, 0.0

    @property
    def threads(self) -> int:
        """How many tasks may be in hand at once in all."""
        return self.hands + self.may_hang + RESERVED

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def waiting_of(self, author: str) -> int:
        """How many tasks wait because of this author's documents."""
        return self._authors[author]

    def room(self, now: float, *urgencies: Urgency) -> int:
        """How many more tasks of these urgencies are taken ahead, so that no hand is without one. More would lie here
        while another worker has nothing to do.
        """
        self._wake(now)
        return max(0, _AHEAD * max(1, int(self.limit)) - sum(self._ready[urgency] for urgency in urgencies))

    def seen_to(self, now: float) -> set[str]:
        """The tasks that nothing is added to by their being due: in hand, left alone for a while, or known to be."""
        asked = (Urgency.ASKED, Urgency.BACKLOG)
        due = {t for t, e in self._waiting.items() if e.ready_at > now or e.job.urgency not in asked}
        return due | self._running.keys()

    def running(self) -> int:
        return len(self._running)

    def hanging(self, now: float) -> int:
        """How many in hand take long."""
        return sum(
            self._is_slow(task_id, since, now)
            for task_id, since in self._running.items()
            if task_id not in self._reserved
        )

    def want(self, job: Job, now: float, *, news: bool = False) -> bool:
        """Have a task looked after; gives whether it waits for a hand alone. One that is left alone for a while comes
        back at once where there is `news`.
        """
        if job.task_id in self._running:
            if news:
                before = self._again.get(job.task_id)
                self._again[job.task_id] = before.and_also(job) if before else job
            return False
        entry, record = self._waiting.get(job.task_id), self._records.get(job.task_id)
        if entry is not None:
            self._improve(entry, job, now, news=news)
        else:
            self._put(job, now if news or record is None else max(now, record.until), now)
        return self._waiting[job.task_id].ready_at <= now

    def take(self, now: float) -> Job | None:
        """The next task, which is in hand from now on; None where nothing is ready or every hand is full."""
        self._wake(now)
        if now < self._shut_until:
            return None
        slow, beside = self.hanging(now), len(self._running) - len(self._reserved)
        if beside < self.hands + self.may_hang:
            room, room_to_hang = beside - slow < max(1, int(self.limit)), slow < self.may_hang
            for urgency in self._order():
                for took_long, fits in ((False, room), (True, room_to_hang)):
                    if fits and (job := self._pop(urgency, took_long=took_long)) is not None:
                        self._running[job.task_id] = now
                        self._turn += 1
                        return job
        return self._take_reserved(now)

    def _take_reserved(self, now: float) -> Job | None:
        """What is to be revoked has a hand also where all others are full."""
        if len(self._reserved) < RESERVED:
            for took_long in (False, True):
                if (job := self._pop(Urgency.REVOKE, took_long=took_long)) is not None:
                    self._running[job.task_id] = now
                    self._reserved.add(job.task_id)
                    return job
        return None

    def _order(self) -> Iterator[Urgency]:
        if self._turn % _RENEWAL_EVERY == _RENEWAL_EVERY - 1:
            yield Urgency.HELD
        yield Urgency.REVOKE
        yield _TURNS[self._turn % len(_TURNS)]
        yield from Urgency

    def wait_s(self, now: float, at_most: float) -> float:
        """How long until something that waits is ready, or may be begun again."""
        self._wake(now)
        moments = (self._shut_until, *(ready_at for ready_at, _ in self._later[:1]))
        return max(0.0, min([at_most, *(moment - now for moment in moments if moment > now)]))

    def done(self, job: Job, now: float, *, again_in: float | None = None) -> None:
        """It went well. `again_in` seconds it has to be looked at again: only time is missing."""
        record = self._ended(job, now)
        record.failures, record.until = 0, 0.0
        if not record.slow:
            del self._records[job.task_id]
        self._next(job, now, again_in)

    def failed(self, job: Job, now: float, *, longest_s: float = LONGEST_PAUSE_S, forget: bool = False) -> float:
        """It went wrong, or nothing came of it; gives for how many seconds it is left alone.

        With `forget` it comes back only when somebody wants it.
        """
        record = self._ended(job, now)
        record.failures += 1
        pause_s = float(min(longest_s, FIRST_PAUSE_S * 2 ** min(record.failures - 1, 30)))
        record.until = now + pause_s
        self._next(job, now, None if forget else pause_s)
        return pause_s

    def anothers(self, job: Job, now: float) -> None:
        """Another process works on it: it is looked at again a little later, whether that has done it."""
        self._leave_hand(job.task_id)
        again = self._again.pop(job.task_id, None)
        self._put(again.and_also(job) if again else job, now + ANOTHERS_PAUSE_S, now)

    def refused(self) -> None:
        """Vault took no more, or did not answer: half as many at once from now on."""
        self.limit = max(1.0, self.limit / 2)

    def shut(self, now: float) -> None:
        """Vault serves nobody: nothing is begun for a moment, a longer one each time until it serves again."""
        self._shut_s = min(LONGEST_SHUT_S, 2 * self._shut_s or FIRST_SHUT_S)
        self._shut_until = now + self._shut_s

    def taken(self) -> None:
        """Vault did what it was asked: one more at once after as many of these as there are at once now."""
        self._shut_s = 0.0
        self.limit = min(float(self.hands), self.limit + 1 / max(1.0, self.limit))

    def forget_old(self, now: float) -> None:
        """Forget how tasks went that nobody has wanted since they were left alone."""
        kept = self._waiting.keys() | self._running.keys()
        for task_id in [t for t, r in self._records.items() if t not in kept and r.until + LONGEST_PAUSE_S < now]:
            del self._records[task_id]

    def _ended(self, job: Job, now: float) -> _Record:
        since = self._leave_hand(job.task_id)
        record = self._records.setdefault(job.task_id, _Record())
        record.slow = now - since >= SLOW_S
        return record

    def _leave_hand(self, task_id: str) -> float:
        self._reserved.discard(task_id)
        return self._running.pop(task_id)

    def _next(self, job: Job, now: float, again_in: float | None) -> None:
        again = self._again.pop(job.task_id, None)
        if again is not None:
            self._put(again, now, now)
        elif again_in is not None:
            # from here on it is this worker's to see that it is done
            self._put(replace(job, hurry=False, to_grant=False, since=None), now + again_in, now)

    # -- the queues --------------------------------------------------------------------------------------

    def _put(self, job: Job, ready_at: float, now: float) -> None:
        entry = self._waiting[job.task_id] = _Entry(job, ready_at, 0)
        self._authors[job.author] += 1
        self._stand(entry, now)

    def _improve(self, entry: _Entry, job: Job, now: float, *, news: bool) -> None:
        """The entry is as good as both from now on; where that changes its place, it stands at the new one."""
        before, ready_at = entry.job, min(entry.ready_at, now) if news else entry.ready_at
        entry.job = before.and_also(job)
        if job.urgency is before.urgency and self._authors[job.author] < self._authors[before.author]:
            # of two who want the same it stands in the shorter queue
            entry.job = replace(entry.job, author=job.author)
        if (entry.job.urgency, entry.job.author, ready_at) == (before.urgency, before.author, entry.ready_at):
            return
        self._withdraw(entry, before)
        self._authors[entry.job.author] += 1
        entry.ready_at = ready_at
        self._stand(entry, now)

    def _stand(self, entry: _Entry, now: float) -> None:
        """Give the entry a place: in a queue where its time has come, else among those that come later."""
        self._seq += 1
        entry.ticket, entry.is_ready = self._seq, entry.ready_at <= now
        self._tickets[entry.ticket] = entry.job.task_id
        if entry.is_ready:
            self._ready[entry.job.urgency] += 1
            took_long = self._was_slow(entry.job.task_id)
            self._queues[took_long].add(entry.job.urgency, entry.job.author, entry.ticket)
        else:
            heappush(self._later, (entry.ready_at, entry.ticket))

    def _withdraw(self, entry: _Entry, job: Job) -> None:
        """Take an entry, which stood as `job`, from its place; its ticket holds no more."""
        del self._tickets[entry.ticket]
        self._ready[job.urgency] -= entry.is_ready
        self._authors[job.author] -= 1
        if not self._authors[job.author]:
            del self._authors[job.author]

    def _wake(self, now: float) -> None:
        """Put those whose time has come into their queues."""
        while self._later and (self._later[0][0] <= now or self._later[0][1] not in self._tickets):
            _, ticket = heappop(self._later)
            if (task_id := self._tickets.pop(ticket, None)) is not None:
                self._stand(self._waiting[task_id], now)

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
