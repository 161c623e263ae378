"""List what people signed about a task and no worker has read yet, as far as the caller may read it.

Only its author can have written such a document. Whether it counts is for a worker to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from jitvault.context import Person
from jitvault.documents.paths import DECISIONS, REQUESTS, decision_path, is_stale, request_path
from jitvault.documents.published_task import PublishedDocument, PublishedTask
from jitvault.documents.signed import (
    DecisionDocument,
    EndDocument,
    ExtendDocument,
    GrantDocument,
    SignedDocument,
    SubmitDocument,
    WithdrawDocument,
    parse_signed,
    payload_of,
)
from jitvault.errors import SecurityFinding, VaultRefused
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject, approval_subject, can_count
from jitvault.vault.interface import Documents

_REQUESTS: Mapping[str, type[SignedDocument]] = {
    "submit": SubmitDocument,
    "grant": GrantDocument,
    "extend": ExtendDocument,
    "end": EndDocument,
}


@dataclass(frozen=True, slots=True)
class UnreadDocument:
    """A signed document that no worker has read.

    `kind` is `submit`, `grant`, `extend`, `end`, `approve`, `deny` or `withdraw`. `by` is the name or entity id of its
    author, or "you", and `at` Vault's time. `reason` is that of an end, and `note` is what its author wrote for people.
    """

    kind: str
    by: str
    at: str
    reason: str | None
    note: str


def unread_documents(
    person: Person, task_id: str, published: PublishedDocument | None, names: Mapping[str, str]
) -> list[UnreadDocument]:
    """Return what no worker has read about a task that is not over, the oldest first.

    These are the caller's own documents, and for an auditor everyone's. What was there when a worker last `published`
    the task was read by then. An end that counts ends the task, so each end is returned. `names` maps entity ids to
    names.
    """
    now = person.clock.agreed()
    subject = None
    if isinstance(published, PublishedTask):
        subject = approval_subject(published)
    authors = {**names, person.entity: "you"}
    found = []
    for entity, path, model in _places(person, task_id, subject):
        with suppress(SecurityFinding, VaultRefused):
            stored = person.documents.read(path)
            if stored is None or (model is not EndDocument and _is_read(stored.written_at, published, now)):
                continue
            document = parse_signed(model, payload_of(stored.document), task=task_id, entity=entity)
            if not isinstance(document, DecisionDocument) or can_count(document, stored.written_at, subject, now):
                found.append(_unread(document, authors.get(entity, entity), rfc3339(stored.written_at)))
    return sorted(found, key=lambda one: one.at)


def _is_read(written_at: datetime, published: PublishedDocument | None, now: datetime) -> bool:
    """Return whether a worker has read a document, or may have, where nothing is published of its task."""
    if published is None:
        return is_stale(written_at, now)
    return written_at <= published.written_at


def _places(
    person: Person, task_id: str, subject: ApprovalSubject | None
) -> Iterator[tuple[str, str, type[SignedDocument]]]:
    """Yield author, path and type of each document that may be there.

    Who may not list the authors looks at their own documents. `subject` is what is decided about.
    """
    documents = person.documents
    for entity in _names(documents, REQUESTS) or [person.entity]:
        for kind in _names(documents, request_path(entity, task_id, "")):
            if kind in _REQUESTS:
                yield entity, request_path(entity, task_id, kind), _REQUESTS[kind]
    for entity in _names(documents, DECISIONS) or [person.entity]:
        yield entity, decision_path(entity, task_id, "/withdraw"), WithdrawDocument
        if subject is not None:
            yield entity, decision_path(entity, task_id, subject.path_part), DecisionDocument


def _names(documents: Documents, folder: str) -> list[str]:
    with suppress(VaultRefused):
        return sorted(name.rstrip("/") for name in documents.names(folder))
    return []


def _unread(document: SignedDocument, by: str, at: str) -> UnreadDocument:
    match document:
        case EndDocument():
            return UnreadDocument(document.kind, by, at, document.reason, document.note)
        case DecisionDocument():
            return UnreadDocument(document.decision, by, at, None, document.reason)
        case ExtendDocument() | WithdrawDocument():
            return UnreadDocument(document.kind, by, at, None, document.reason)
        case _:
            return UnreadDocument(document.kind, by, at, None, "")
