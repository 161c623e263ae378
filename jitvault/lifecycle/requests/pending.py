"""Find the documents that wait for a worker.

They are found by the audit stream and by listing Vault.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from jitvault.audit.changes import document_place
from jitvault.audit.observation import Place
from jitvault.context import WorkerContext
from jitvault.documents.paths import (
    DECISIONS,
    FREEZES,
    REQUESTS,
    DocumentEffect,
    Kept,
    TaskParties,
    WorkItem,
    author_of,
    effect_of,
    is_stale,
    path_of,
    request_path,
    vault_path,
    work_item_for,
)
from jitvault.errors import JitvaultError
from jitvault.ledger.documents.index import DocumentStatus, Indexed, retry_missing
from jitvault.ledger.documents.judgements import Judged, Judgement
from jitvault.ledger.storage.dialect import batches
from jitvault.lifecycle.requests.complete_index import forget_authors, index_names
from jitvault.policy.decision import OPERATORS
from jitvault.vault.interface import Stored

# how far one audit source may be behind another: its lines are older than lines that were seen already
_BEHIND = timedelta(minutes=1)
# how long it is cached who is an operator, which only decides whose turn comes first
_BELIEVED_S = 10.0


class DocumentWatcher:
    """Returns the documents that people wrote since the last call.

    It does not matter which process read their audit lines.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        # documents from before this moment are found by listing
        self._newest = worker.now()
        # thousands of people may write in a minute, and `new` is called with each batch of lines
        self._seen: dict[str, Place] = {}
        self._unshown = set[str]()

    def new(self) -> list[WorkItem]:
        """Return the documents that were not returned before, by Vault's time."""
        # where Vault's clock was set back, the newest line is in the future, and new lines are dated before it
        since = min(self._newest, self._worker.now()) - _BEHIND
        found = self._worker.ledger.written_documents(since=since, after=self._seen)
        for one in found:
            self._newest = max(self._newest, one.at)
            place, known = one.place, self._seen.get(one.place.source)
            if known is None or (known.epoch, known.offset) < (place.epoch, place.offset):
                self._seen[place.source] = place
            if one.path.endswith("/") and not one.path.startswith(FREEZES):
                self._unshown.add(author_of(one.path))
        items: list[WorkItem] = []
        for one in found:
            if (item := work_item_for(one.path)) is not None:
                shown = (document_place(vault_path("data", one.path)),) if item.requests else ()
                items.append(replace(item, since=one.claim, shown=shown))
        return items

    def take_unshown(self) -> set[str]:
        """Return the authors who wrote more than `new` has returned.

        Since the last call. Their documents have to be listed.
        """
        unshown, self._unshown = self._unshown, set()
        return unshown


