"""What waits for a worker, by what the stream showed and by what lies in Vault."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from jitvault.audit.observation import Place
from jitvault.context import WorkerContext
from jitvault.documents.paths import (
    DocumentEffect,
    Kept,
    TaskParties,
    WorkItem,
    effect_of,
    is_stale,
    path_of,
    submission_path,
    work_item_for,
)
from jitvault.errors import JitvaultError
from jitvault.ledger.judgements import Judged, Judgement
from jitvault.lifecycle.decision.admit import judged
from jitvault.lifecycle.requests.listing import forget_authors, keep_names
from jitvault.policy.decision import OPERATORS
from jitvault.vault.interface import Stored

# one source may be behind another by so much: its lines are older than what was seen already
_BEHIND = timedelta(minutes=1)
# for how long it is believed who is an operator: it only says whose turn comes first
_BELIEVED_S = 10.0


class DocumentWatcher:
    """What people have written since somebody looked last, whichever process read the lines."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        # what was written before is found by listing
        self._newest = worker.now()
        # thousands may write in a minute, and whoever asks does so with each batch of lines
        self._seen: dict[str, Place] = {}

    def new(self) -> list[WorkItem]:
        """What was not given before, in the order of Vault's time."""
        # where Vault's clock was set back the newest line lies in the future, and what comes now before it
        since = min(self._newest, self._worker.now()) - _BEHIND
        found = self._worker.ledger.written(since=since, after=self._seen)
        for one in found:
            self._newest = max(self._newest, one.at)
            place, known = one.place, self._seen.get(one.place.source)
            if known is None or (known.epoch, known.offset) < (place.epoch, place.offset):
                self._seen[place.source] = place
        return [replace(ask, since=one.claim) for one in found if (ask := work_item_for(one.path))]


class Triage:
    """Which of the documents are urgent. What it goes by decides whose turn comes first, and nothing else."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._operators: dict[str, tuple[float, bool]] = {}

    def sort(self, asks: Sequence[WorkItem]) -> list[tuple[WorkItem, DocumentEffect]]:
        """Each of these documents about a task, with what follows from it; two that say the same are one."""
        known = self._worker.ledger.parts({ask.task_id for ask in asks if ask.task_id})
        return [(ask, self._heed(ask, known)) for ask in dict.fromkeys(asks) if ask.task_id]

    def _heed(self, ask: WorkItem, known: Mapping[str, TaskParties]) -> DocumentEffect:
        task = known.get(ask.task_id)
        # who it is costs Vault a request, and matters for the end of a task
        return effect_of(ask, task, is_operator=ask.ends and ask.requests and self._is_operator(ask.author))

    def _is_operator(self, entity_id: str) -> bool:
        now = time.monotonic()
        at, known = self._operators.get(entity_id, (-_BELIEVED_S, False))
        if now - at < _BELIEVED_S:
            return known
        try:
            entity = self._worker.identity.by_id(entity_id)
            known = entity is not None and bool(self._worker.identity.groups_of(entity, (OPERATORS,)))
        except JitvaultError:
            # nobody can say it now, and an operator must not wait for that
            return True
        self._operators[entity_id] = (now, known)
        return known


class Backlog:
    """The requests that lie in Vault and that no task was made of, a few at a time; the authors take turns.

    What was judged before is passed by without a look at it, unless a line of the audit stream shows that it was
    written again, or lines may be missing since.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._new: dict[str, deque[str]] = {}
        self._doubtful: dict[str, deque[str]] = {}

    @property
    def is_told(self) -> bool:
        """Whether the stream has told of all that people signed about the end of tasks, since it was listed."""
        return self._worker.ledger.listing(Kept.END).is_whole

    def list_again(self, *, is_blind: bool = False) -> list[WorkItem]:
        """Look at what lies there now; gives what may be wishes to end a task that nobody has read.

        Some of their lines may have been read: by a command while no worker ran, or later than a worker looks back.
        `is_blind`: what was read before may have been written again.
        """
        worker = self._worker
        self._new.clear()
        self._doubtful.clear()
        begun, before = worker.now(), worker.ledger.listing(Kept.END)
        again = is_blind or not before.is_whole
        authors = sorted(name.rstrip("/") for name in worker.documents.names("requests/"))
        for author in set(worker.ledger.judged_authors()) - set(authors):
            worker.ledger.forget_judged(author, ())
        for author in authors:
            asked = [name.rstrip("/") for name in worker.documents.names(f"requests/{author}/")]
            tasks = [task for task in asked if work_item_for(submission_path(author, task))]
            worker.ledger.forget_judged(author, tasks)
            unsettled = worker.ledger.unsettled(author, tasks)
            self._new[author], self._doubtful[author] = deque(unsettled.new), deque(unsettled.doubtful)
            keep_names(worker, Kept.END, author, asked, again=again)
        forget_authors(worker, Kept.END, authors)
        worker.ledger.keep_listing(Kept.END, before.gaps_now, begun)
        unread = worker.ledger.unread_of_open(Kept.END)
        return [ask for author, task in unread if (ask := work_item_for(path_of(Kept.END, author, task)))]

    @property
    def left(self) -> int:
        """How many are still to be looked at."""
        return sum(map(len, (*self._new.values(), *self._doubtful.values())))

    def some(self, count: int, may: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Up to `count` of them that begin something, each with its author, who `may` have one more looked at now.

        As many are read at most: those that are too old are judged here, since beside a restored ledger there may be
        thousands of them, and they are not even refused.
        """
        found, judgements = list[tuple[str, str]](), list[Judged]()
        for author, task_id, is_new in self._take(count, may):
            path = submission_path(author, task_id)
            line_at = self._worker.ledger.newest_line(path)
            stored = self._worker.documents.read(path)
            judgement = None if stored is None else self._judgement(path, stored, is_new=is_new)
            if stored is not None and judgement is None:
                found.append((task_id, author))
            elif stored is not None and judgement is not None:
                judgements.append(judged(path, stored, judgement, line_at))
        self._worker.ledger.judge(judgements, self._worker.now())
        return found

    def _take(self, count: int, may: Callable[[str], bool]) -> list[tuple[str, str, bool]]:
        taken: list[tuple[str, str, bool]] = []
        for queues, is_new in ((self._new, True), (self._doubtful, False)):
            authors = deque(author for author, queue in queues.items() if queue)
            while authors and len(taken) < count:
                author = authors.popleft()
                if not may(author):
                    continue
                taken.append((author, queues[author].popleft(), is_new))
                if queues[author]:
                    authors.append(author)
        return taken

    def _judgement(self, path: str, stored: Stored, *, is_new: bool) -> Judgement | None:
        """What is known of the request without a look at what it says; None where that has to be looked at."""
        if is_stale(stored.written_at, self._worker.now()):
            return Judgement.TOO_OLD
        before = None if is_new else self._worker.ledger.judged(path)
        if before is not None and (before.version, before.written_at) == (stored.version, stored.written_at):
            return before.judgement
        return None
