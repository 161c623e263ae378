"""Which task is looked after next: pure, given the time. One task is never in two hands at once.

What was wanted while a task is in hand is looked at afterwards. A task that fails, or stays due as it was, is left
alone for longer and longer, so that it takes nobody's turn; only news about it brings it back at once. Tasks that take
long are counted apart: so many of them may be in hand, and everybody else has the other hands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

SLOW_S = 2.0
"""Whoever is in hand for longer waits for something that hangs, and takes none of the places of others."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FIRST_SHUT_S, LONGEST_SHUT_S = 0.1, 1.0
"""For how long nothing is begun after Vault served nobody; it is not asked at the pace at which it refuses."""
ANOTHERS_PAUSE_S = 0.2
"""How long one is left alone that another process works on."""
_AHEAD = 3


class Urgency(IntEnum):
    """What comes first: access that must not be there any more, what would starve, what people wait for, the rest."""

    END = 0
    HELD = 1
    ASKED = 2
    DUE = 3


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is wanted. `hint` is the entity whose request is looked for first.

    `hurry`: only the first act on each token now, since others wait for theirs; the rest of it follows by itself.
    `to_grant`: it is wanted for nothing but what comes before a grant. `if_due`: for nothing but that it is due, which
    it may not be any more when its turn comes. `since`: the newest claim of the task when it became known that it is
    wanted, so that a later one may have done it; None where it has to be done in any case.
    """

    task_id: str
    urgency: Urgency
    hint: str | None = None
    hurry: bool = False
    to_grant: bool = False
    if_due: bool = False
    since: int | None = None

    def and_also(self, other: Job) -> Job:
        """One job that is as good as both."""
        return Job(
            self.task_id,
            min(self.urgency, other.urgency),
            hint=self.hint or other.hint,
            hurry=self.hurry or other.hurry,
            to_grant=self.to_grant and other.to_grant,
            if_due=self.if_due and other.if_due,
            since=None if self.since is None or other.since is None else max(self.since, other.since),
        )


@dataclass(slots=True)
class _Entry:
    job: Job
    ready_at: float
    seq: int


@dataclass(slots=True)
class _Record:
    """How it went lately: failures in a row, and whether it took long."""

    failures: int = 0
    slow: bool = False
    until: float = 0.0


class Agenda:
    """`hands` tasks are in hand at once besides `may_hang` that take long. `limit` is what Vault takes at the moment.

    All times are seconds of one monotonic clock.
    """

    def __init__(self, hands: int, may_hang: int) -> None:
        self.hands, self.may_hang = hands, may_hang
        self.limit = float(hands)
        self._waiting: dict[str, _Entry] = {}
        self._running: dict[str, float] = {}
        self._again: dict[str, Job] = {}
        self._records: dict[str, _Record] = {}
        self._seq = 0
        self._shut_s, self._shut_until = 0.0, 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def room(self, now: float, *, only_held: bool = False) -> int:
        """How many more due tasks are taken ahead, so that no hand is without one; `only_held`: of those that would
        starve. More would lie here while another worker has nothing to do.
        """
        ready = [e for e in self._waiting.values() if e.ready_at <= now]
        before = sum(e.job.urgency <= Urgency.HELD for e in ready) if only_held else len(ready)
        return max(0, _AHEAD * max(1, int(self.limit)) - before)

    def seen_to(self, now: float) -> set[str]:
        """The tasks that nothing is added to by their being due: in hand, left alone for a while, or known to be."""
        due = {t for t, e in self._waiting.items() if e.ready_at > now or e.job.urgency is not Urgency.ASKED}
        return due | self._running.keys()

    def running(self) -> int:
        return len(self._running)

    def hanging(self, now: float) -> int:
        """How many in hand take long."""
        return sum(self._is_slow(task_id, since, now) for task_id, since in self._running.items())

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
            entry.job = entry.job.and_also(job)
            entry.ready_at = min(entry.ready_at, now) if news else entry.ready_at
        else:
            self._put(job, now if news or record is None else max(now, record.until))
        return self._waiting[job.task_id].ready_at <= now

    def take(self, now: float) -> Job | None:
        """The next task, which is in hand from now on; None where nothing is ready or every hand is full."""
        slow = self.hanging(now)
        if len(self._running) >= self.hands + self.may_hang or now < self._shut_until:
            return None
        room, room_to_hang = len(self._running) - slow < max(1, int(self.limit)), slow < self.may_hang
        best: _Entry | None = None
        for entry in self._waiting.values():
            fits = room_to_hang if self._was_slow(entry.job.task_id) else room
            if fits and entry.ready_at <= now and (best is None or _order(entry) < _order(best)):
                best = entry
        if best is None:
            return None
        task_id = best.job.task_id
        del self._waiting[task_id]
        self._running[task_id] = now
        return best.job

    def wait_s(self, now: float, at_most: float) -> float:
        """How long until something that waits is ready, or may be begun again."""
        moments = (self._shut_until, *(entry.ready_at for entry in self._waiting.values()))
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
        del self._running[job.task_id]
        again = self._again.pop(job.task_id, None)
        self._put(again.and_also(job) if again else job, now + ANOTHERS_PAUSE_S)

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
        since = self._running.pop(job.task_id)
        record = self._records.setdefault(job.task_id, _Record())
        record.slow = now - since >= SLOW_S
        return record

    def _next(self, job: Job, now: float, again_in: float | None) -> None:
        again = self._again.pop(job.task_id, None)
        if again is not None:
            self._put(again, now)
        elif again_in is not None:
            # from here on it is this worker's to see that it is done
            self._put(replace(job, hurry=False, to_grant=False, since=None), now + again_in)

    def _put(self, job: Job, ready_at: float) -> None:
        self._seq += 1
        self._waiting[job.task_id] = _Entry(job, ready_at, self._seq)

    def _is_slow(self, task_id: str, since: float, now: float) -> bool:
        return now - since >= SLOW_S or self._was_slow(task_id)

    def _was_slow(self, task_id: str) -> bool:
        record = self._records.get(task_id)
        return record is not None and record.slow


def _order(entry: _Entry) -> tuple[int, float, int]:
    return entry.job.urgency, entry.ready_at, entry.seq
