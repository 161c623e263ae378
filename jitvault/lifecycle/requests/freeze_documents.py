"""Read operators' freezes.

The ledger's index keeps the freezes once they were read. Vault lets only operators write freezes. A freeze holds
whatever its author is by now, and even where its signature does not hold: what stops access must not end because its
author cannot be asked any more. A lift has to be signed by an entity that may lift at the moment at which the lift is
read; from then on it is done, whatever becomes of its author.

Nothing else ends a freeze. Where its document is gone, an administrator removed it or Vault was restored from an older
snapshot: the freeze still holds, and is lifted like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import Kept, path_of
from jitvault.documents.signed import FreezeDocument, parse_signed, payload_of
from jitvault.errors import AuditUntrusted, LedgerUnavailable, SecurityFinding
from jitvault.formats.conversion import as_json, converter
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.documents.index import DocumentStatus, Indexed, retry_missing
from jitvault.lifecycle.requests.complete_index import complete_index
from jitvault.lifecycle.requests.reader import record_author_finding, verified
from jitvault.lifecycle.requests.scope_names import entity_named
from jitvault.model.revision_content import RevisionContent
from jitvault.model.scope import FreezeStatement, Scope, as_dated, freezes_in_force
from jitvault.model.signed_document import SignedByPerson
from jitvault.policy.decision import OPERATORS
from jitvault.stream.reading import observe
from jitvault.vault.interface import Entity, Signer, Stored

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

MOST_OF_ONE = 1000
"""How many documents of one author are read in one pass. The others are read in later passes, and are a finding."""
MOST_UNSEEN = 100
"""How many known documents are read again in one pass while the stream does not show whether they changed."""
_signed = converter(SignedByPerson)


@dataclass(frozen=True, slots=True)
class _Freeze:
    """A freeze that was not lifted, with its document."""

    statement: FreezeStatement
    document: Indexed


def freezes(worker: WorkerContext) -> list[FreezeStatement]:
    """Return the operators' freezes in force, the oldest first."""
    if not worker.mode.is_daemon:
        try:
            observe(worker)
        except AuditUntrusted:
            worker = replace(worker, is_blind=True)
    return [one.statement for one in _in_force(worker)]


def freeze_covering(worker: WorkerContext, content: RevisionContent) -> FreezeStatement | None:
    """Return the oldest freeze that covers a task.

    The content of the task's revision says what covers it.
    """
    return next((one.statement for one in _in_force(worker) if one.statement.covers(content)), None)


def freeze_last_read(ledger: Ledger, content: RevisionContent) -> FreezeStatement | None:
    """Return the oldest freeze that covers a task, as it was last read."""
    return next((one for one in freezes_last_read(ledger) if one.covers(content)), None)


def freezes_last_read(ledger: Ledger) -> list[FreezeStatement]:
    """Return the operators' freezes as they were last read, the oldest first.

    Vault is not asked, so what nobody has read yet is not known: a document that was written since may lift one.
    """
    known = ledger.indexed(Kept.FREEZE, None, [DocumentStatus.COUNTS, DocumentStatus.LIFTS])
    counting = (DocumentStatus.COUNTS, DocumentStatus.LIFTS)
    stated = [_statement(one) for one in known if one.standing in counting and not one.is_unread]
    return sorted(freezes_in_force(stated), key=lambda one: one.at)


def _in_force(worker: WorkerContext) -> list[_Freeze]:
    complete_index(worker, Kept.FREEZE)
    found = _read(worker, worker.ledger.indexed(Kept.FREEZE, None, [DocumentStatus.COUNTS, DocumentStatus.WAITS]))
    if not any(one.standing is DocumentStatus.COUNTS for one in found):
        return []
    known = worker.ledger.indexed(Kept.FREEZE, None, [DocumentStatus.LIFTS])
    frozen = [_Freeze(_statement(one), one) for one in _dated(worker, found) if one.standing is DocumentStatus.COUNTS]
    lifts = [_statement(one) for one in _dated(worker, known) if one.standing is DocumentStatus.LIFTS]
    held = freezes_in_force([*(one.statement for one in frozen), *lifts])
    lifted = [one.document for one in frozen if one.statement not in held]
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read([replace(one, standing=DocumentStatus.LIFTED) for one in lifted])
    return sorted((one for one in frozen if one.statement in held), key=lambda one: one.statement.at)


def _dated(worker: WorkerContext, found: Sequence[Indexed]) -> list[Indexed]:
    """Return the documents, with dates in the future replaced.

    `as_dated` says how.
    """
    now, kept, changed = worker.now(), list[Indexed](), list[Indexed]()
    for one in found:
        statement = _statement(one) if one.standing in (DocumentStatus.COUNTS, DocumentStatus.LIFTS) else None
        dated = statement and as_dated(statement, now)
        if statement is not None and dated != statement:
            body = {**one.body, "at": rfc3339(dated.at)} if dated else {}
            changed.append(one := replace(one, standing=one.standing if dated else DocumentStatus.VOID, body=body))
        kept.append(one)
    # the date counts from the first reading on: otherwise a lift that follows would come too early
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(changed)
    return kept


def _read(worker: WorkerContext, found: Sequence[Indexed]) -> list[Indexed]:
    """Return the documents as they are in Vault now.

    Those that are gone are left out. For a lift that waits, it is checked again whether its author may lift.
    """
    once = replace(worker, signer=_Keys(worker.signer))
    authors = _Lifters(worker)
    now: list[Indexed] = []
    changed: list[Indexed] = []
    for one in [*_at_most(worker, [one for one in found if one.is_unread]), *(o for o in found if not o.is_unread)]:
        read = _read_document(once, authors, one)
        if read is not None:
            now.append(read)
        if read is not None and read != one:
            changed.append(read)
    # a full ledger must keep no access alive: what cannot be recorded is read again in the next pass
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(changed)
    return now


