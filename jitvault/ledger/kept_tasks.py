"""The held tasks that a worker renews from its memory, without reading their documents again.

A whole turn (`jitvault.lifecycle.advance`) verifies a task, and finds that it may go on. Until something may have
changed, its renewals then need no other turn: the task is kept. A line about one of its documents forgets it here, and
one about the keys that people sign with, or about everything, forgets all tasks. A line about its tokens and leases
moves its version in the ledger, at which a renewal looks.

The memory is that of one process. Where lines were missed, or were read by another process, nothing kept counts any
more (`Facts.drops`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from threading import Lock

from jitvault.audit.changes import EVERYTHING, KEYS, Change
from jitvault.documents.paths import MOUNT, work_item_for
from jitvault.ledger.model import LeaseRow, TaskRecord

LATE = timedelta(seconds=5)
"""How late a kept task may be before any other thread, and any other process, may take it."""
_AVOIDED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class KeptTask:
    """A task with access that a whole turn has verified.

    `record` has no events, checks and findings, which take most of the memory. `agent_groups` are the groups that the
    agent was in when the task was decided, and `window_s` is the whole window of a task that was extended. At `look_at`
    a whole turn is due, whatever is renewed. `drops` is how often facts had been dropped when that turn began.
    """

    record: TaskRecord
    agent_groups: tuple[str, ...]
    window_s: int | None
    look_at: datetime | None
    drops: int

    @property
    def task_id(self) -> str:
        return self.record.task.task_id

    @property
    def due_at(self) -> datetime | None:
        return self.record.task.due_at

    @property
    def can_wait(self) -> bool:
        """Whether a renewal that is late by `LATE` still comes in time: it is due at half of a step."""
        return timedelta(seconds=self.record.grants[-1].step_s) >= 4 * LATE


class KeptTasks:
    """The kept tasks of a process, shared by its threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tasks: dict[str, KeptTask] = {}
        # when tasks are due, the earliest first; what is not the due time of a kept task any more is skipped
        self._due: list[tuple[datetime, str]] = []
        self._in_hand: set[str] = set()
        # tasks and mounts of which a lease could not be renewed, and until when they are avoided
        self._avoided: dict[str, datetime] = {}
        # the tasks with a turn at the moment, and whether there was news of them since it began
        self._turns: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin_turn(self, task_id: str) -> None:
        """Forget a task, since a whole turn of it begins."""
        with self._lock:
            self._tasks.pop(task_id, None)
            self._turns[task_id] = False

    def end_turn(self, task_id: str, kept: KeptTask | None) -> None:
        """Keep a task after its whole turn, unless there was news of it since that began."""
        with self._lock:
            had_news = self._turns.pop(task_id, True)
            if kept is not None and not had_news:
                self._keep(kept)

    def saw(self, changes: Iterable[Change]) -> None:
        """Forget the tasks that one of these changes may concern."""
        for change in changes:
            for place in change.places:
                item = work_item_for(place.removeprefix(f"{MOUNT}/"))
                if item is not None and item.task_id:
                    self.forget(item.task_id)
            if not {KEYS, EVERYTHING}.isdisjoint(change.places):
                self._forget_all()

    def forget(self, task_id: str) -> None:
        """Leave a task to whole turns, at first to one that begins from now on."""
        with self._lock:
            self._tasks.pop(task_id, None)
            if task_id in self._turns:
                self._turns[task_id] = True

    def _forget_all(self) -> None:
        with self._lock:
            self._tasks.clear()
            self._turns = dict.fromkeys(self._turns, True)

    def take_due(self, now: datetime, most: int) -> list[KeptTask]:
        """Return kept tasks that are due, the earliest first.

        Each is in hand until it is put back or left. A task that is late by more than `LATE` is left to whole turns.
        """
        found: list[KeptTask] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(found) < most:
                due_at, task_id = heappop(self._due)
                kept = self._kept_for(due_at, task_id)
                if kept is None:
                    continue
                del self._tasks[task_id]
                if now - due_at < LATE and not self._is_avoided(kept, now):
                    self._in_hand.add(task_id)
                    self._turns[task_id] = False
                    found.append(kept)
        return found

    def had_news(self, task_id: str) -> bool:
        """Return whether a line about a document of a task in hand came since it was taken."""
        with self._lock:
            return self._turns.get(task_id, True)

    def avoid(self, what: str, now: datetime) -> None:
        """Leave a task, or those with leases of a mount, to whole turns for a minute: its target may hang."""
        with self._lock:
            self._avoided[what] = now + _AVOIDED

    def put_back(self, kept: KeptTask) -> None:
        """Keep a task that was in hand, as it is after its renewal, unless there was news of it meanwhile."""
        with self._lock:
            self._in_hand.discard(kept.task_id)
            if not self._turns.pop(kept.task_id, True):
                self._keep(kept)

    def leave(self, task_id: str) -> None:
        """Leave a task that was in hand to whole turns."""
        with self._lock:
            self._in_hand.discard(task_id)
            self._turns.pop(task_id, None)

    def due_here(self, now: datetime) -> set[str]:
        """Return the due tasks that are renewed from memory, so that no other thread takes them."""
        with self._lock:
            return self._in_hand | {task_id for at, task_id in self._until(now) if now - at < LATE}

    def next_due(self) -> datetime | None:
        """Return when the next kept task is due, None where none is kept."""
        with self._lock:
            return self._due[0][0] if self._due else None

    def _kept_for(self, due_at: datetime, task_id: str) -> KeptTask | None:
        """Return the task that is kept and due then, if it is."""
        kept = self._tasks.get(task_id)
        return kept if kept is not None and kept.due_at == due_at else None

    def _is_avoided(self, kept: KeptTask, now: datetime) -> bool:
        if not self._avoided:
            return False
        self._avoided = {what: until for what, until in self._avoided.items() if now < until}
        return not self._avoided.keys().isdisjoint([kept.task_id, *map(mount_of, kept.record.leases)])

    def _keep(self, kept: KeptTask) -> None:
        self._tasks[kept.task_id] = kept
        if kept.due_at is not None:
            heappush(self._due, (kept.due_at, kept.task_id))
        if len(self._due) > 2 * len(self._tasks) + 100:
            self._due = [(each.due_at, each.task_id) for each in self._tasks.values() if each.due_at is not None]
            heapify(self._due)

    def _until(self, now: datetime) -> Iterator[tuple[datetime, str]]:
        """Yield what is due by `now`, without walking through the rest of the heap."""
        at = [0]
        while at:
            n = at.pop()
            if n < len(self._due) and self._due[n][0] <= now:
                if self._kept_for(*self._due[n]) is not None:
                    yield self._due[n]
                at += [2 * n + 1, 2 * n + 2]


def mount_of(lease: LeaseRow) -> str:
    """Return the first part of a lease's mount, with a slash, which no task's id has."""
    return lease.path.partition("/")[0] + "/"
