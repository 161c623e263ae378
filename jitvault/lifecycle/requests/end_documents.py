"""Who asked for the end of a task, as the worker reads it, and whether they may.

Whoever has a part in the task is read at each look. Of all others, those alone whose document the audit stream or a
list of Vault has shown: one that counts for nothing is not read again before it is written again. So a look costs the
same however many people there are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from jitvault.context import WorkerContext
from jitvault.documents.dsse import payload_of
from jitvault.documents.paths import Kept, path_of
from jitvault.documents.signed import EndDocument, parse_signed
from jitvault.errors import LedgerUnavailable, SecurityFinding
from jitvault.ledger.document_index import Indexed, Standing, retry_missing
from jitvault.lifecycle.requests.listing import is_told, see_that_it_is_told
from jitvault.lifecycle.requests.reader import find_about_author, verified
from jitvault.model.states import EndReason
from jitvault.policy.decision import OPERATORS
from jitvault.vault.interface import Entity, Stored

AT_ONCE = 32
"""So many documents of people without a part in the task are read in one look; the others in the next ones."""
_REASONS = {
    "completed": EndReason.COMPLETED,
    "operator": EndReason.OPERATOR,
    "forced": EndReason.OPERATOR,
    "cancelled": None,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EndRequest:
    """A wish to end a task. `reason` None: it was cancelled before it was granted."""

    by: Entity
    reason: EndReason | None
    note: str

    def event_body(self) -> dict[str, object]:
        """Return what the event chain keeps of the request.

        The name is the entity's at this moment: a later reader of the chain cannot ask Vault for it.
        """
        return {"by": self.by.id, "name": self.by.name, "note": self.note}


@dataclass(frozen=True, slots=True)
class _Wish:
    """A wish to end a task as it was written. `forces`: also where that cannot be proven."""

    request: EndRequest
    forces: bool
    written_at: datetime


def may_end(parts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Who may end a task besides operators, by those with a part in it."""
    return {parts[part]["entity"]: part for part in ("requester", "agent", "owner")}


def end_request(worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """A wish to end the task by somebody who may: one of `entitled`, or any operator.

    The wish of an entity that was disabled afterwards does not count; theirs must not keep others from ending it.
    """
    return next((wish.request for wish in _wishes(worker, task_id, entitled)), None)


def end_request_of_others(worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """The same of operators without a part in the task, by the lines that were read until now."""
    return next((wish.request for wish in _indexed(worker, task_id, {*entitled})), None)


def end_reasons(worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str]) -> list[EndRequest]:
    """The newest wish of everybody who may end the task and said why."""
    return [wish.request for wish in _wishes(worker, task_id, entitled) if wish.request.note]


def force_request(
    worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str], after: datetime | None
) -> EndRequest | None:
    """An operator's verified wish, written later than `after`, to close the task even if its end cannot be proven."""
    for wish in _wishes(worker, task_id, entitled):
        late = after is None or wish.written_at > after
        if wish.forces and late and _is_operator(worker, wish.request.by):
            return wish.request
    return None


def _wishes(worker: WorkerContext, task_id: str, entitled: Mapping[str, str]) -> Iterator[_Wish]:
    """The wishes that count: first of whoever this look is for and of `entitled`, then of operators."""
    known = set[str]()
    for author in (worker.asked_by, *entitled, *_operators(worker)):
        if author is None or author in known:
            continue
        known.add(author)
        wish = _wish(worker, task_id, author)
        if wish is not None and _may(worker, wish, entitled):
            yield wish
    if not worker.reads_on:
        # nobody else does; a worker has a loop for that, which takes seconds where there are thousands of people
        see_that_it_is_told(worker, Kept.END)
    yield from _indexed(worker, task_id, known)


def _operators(worker: WorkerContext) -> list[str]:
    """The operators whose documents are read although no line has shown one, since the stream may not tell of all.

    Those who are so by another group are not known here: theirs are found by listing.
    """
    if not worker.reads_on or is_told(worker, Kept.END):
        return []
    return _some(worker.identity.members_of(OPERATORS))


