"""The held tasks that a worker renews many at once.

A task is kept in memory once everything about it was verified (`jitvault.lifecycle.keeping.look`). Until something may
have changed, its renewals need no other look. A line about one of its documents forgets it here, and one about the keys
that people sign with, or about everything, forgets all tasks. A line about its tokens and leases moves its version in
the ledger, at which a renewal looks.

A due task that is not kept, as all are after a start, is offered: its records are verified first. What needs more is
left to whole turns (`jitvault.lifecycle.advance`).

The memory is that of one process. Where it may have missed lines that another process has read (`Facts.drops`), the
ledger is asked for them.
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
"""How late a kept task may be before another process may take it: this one may be dead."""
NEVER = -1
"""The `drops` of a task whose documents were not read yet."""
_AVOIDED = timedelta(minutes=1)
_MOST_OFFERED = 50
_MOST_NEWS = 50_000
"""Of how many tasks news is remembered. With more, all tasks count as those of which there was news."""


@dataclass(frozen=True, slots=True)
class KeptTask:
    """A task with access of which everything was verified.

    `record` has no events, checks and findings, which take most of the memory. `agent_groups` are the groups that the
    agent was in when the task was decided, and `window_s` is the whole window of a task that was extended. At `look_at`
    a whole turn is due, whatever is renewed. `drops` is how often facts had been dropped when its documents were read.
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


@dataclass(frozen=True, slots=True)
class OfferedTask:
    """A due task with access whose records have to be verified first.

    It is claimed, and its claim is lent.
    """

    task_id: str
    due_at: datetime


