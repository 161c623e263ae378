"""How many documents of each author are handled, and when.

Pure, given the time. An author's documents are handled at a rate; those beyond it wait here in the order in which they
came. Documents beyond KEPT are not lost: they lie in Vault and are read again from there. Shared by threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from threading import Lock

from jitvault.worker.task_queue import Job

KEPT = 2000
"""How many tasks of one author wait here."""
AT_ONCE = 50
"""How many tasks of one author wait in the task queue."""


@dataclass(slots=True)
class _Author:
    allowance: float
    at: float
    waiting: dict[str, Job] = field(default_factory=dict)
    since: float = 0.0


class AuthorRate:
    """Let `per_minute` documents of each author pass in a minute.

    After a pause, a tenth of them may pass at once.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._most = max(1.0, per_minute / 10)
        self._authors: dict[str, _Author] = {}
        self._behind = set[str]()
        self._lock = Lock()

    def spend(self, author: str, now: float, *, spare: float = 0.0) -> bool:
        """Return whether one more document of the author may pass; count it.

        `spare` is the share of the allowance that has to remain.
        """
        with self._lock:
            found = self._of(author, now)
            if found.allowance < 1 + spare * self._most:
                return False
            found.allowance -= 1
            return True

    def keep(self, job: Job, now: float) -> None:
        """Keep a job until it is the turn of its author."""
        with self._lock:
            found = self._of(job.author, now)
            before = found.waiting.get(job.task_id)
            if before is None and len(found.waiting) >= KEPT:
                self._behind.add(job.author)
                return
            if not found.waiting:
                found.since = now
            found.waiting[job.task_id] = before.and_also(job) if before else job

    def release(self, now: float, waits: Callable[[str], int]) -> list[Job]:
        """Return the jobs that may pass now.

        `waits` returns how many tasks of an author already wait in the task queue.
        """
        released: list[Job] = []
        with self._lock:
            for name in list(self._authors):
                author = self._of(name, now)
                room = AT_ONCE - waits(name) if author.waiting else 0
                for task_id in list(author.waiting)[: max(0, min(room, int(author.allowance)))]:
                    released.append(author.waiting.pop(task_id))
                    author.allowance -= 1
                if not author.waiting and author.allowance >= self._most:
                    del self._authors[name]
        return released

    def waiting(self, now: float, *, longer_than_s: float) -> dict[str, int]:
        """Return the authors whose documents have waited for longer.

        Each with how many of them are known here.
        """
        with self._lock:
            return {
                name: len(author.waiting)
                for name, author in self._authors.items()
                if author.waiting and now - author.since > longer_than_s
            }

    def leave_behind(self, authors: Collection[str]) -> None:
        """Record authors with more documents in Vault than the stream showed."""
        with self._lock:
            self._behind.update(authors)

    def take_behind(self) -> set[str]:
        """Return the authors with more documents in Vault than were kept here.

        Since the last call.
        """
        with self._lock:
            behind, self._behind = self._behind, set()
            return behind

    def _of(self, author: str, now: float) -> _Author:
        """Return an author's state, with the allowance of this moment."""
        found = self._authors.setdefault(author, _Author(self._most, now))
        found.allowance = min(self._most, found.allowance + (now - found.at) * self.per_minute / 60)
        found.at = now
        return found