class Triage:
    """Decides which documents are urgent.

    It decides whose turn comes first, and nothing else.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._operators: dict[str, tuple[float, bool]] = {}

    def sort(self, asks: Sequence[WorkItem]) -> list[tuple[WorkItem, DocumentEffect]]:
        """Return each document about a task once, with its effect."""
        known = self._worker.ledger.parts({ask.task_id for ask in asks if ask.task_id})
        lost = self._worker.ledger.lost_tasks({ask.task_id for ask in asks if ask.ends} - known.keys())
        return [(ask, self._effect(ask, known, lost)) for ask in dict.fromkeys(asks) if ask.task_id]

    def _effect(self, ask: WorkItem, known: Mapping[str, TaskParties], lost: Collection[str]) -> DocumentEffect:
        task = known.get(ask.task_id)
        # to find out whether the author is an operator costs Vault a request, and only matters for the end of a task
        is_operator = ask.ends and ask.requests and self._is_operator(ask.author)
        return effect_of(ask, task, is_operator=is_operator, is_lost=ask.task_id in lost)

    def _is_operator(self, entity_id: str) -> bool:
        now = time.monotonic()
        at, known = self._operators.get(entity_id, (-_BELIEVED_S, False))
        if now - at < _BELIEVED_S:
            return known
        try:
            entity = self._worker.identity.by_id(entity_id)
            known = entity is not None and bool(self._worker.identity.groups_of(entity, (OPERATORS,)))
        except JitvaultError:
            # it cannot be found out now, and an operator must not have to wait for that
            return True
        self._operators[entity_id] = (now, known)
        return known


class Backlog:
    """The requests in Vault that have no task yet, a few at a time.

    Authors take turns.

    A request that was judged before is skipped, unless a line of the audit stream shows that it was written again, or
    lines may be missing since.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._new: dict[str, deque[str]] = {}
        self._doubtful: dict[str, deque[str]] = {}

    @property
    def is_told(self) -> bool:
        """Return whether the index has every request to end a task."""
        return self._worker.ledger.listing(Kept.END).is_whole

    def list_again(self, *, again: bool = False) -> list[WorkItem]:
        """List all requests in Vault; return unread ones that may end a task.

        The audit lines of some may have been read already, by a command while no worker ran, or further back than a
        worker looks. `again` says that documents which were read before may have been written again.
        """
        worker = self._worker
        self._new.clear()
        self._doubtful.clear()
        begun = worker.now()
        before = worker.ledger.listing(Kept.END)
        again = again or not before.is_whole
        authors = sorted(name.rstrip("/") for name in worker.documents.names(REQUESTS))
        for author in set(worker.ledger.judged_authors()) - set(authors):
            worker.ledger.forget_judged(author, ())
        for author in authors:
            self._list(author, again=again)
        forget_authors(worker, Kept.END, authors)
        worker.ledger.keep_listing(Kept.END, before.gaps_now, begun)
        return self._written(worker.ledger.unread_of_unproven(Kept.END))

    def list_author(self, author: str) -> tuple[list[WorkItem], list[str]]:
        """List the documents of one author.

        Returns unread ones that may end a task, and the ungranted tasks that the author wrote about.
        """
        worker = self._worker
        about = {*self._list(author, again=False)}
        about |= {name.rstrip("/") for name in worker.documents.names(f"{DECISIONS}{author}/")}
        unread = [one for one in worker.ledger.unread_of_unproven(Kept.END) if one.author == author]
        return self._written(unread), [task for task in worker.ledger.ungranted() if task in about]

    def _written(self, unread: Sequence[Indexed]) -> list[WorkItem]:
        """Return those of the documents that are in Vault.

        A listing names the tasks that an author wrote about, and most of these have no request to end them. To look
        is one request, and a turn of each task would be twenty.
        """
        worker = self._worker
        found: list[WorkItem] = []
        for batch in batches(unread):
            missing: list[Indexed] = []
            for one in batch:
                path = path_of(Kept.END, one.author, one.about)
                if worker.documents.read(path) is None:
                    void = replace(one, read=one.news, standing=DocumentStatus.VOID, body={})
                    missing.append(retry_missing(one, worker.now()) or void)
                elif (ask := work_item_for(path)) is not None:
                    found.append(ask)
            worker.ledger.keep_read(missing)
        return found

    def _list(self, author: str, *, again: bool) -> list[str]:
        """List the requests of one author, and return the names of their tasks."""
        worker = self._worker
        asked = [name.rstrip("/") for name in worker.documents.names(f"{REQUESTS}{author}/")]
        tasks = [task for task in asked if work_item_for(request_path(author, task, "submit"))]
        worker.ledger.forget_judged(author, tasks)
        unsettled = worker.ledger.unsettled(author, tasks)
        self._new[author], self._doubtful[author] = deque(unsettled.new), deque(unsettled.doubtful)
        index_names(worker, Kept.END, author, asked, again=again)
        return asked

    @property
    def left(self) -> int:
        """Return how many requests are still to be read."""
        return sum(map(len, (*self._new.values(), *self._doubtful.values())))

    def some(self, count: int, may: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Read up to `count` requests, and return those to admit.

        Each is returned as task id and author. `may` says whether an author may have one more request read now.
        Requests that are too old are judged here and not even refused, since with a restored ledger there may be
        thousands of them.
        """
        found: list[tuple[str, str]] = []
        judgements: list[Judged] = []
        for author, task_id, is_new in self._take(count, may):
            path = request_path(author, task_id, "submit")
            line_at = self._worker.ledger.newest_line(path)
            stored = self._worker.documents.read(path)
            judgement = None if stored is None else self._judgement(path, stored, is_new=is_new)
            if stored is not None and judgement is None:
                found.append((task_id, author))
            elif stored is not None and judgement is not None:
                judgements.append(Judged(path, stored.version, stored.written_at, judgement, line_at))
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
        """Return the judgement of a request without reading its content.

        The result is None where the content has to be read.
        """
        if is_stale(stored.written_at, self._worker.now()):
            return Judgement.TOO_OLD
        before = None if is_new else self._worker.ledger.judged(path)
        if before is not None and (before.version, before.written_at) == (stored.version, stored.written_at):
            return before.judgement
        return None