def _indexed(worker: WorkerContext, task_id: str, besides: set[str]) -> list[_Wish]:
    """The wishes of those without a part in the task that count by now."""
    found = worker.ledger.indexed(Kept.END, task_id, [Standing.COUNTS, Standing.WAITS])
    found = [one for one in found if one.author not in besides]
    fresh = [one for one in found if one.standing not in (Standing.COUNTS, Standing.WAITS)]
    if len(fresh) > AT_ONCE:
        # else a look that is wanted for one of the others is taken for done by this one
        worker.ledger.leave_rest(task_id)
    counting, read = list[_Wish](), list[Indexed]()
    for one in (*(one for one in found if one not in fresh), *_some(fresh)):
        wish = _wish(worker, task_id, one.author)
        standing = _standing(worker, wish)
        if wish is not None and standing is Standing.COUNTS:
            counting.append(wish)
        if wish is None and (again := _looked_for(worker, task_id, one)) is not None:
            read.append(again)
        elif (one.read, one.standing) != (one.news, standing):
            read.append(replace(one, read=one.news, standing=standing))
            _tell_of(worker, wish, standing)
    # where nothing can be written they are read once more: that must keep no access alive
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(read)
    return counting


def _looked_for(worker: WorkerContext, task_id: str, one: Indexed) -> Indexed | None:
    """An unread document that is not there, as one to look for again; None where there is nothing to look for."""
    if not one.is_unread or worker.documents.read(path_of(Kept.END, one.author, task_id)) is not None:
        return None
    return retry_missing(one, worker.now())


def _standing(worker: WorkerContext, wish: _Wish | None) -> Standing:
    """What is kept of a wish: an operator who is disabled may be enabled again, all others have to sign again."""
    if wish is None:
        return Standing.VOID
    if _may(worker, wish, {}):
        return Standing.COUNTS
    return Standing.WAITS if _is_operator(worker, replace(wish.request.by, disabled=False)) else Standing.VOID


def _tell_of(worker: WorkerContext, wish: _Wish | None, standing: Standing) -> None:
    if wish is not None and standing is Standing.VOID and not wish.request.by.disabled:
        message = f"{wish.request.by.name} asked for the end of a task and may not"
        with suppress(LedgerUnavailable):
            find_about_author(worker, wish.request.by.id, "not_entitled", message)


def _some(found: Sequence[T]) -> list[T]:
    """Up to AT_ONCE of them, at random: nobody can write so much that another one's never has its turn."""
    return secrets.SystemRandom().sample(found, min(AT_ONCE, len(found)))


def _wish(worker: WorkerContext, task_id: str, author: str) -> _Wish | None:
    """What an author wrote about the end of the task, whether or not they may."""
    path = path_of(Kept.END, author, task_id)
    stored = worker.documents.read(path)
    if stored is None:
        return None
    found = verified(worker, stored, EndDocument, path, author, task_id)
    paper = found.paper if found else _unsigned(stored, author, task_id)
    entity = worker.identity.by_id(author) if paper else None
    if paper is None or entity is None:
        return None
    said = EndRequest(entity, _REASONS[paper.reason], paper.note)
    # that something is closed without proof has to be signed
    return _Wish(said, found is not None and paper.reason == "forced", stored.written_at)


def _unsigned(stored: Stored, author: str, task_id: str) -> EndDocument | None:
    """What a document says, if it is the end of this task but for its signature, as where its key was replaced since.

    Vault lets nobody but its author write there. What takes access away must not be lost because the signature cannot
    be checked any more; that it cannot is a finding.
    """
    try:
        return parse_signed(EndDocument, payload_of(stored.document), task=task_id, entity=author)
    except SecurityFinding:
        return None


def _may(worker: WorkerContext, wish: _Wish, entitled: Mapping[str, str]) -> bool:
    by = wish.request.by
    return not by.disabled and (by.id in entitled or _is_operator(worker, by))


def _is_operator(worker: WorkerContext, entity: Entity) -> bool:
    return bool(worker.identity.groups_of(entity, (OPERATORS,)))
