"""How much of what each author writes is looked at, and when: pure, given the time.

An author's documents are looked at at a rate, and what is more than that waits here in the order in which it came. What
is more than is kept here is not lost: it lies in Vault, and is read again from there. For several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from jitvault.worker.task_queue import Job

KEPT = 2000
"""So many tasks wait here for one author."""
AT_ONCE = 50
"""So many of them wait for a hand."""


@dataclass(slots=True)
class _Author:
    left: float
    at: float
    waiting: dict[str, Job] = field(default_factory=dict)
    since: float = 0.0


class Gate:
    """Lets `per_minute` documents of each author through in a minute, a tenth of them at once after a pause."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute, self._most = per_minute, max(1.0, per_minute / 10)
        self._authors: dict[str, _Author] = {}
        self._behind = set[str]()
        self._lock = Lock()

    def spend(self, author: str, now: float, *, spare: float = 0.0) -> bool:
        """Whether one more document of the author may be looked at; it counts. `spare` of what may be is left."""
        with self._lock:
            found = self._of(author, now)
            if found.left < 1 + spare * self._most:
                return False
            found.left -= 1
            return True

    def keep(self, job: Job, now: float) -> None:
        """Have a task looked at when it is its author's turn."""
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
        """What may be looked at now, where so many tasks of an author wait for a hand already."""
        released: list[Job] = []
        with self._lock:
            for name in list(self._authors):
                author = self._of(name, now)
                room = AT_ONCE - waits(name) if author.waiting else 0
                for task_id in list(author.waiting)[: max(0, min(room, int(author.left)))]:
                    released.append(author.waiting.pop(task_id))
                    author.left -= 1
                if not author.waiting and author.left >= self._most:
                    del self._authors[name]
        return released

    def waiting(self, now: float, *, longer_than_s: float) -> dict[str, int]:
        """Whose documents have waited for longer than that, and how many of them are known."""
        with self._lock:
            return {
                name: len(author.waiting)
                for name, author in self._authors.items()
                if author.waiting and now - author.since > longer_than_s
            }

    def take_behind(self) -> set[str]:
        """The authors of whom there is more in Vault than was kept here, since this was asked last."""
        with self._lock:
            behind, self._behind = self._behind, set()
            return behind

    def _of(self, author: str, now: float) -> _Author:
        found = self._authors.setdefault(author, _Author(self._most, now))
        found.left = min(self._most, found.left + (now - found.at) * self.per_minute / 60)
        found.at = now
        return found