def _at_most(worker: WorkerContext, unread: Sequence[Indexed]) -> list[Indexed]:
    """Return the documents of each author to read in one pass.

    Unread ones come first.
    """
    most = MOST_OF_ONE if not worker.is_blind else MOST_UNSEEN
    taken, some = Counter[str](), list[Indexed]()
    for one in sorted(unread, key=lambda one: one.read):
        taken[one.author] += 1
        if taken[one.author] <= (MOST_OF_ONE if not one.read else most):
            some.append(one)
    for author in (author for author, count in taken.items() if count > MOST_OF_ONE):
        with suppress(LedgerUnavailable):
            message = f"more than {MOST_OF_ONE} documents below freezes/{author}/ wait to be read"
            record_author_finding(worker, author, "too_many_freezes", message)
    return some


def _read_document(worker: WorkerContext, lifters: _Lifters, one: Indexed) -> Indexed | None:
    """Return a document as it is in Vault now; None where it is gone."""
    if not one.is_unread:
        waits = one.standing is DocumentStatus.WAITS
        return replace(one, standing=DocumentStatus.LIFTS) if waits and lifters.may(one.author) else one
    path = path_of(Kept.FREEZE, one.author, one.about)
    # it was written after whatever this turn may have read of it before
    with worker.facts.turn():
        stored = worker.documents.read(path)
    if stored is None:
        return _without_document(worker, one)
    found = verified(worker, stored, FreezeDocument, path, one.author, one.about)
    document = found.document if found else _unsigned(stored, one)
    scope = Scope(document.agent, document.template, document.owner) if document else None
    if document is None or scope is None or scope.key != one.about:
        return replace(one, read=one.news, standing=DocumentStatus.VOID, body={})
    body: dict[str, Any] = {
        **{"agent": scope.agent, "template": scope.template, "owner": scope.owner},
        **{"reason": document.reason, "at": rfc3339(stored.written_at), "by": lifters.name(one.author)},
    }
    if found is not None:
        body["signed"] = as_json(found.envelope)
    known = str(one.body.get("entity") or "")
    body["entity"] = known if one.body.get("at") == body["at"] else entity_named(worker, scope.name)
    standing = DocumentStatus.COUNTS
    if not document.freezes:
        standing = DocumentStatus.LIFTS if lifters.may(one.author) else DocumentStatus.WAITS
    return replace(one, read=one.news, standing=standing, body=body)


def _without_document(worker: WorkerContext, one: Indexed) -> Indexed | None:
    """Return what stays in the index of a document that is missing in Vault.

    A freeze that was in force stays, and so does a document that may still appear.
    """
    if one.standing is DocumentStatus.COUNTS:
        return replace(one, read=one.news)
    if (again := retry_missing(one, worker.now())) is not None:
        return again
    with suppress(LedgerUnavailable):
        worker.ledger.forget(one)
    return None


def _unsigned(stored: Stored, one: Indexed) -> FreezeDocument | None:
    """Return a freeze whose signature does not hold. A lift needs a valid one."""
    try:
        document = parse_signed(FreezeDocument, payload_of(stored.document), task=one.about, entity=one.author)
    except SecurityFinding:
        return None
    return document if document.freezes else None


def unverified_statement(stored: Stored, entity: str, key: str) -> FreezeStatement | None:
    """Return what a freeze or a lift says, without verifying its signature.

    `entity` and `key` are those of its path. None for a document that counts for nothing: it cannot be parsed, or is of
    another scope than its path.
    """
    try:
        document = parse_signed(FreezeDocument, payload_of(stored.document), task=key, entity=entity)
    except SecurityFinding:
        return None
    scope = Scope(document.agent, document.template, document.owner)
    if scope.key != key:
        return None
    return FreezeStatement(scope, document.freezes, entity, document.reason, stored.written_at)


def _statement(document: Indexed) -> FreezeStatement:
    body = document.body
    scope = Scope(body["agent"], body["template"], body["owner"])
    return FreezeStatement(
        scope,
        document.standing is DocumentStatus.COUNTS,
        body["by"],
        body["reason"],
        datetime.fromisoformat(body["at"]),
        body.get("entity") or "",
        document.author,
        _signed(body["signed"]) if "signed" in body else None,
    )


class _Lifters:
    """The authors' names, and whether they may lift a freeze.

    Each author is read from Vault once in a pass.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._known: dict[str, Entity | None] = {}

    def name(self, author: str) -> str:
        entity = self._entity(author)
        return entity.name if entity else author

    def may(self, author: str) -> bool:
        entity = self._entity(author)
        if entity is None or entity.disabled:
            return False
        return bool(self._worker.identity.groups_of(entity, (OPERATORS,)))

    def _entity(self, author: str) -> Entity | None:
        if author not in self._known:
            self._known[author] = self._worker.identity.by_id(author)
        return self._known[author]


class _Keys:
    """A signer that reads each public key once in a pass."""

    def __init__(self, own: Signer) -> None:
        self._own = own
        self._known: dict[str, dict[int, str]] = {}

    def sign(self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None) -> dict[str, Any]:
        return self._own.sign(payload, payload_type, key=key, op=op)

    def public_keys(self, key: str) -> dict[int, str]:
        if key not in self._known:
            self._known[key] = self._own.public_keys(key)
        return self._known[key]
