"""Read requests to end a task, and check that their authors may end it.

The documents of entities with a part in the task are read at each turn. Of all other entities, a document is read only
when the audit stream or a listing of Vault has shown it; one that counts for nothing is not read again before it is
written again. So a turn costs the same however many people there are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from jitvault.context import WorkerContext
from jitvault.documents.paths import Kept, path_of
from jitvault.documents.signed import EndDocument, parse_signed, payload_of
from jitvault.errors import LedgerUnavailable, SecurityFinding
from jitvault.ledger.documents.index import DocumentStatus, Indexed, retry_missing
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.requests.complete_index import complete_index, index_is_complete
from jitvault.lifecycle.requests.reader import record_author_finding, verified
from jitvault.model.event_bodies import EndCause, EventBody
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Parties
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import EndReason
from jitvault.policy.decision import OPERATORS
from jitvault.vault.interface import Entity, Stored

AT_ONCE = 32
"""How many documents of people without a part in the task are read in one turn; the others follow in later turns."""
_LINES = 2
"""How many lines a write has at most: its request and its response."""
_REASONS = {
    "completed": EndReason.COMPLETED,
    "operator": EndReason.OPERATOR,
    "forced": EndReason.OPERATOR,
    "cancelled": None,
    "intercepted": EndReason.INTERCEPTED,
}

T = TypeVar("T")
B = TypeVar("B", bound=EventBody)


@dataclass(frozen=True, slots=True)
class EndRequest:
    """A request to end a task.

    `reason` is None for a cancellation before its grant. `written_at` is Vault's time of it. `envelope` is what its
    author signed, None where the signature does not hold any more.
    """

    by: Entity
    reason: EndReason | None
    note: str
    written_at: datetime
    envelope: SignedByPerson | None

    def event_body(self, kind: Callable[..., B], **more: Any) -> B:
        """Return what the event chain keeps of the request, with what else an event of this kind says."""
        return kind(by=self.by.id, name=self.by.name, note=self.note, signed=self.envelope, **more)

    def ends_task(self, otherwise: EndReason) -> EndCause:
        """Return the request as the cause of the task's end, with the reason `otherwise` where it has none."""
        return self.event_body(EndCause, reason=self.reason or otherwise)


@dataclass(frozen=True, slots=True)
class _WrittenRequest:
    """A request to end a task as it was written.

    `forces` says that the task is to be closed even where its end cannot be proven.
    """

    request: EndRequest
    forces: bool


def may_end(parties: Parties) -> dict[str, str]:
    """Return who may end a task besides operators: each entity with its part in the task."""
    return {parties.requester.entity: "requester", parties.agent.entity: "agent", parties.owner.entity: "owner"}