class KeptTasks:
    """The kept tasks of a process, shared by its threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tasks: dict[str, KeptTask] = {}
        # when tasks are due, the earliest first; what is not the due time of a kept task any more is skipped
        self._due: list[tuple[datetime, str]] = []
        self._offered: dict[str, OfferedTask] = {}
        # tasks and mounts of which a lease could not be renewed, and until when they are avoided
        self._avoided: dict[str, datetime] = {}
        # counts news and turns, which says what came first: a turn has seen the news from before it
        self._clock = 0
        # by that count, when tasks were taken, when there was news of a task last, and of all tasks; 0 is never
        self._in_hand: dict[str, int] = {}
        self._news: dict[str, int] = {}
        self._all_news = 0
        # the tasks that need whole turns, as their last turn or look said
        self._left: set[str] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin_turn(self, task_id: str) -> int:
        """Forget a task, since a whole turn of it begins, and return what `end_turn` is to be given."""
        with self._lock:
            self._tasks.pop(task_id, None)
            self._left.discard(task_id)
            return self._tick()

    def end_turn(self, task_id: str, begun: int, kept: KeptTask | None, *, has_access: bool) -> None:
        """Keep a task after its whole turn, unless there was news of it since that began.

        A task that has access and is not to be kept needs whole turns. A turn that fails is not ended.
        """
        with self._lock:
            if kept is not None:
                self._keep(kept, begun)
            elif has_access:
                self._leave(task_id)
            elif not self._had_news(task_id, begun):
                # news of tasks that are over must not fill the memory
                self._news.pop(task_id, None)

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
        """Leave a task to a whole turn or a look that begins from now on, kept or not."""
        with self._lock:
            self._tasks.pop(task_id, None)
            self._note_news(task_id)

    def _forget_all(self) -> None:
        with self._lock:
            self._tasks.clear()
            self._all_news = self._tick()

    def needs_look(self, task_id: str) -> bool:
        """Return whether there was news of a task since it was last kept here, or ever of all tasks."""
        with self._lock:
            return bool(self._all_news) or task_id in self._news

    @property
    def room(self) -> int:
        """How many more tasks may be offered."""
        return max(0, _MOST_OFFERED - len(self._offered))

    def takes(self, task_id: str) -> bool:
        """Return whether a task may be offered: its last look did not say that it needs a whole turn."""
        return task_id not in self._left

    def offer(self, task: OfferedTask) -> None:
        """Let a due task be verified and renewed with others."""
        with self._lock:
            self._offered[task.task_id] = task

    def take_due(self, now: datetime, most: int) -> list[KeptTask | OfferedTask]:
        """Return tasks that are due, those that are kept first, each kind the earliest first.

        Each is in hand until it is put back or left.
        """
        found: list[KeptTask | OfferedTask] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(found) < most:
                kept = self._kept_for(*heappop(self._due))
                if kept is None:
                    continue
                del self._tasks[kept.task_id]
                if not self._is_avoided(kept, now):
                    found.append(kept)
            while self._offered and len(found) < most:
                found.append(self._offered.pop(next(iter(self._offered))))
            begun = self._tick()
            self._in_hand.update((each.task_id, begun) for each in found)
        return found

    def had_news(self, task_id: str) -> bool:
        """Return whether a line about a document of a task in hand came since it was taken."""
        with self._lock:
            begun = self._in_hand.get(task_id)
            return begun is None or self._had_news(task_id, begun)

    def avoid(self, what: str, now: datetime) -> None:
        """Leave a task, or those with leases of a mount, to whole turns for a minute: its target may hang."""
        with self._lock:
            self._avoided[what] = now + _AVOIDED

    def is_avoided(self, kept: KeptTask, now: datetime) -> bool:
        """Return whether a task is left to whole turns because its target may hang."""
        with self._lock:
            return self._is_avoided(kept, now)

    def put_back(self, task: KeptTask | OfferedTask) -> None:
        """Keep a task that was in hand, as it is now, unless there was news of it meanwhile."""
        with self._lock:
            begun = self._in_hand.pop(task.task_id, None)
            if isinstance(task, OfferedTask):
                self._offered[task.task_id] = task
            elif begun is not None:
                self._keep(task, begun)

    def drop(self, task_id: str) -> None:
        """Keep a task that was in hand no longer: it is looked at before it is renewed again."""
        with self._lock:
            self._in_hand.pop(task_id, None)
            self._note_news(task_id)

    def leave(self, task_id: str) -> None:
        """Leave a task to whole turns, if it is still in hand."""
        with self._lock:
            if self._in_hand.pop(task_id, None) is not None:
                self._leave(task_id)

    def due_here(self, now: datetime) -> set[str]:
        """Return the due tasks that are renewed with others, so that no other thread takes them."""
        with self._lock:
            return self._in_hand.keys() | self._offered.keys() | {task_id for _, task_id in self._until(now)}

    def next_due(self) -> datetime | None:
        """Return when the next task is due, None where there is none."""
        with self._lock:
            while self._due and self._kept_for(*self._due[0]) is None:
                heappop(self._due)
            due = [task.due_at for task in self._offered.values()] + [at for at, _ in self._due[:1]]
            return min(due, default=None)

    def late_s(self, now: datetime) -> float:
        """Return for how many seconds the first of the tasks has been due; 0 where none is."""
        due_at = self.next_due()
        return max(0.0, (now - due_at) / timedelta(seconds=1)) if due_at is not None else 0.0

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _note_news(self, task_id: str) -> None:
        self._news[task_id] = self._tick()
        if len(self._news) > _MOST_NEWS:
            self._news.clear()
            self._all_news = self._clock

    def _had_news(self, task_id: str, since: int) -> bool:
        return max(self._all_news, self._news.get(task_id, 0)) > since

    def _leave(self, task_id: str) -> None:
        if len(self._left) >= _MOST_NEWS:
            # many of them were ended by other processes; a look says it again of the rest
            self._left.clear()
        self._left.add(task_id)

    def _kept_for(self, due_at: datetime, task_id: str) -> KeptTask | None:
        """Return the task that is kept and due then, if it is."""
        kept = self._tasks.get(task_id)
        return kept if kept is not None and kept.due_at == due_at else None

    def _is_avoided(self, kept: KeptTask, now: datetime) -> bool:
        if not self._avoided:
            return False
        self._avoided = {what: until for what, until in self._avoided.items() if now < until}
        return not self._avoided.keys().isdisjoint([kept.task_id, *map(mount_of, kept.record.leases)])

    def _keep(self, kept: KeptTask, begun: int) -> None:
        """Keep a task that was read from then on, unless there was news of it since."""
        if self._had_news(kept.task_id, begun):
            return
        self._tasks[kept.task_id] = kept
        self._left.discard(kept.task_id)
        self._news.pop(kept.task_id, None)
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