def end_request(worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """Return a request to end the task by one of `entitled` or any operator.

    The request of an entity that was disabled afterwards does not count, and must not keep others from ending the task.
    """
    return next((written.request for written in _valid_requests(worker, task_id, entitled)), None)


def end_request_of_others(worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """Return a request to end the task by an operator without a part in it.

    Only documents count that the lines which were read until now have shown.
    """
    return next((written.request for written in _indexed(worker, task_id, {*entitled})), None)


def end_reasons(
    worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str], recorded: Mapping[str, int]
) -> list[EndRequest]:
    """Return the requests, with a note, of those who may end the task; none where none is new.

    Each entity's newest request is returned if it has a note. `recorded` says how many each signed that are in the
    task's chain. Nothing is read where the index counts no more lines than these have.
    """
    seen = worker.ledger.indexed(Kept.END, task_id, [DocumentStatus.COUNTS, DocumentStatus.WAITS])
    if all(one.news <= _LINES * recorded.get(one.author, 0) for one in seen) and index_is_complete(worker, Kept.END):
        return []
    return [written.request for written in _valid_requests(worker, task_id, entitled) if written.request.note]


def force_request(
    worker: WorkerContext, task_id: str, *, entitled: Mapping[str, str], after: datetime | None
) -> EndRequest | None:
    """Return an operator's verified request to close the task without proof.

    Only a request that was written later than `after` counts.
    """
    for written in _valid_requests(worker, task_id, entitled):
        late = after is None or written.request.written_at > after
        if written.forces and late and _is_operator(worker, written.request.by):
            return written.request
    return None


def _valid_requests(worker: WorkerContext, task_id: str, entitled: Mapping[str, str]) -> Iterator[_WrittenRequest]:
    """Yield the requests that count.

    First comes the entity that this turn is for, then `entitled`, then operators.
    """
    known = set[str]()
    for author in (worker.asked_by, *entitled, *_operators(worker)):
        if author is None or author in known:
            continue
        known.add(author)
        written = _read_request(worker, task_id, author)
        if written is not None and _may(worker, written, entitled):
            yield written
    if not worker.mode.is_daemon:
        # without a daemon this process has to do it; a worker daemon has a loop for this, which takes seconds where
        # there are thousands of people
        complete_index(worker, Kept.END)
    yield from _indexed(worker, task_id, known)


def _operators(worker: WorkerContext) -> list[str]:
    """Return operators whose documents are read in any case.

    They are read although no line has shown one. The stream may not show every document. Operators who are members by
    another group are not known here: their documents are found by listing.
    """
    if not worker.mode.is_daemon or index_is_complete(worker, Kept.END):
        return []
    return _some(worker.identity.members_of(OPERATORS))


def _indexed(worker: WorkerContext, task_id: str, besides: set[str]) -> list[_WrittenRequest]:
    """Return requests of entities without a part in the task.

    They are the requests that count now.
    """
    found = worker.ledger.indexed(Kept.END, task_id, [DocumentStatus.COUNTS, DocumentStatus.WAITS])
    found = [one for one in found if one.author not in besides]
    fresh = [one for one in found if one.standing not in (DocumentStatus.COUNTS, DocumentStatus.WAITS)]
    if len(fresh) > AT_ONCE:
        # otherwise a turn that is due for one of the others would count as done by this turn
        worker.ledger.leave_rest(task_id)
    counting, read = list[_WrittenRequest](), list[Indexed]()
    for one in (*(one for one in found if one not in fresh), *_some(fresh)):
        written = _read_request(worker, task_id, one.author, is_news=one.is_unread)
        standing = _standing(worker, written)
        if written is not None and standing is DocumentStatus.COUNTS:
            counting.append(written)
        if written is None and (again := _looked_for(worker, task_id, one)) is not None:
            read.append(again)
        elif (one.read, one.standing) != (one.news, standing):
            read.append(replace(one, read=one.news, standing=standing))
            _record_not_entitled(worker, written, standing)
    # a full ledger must keep no access alive: what cannot be recorded is read again in the next turn
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(read)
    return counting


def _looked_for(worker: WorkerContext, task_id: str, one: Indexed) -> Indexed | None:
    """Return an unread document that is missing in Vault.

    It is one to look for again. The result is None where there is nothing to look for.
    """
    if not one.is_unread or worker.documents.read(path_of(Kept.END, one.author, task_id)) is not None:
        return None
    return retry_missing(one, worker.now())


def _standing(worker: WorkerContext, written: _WrittenRequest | None) -> DocumentStatus:
    """Return how the index keeps a request.

    A disabled operator may be enabled again, so the request waits; all others have to sign again.
    """
    if written is None:
        return DocumentStatus.VOID
    if _may(worker, written, {}):
        return DocumentStatus.COUNTS
    author = replace(written.request.by, disabled=False)
    return DocumentStatus.WAITS if _is_operator(worker, author) else DocumentStatus.VOID


def _record_not_entitled(worker: WorkerContext, written: _WrittenRequest | None, standing: DocumentStatus) -> None:
    if written is not None and standing is DocumentStatus.VOID and not written.request.by.disabled:
        message = f"{written.request.by.name} asked for the end of a task and may not"
        with suppress(LedgerUnavailable):
            record_author_finding(worker, written.request.by.id, "not_entitled", message)


def _some(found: Sequence[T]) -> list[T]:
    """Return up to AT_ONCE of them, at random.

    So no one can write so many documents that another one's never has its turn.
    """
    return secrets.SystemRandom().sample(found, min(AT_ONCE, len(found)))


def _read_request(worker: WorkerContext, task_id: str, author: str, *, is_news: bool = False) -> _WrittenRequest | None:
    """Return what an author wrote about the end of the task, entitled or not.

    With `is_news` it was written after whatever this turn may have read of it before.
    """
    path = path_of(Kept.END, author, task_id)
    with worker.facts.turn() if is_news else nullcontext():
        stored = worker.documents.read(path)
    if stored is None:
        return None
    found = verified(worker, stored, EndDocument, path, author, task_id)
    document = found.document if found else _unsigned(stored, author, task_id)
    entity = worker.identity.by_id(author) if document else None
    if document is None or entity is None:
        return None
    envelope = found.envelope if found else None
    said = EndRequest(entity, _REASONS[document.reason], document.note, stored.written_at, envelope)
    # a request to close a task without proof needs a valid signature
    return _WrittenRequest(said, found is not None and document.reason == "forced")


def _unsigned(stored: Stored, author: str, task_id: str) -> EndDocument | None:
    """Return a request to end this task whose signature does not hold.

    The author's key may have been replaced since. Vault lets no one but the author write there, and a request that
    takes access away must not be lost because its signature cannot be checked any more. The failed check is a finding.
    """
    try:
        return parse_signed(EndDocument, payload_of(stored.document), task=task_id, entity=author)
    except SecurityFinding:
        return None


def _may(worker: WorkerContext, written: _WrittenRequest, entitled: Mapping[str, str]) -> bool:
    by = written.request.by
    return not by.disabled and (by.id in entitled or _is_operator(worker, by))


def _is_operator(worker: WorkerContext, entity: Entity) -> bool:
    return bool(worker.identity.groups_of(entity, (OPERATORS,)))


def entitled(record: TaskRecord) -> dict[str, str]:
    """Return who may end the task besides operators.

    The result has each entity's id with its part in the task.
    """
    return may_end(Revision.of(record.revision.body).content)
