"""What operators froze, as the worker goes by it: read when it was written, and kept in the ledger's index.

Vault lets only operators write there. A freeze holds whoever its author is by now, and also where its signature does
not: what stops access must not end because somebody cannot be asked any more. A lift has to be signed by who may lift
at the moment at which it is taken in; from then on it is done, whatever becomes of its author.

Nothing else ends a freeze. Where its document is gone an administrator removed it, or Vault was restored from an older
snapshot: it holds on, and is lifted as any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.dsse import payload_of
from jitvault.documents.paths import Kept, path_of
from jitvault.documents.signed import FreezeDocument, parse_signed
from jitvault.errors import AuditUntrusted, LedgerUnavailable, SecurityFinding
from jitvault.ledger.document_index import Indexed, Standing, retry_missing
from jitvault.lifecycle.requests.listing import see_that_it_is_told
from jitvault.lifecycle.requests.reader import find_about_author, verified
from jitvault.lifecycle.requests.renamed import entity_named
from jitvault.model.scope import FreezeStatement, Scope, as_dated, freezes_in_force
from jitvault.policy.decision import OPERATORS
from jitvault.stream.reading import observe
from jitvault.vault.interface import Entity, Signer, Stored

MOST_OF_ONE = 1000
"""So many documents of one author are read in one look. The others are read in the next ones, and that is a finding."""
MOST_UNSEEN = 100
"""So many that were read before are read again in one look while the stream does not tell whether they changed."""


@dataclass(frozen=True, slots=True)
class _Freeze:
    """A freeze that nobody lifted, and the document that it stands in."""

    word: FreezeStatement
    document: Indexed


def freezes(worker: WorkerContext) -> list[FreezeStatement]:
    """What operators froze and nobody lifted, the oldest first."""
    if not worker.reads_on:
        try:
            observe(worker)
        except AuditUntrusted:
            worker = replace(worker, is_blind=True)
    return [one.word for one in _in_force(worker)]


def freeze_covering(worker: WorkerContext, content: Mapping[str, Any]) -> FreezeStatement | None:
    """The oldest freeze that covers a task, by the content of its revision."""
    return next((one.word for one in _in_force(worker) if one.word.covers(content)), None)


def _in_force(worker: WorkerContext) -> list[_Freeze]:
    see_that_it_is_told(worker, Kept.FREEZE)
    found = _read(worker, worker.ledger.indexed(Kept.FREEZE, None, [Standing.COUNTS, Standing.WAITS]))
    if not any(one.standing is Standing.COUNTS for one in found):
        return []
    known = worker.ledger.indexed(Kept.FREEZE, None, [Standing.LIFTS])
    frozen = [_Freeze(_word(one), one) for one in _dated(worker, found) if one.standing is Standing.COUNTS]
    lifts = [_word(one) for one in _dated(worker, known) if one.standing is Standing.LIFTS]
    held = freezes_in_force([*(one.word for one in frozen), *lifts])
    lifted = [one.document for one in frozen if one.word not in held]
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read([replace(one, standing=Standing.LIFTED) for one in lifted])
    return sorted((one for one in frozen if one.word in held), key=lambda one: one.word.at)


def _dated(worker: WorkerContext, found: Sequence[Indexed]) -> list[Indexed]:
    """The same documents, as those count that are dated later than now."""
    now, kept, changed = worker.now(), list[Indexed](), list[Indexed]()
    for one in found:
        word = _word(one) if one.standing in (Standing.COUNTS, Standing.LIFTS) else None
        dated = word and as_dated(word, now)
        if word is not None and dated != word:
            body = {**one.body, "at": dated.at.isoformat()} if dated else {}
            changed.append(one := replace(one, standing=one.standing if dated else Standing.VOID, body=body))
        kept.append(one)
    # it counts from the first look on: else a lift that follows would come too early
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(changed)
    return kept


def _read(worker: WorkerContext, found: Sequence[Indexed]) -> list[Indexed]:
    """The same documents, each as it is now, without those that are gone. What waits is asked about again."""
    once = replace(worker, signer=_Keys(worker.signer))
    authors = _Lifters(worker)
    now: list[Indexed] = []
    changed: list[Indexed] = []
    for one in [*_at_most(worker, [one for one in found if one.is_unread]), *(o for o in found if not o.is_unread)]:
        read = _judged(once, authors, one)
        if read is not None:
            now.append(read)
        if read is not None and read != one:
            changed.append(read)
    # where nothing can be written they are read once more: that must keep no access alive
    with suppress(LedgerUnavailable):
        worker.ledger.keep_read(changed)
    return now


def _at_most(worker: WorkerContext, unread: Sequence[Indexed]) -> list[Indexed]:
    """As many of each author's as are read in one look, those first that nobody has read yet."""
    most = MOST_OF_ONE if not worker.is_blind else MOST_UNSEEN
    taken, some = Counter[str](), list[Indexed]()
    for one in sorted(unread, key=lambda one: one.read):
        taken[one.author] += 1
        if taken[one.author] <= (MOST_OF_ONE if not one.read else most):
            some.append(one)
    for author in (author for author, count in taken.items() if count > MOST_OF_ONE):
        with suppress(LedgerUnavailable):
            message = f"more than {MOST_OF_ONE} documents below freezes/{author}/ wait to be read"
            find_about_author(worker, author, "too_many_freezes", message)
    return some


def _judged(worker: WorkerContext, lifters: _Lifters, one: Indexed) -> Indexed | None:
    """What a document says now; None for one that is gone."""
    if not one.is_unread:
        waits = one.standing is Standing.WAITS
        return replace(one, standing=Standing.LIFTS) if waits and lifters.may(one.author) else one
    path = path_of(Kept.FREEZE, one.author, one.about)
    stored = worker.documents.read(path)
    if stored is None:
        return _without_document(worker, one)
    found = verified(worker, stored, FreezeDocument, path, one.author, one.about)
    paper = found.paper if found else _unsigned(stored, one)
    scope = Scope(paper.agent, paper.template, paper.owner) if paper else None
    if paper is None or scope is None or scope.key != one.about:
        return replace(one, read=one.news, standing=Standing.VOID, body={})
    body = {
        **{"agent": scope.agent, "template": scope.template, "owner": scope.owner},
        **{"reason": paper.reason, "at": stored.written_at.isoformat(), "by": lifters.name(one.author)},
    }
    known = str(one.body.get("entity") or "")
    body["entity"] = known if one.body.get("at") == body["at"] else entity_named(worker, scope.name)
    standing = Standing.COUNTS
    if not paper.freezes:
        standing = Standing.LIFTS if lifters.may(one.author) else Standing.WAITS
    return replace(one, read=one.news, standing=standing, body=body)


def _without_document(worker: WorkerContext, one: Indexed) -> Indexed | None:
    """What stays of a document that is not in Vault: a freeze that was in force, and what may come yet."""
    if one.standing is Standing.COUNTS:
        return replace(one, read=one.news)
    if (again := retry_missing(one, worker.now())) is not None:
        return again
    with suppress(LedgerUnavailable):
        worker.ledger.forget(one)
    return None


def _unsigned(stored: Stored, one: Indexed) -> FreezeDocument | None:
    """What a document says, if it is a freeze but for its signature. That one lifts something has to be signed."""
    try:
        paper = parse_signed(FreezeDocument, payload_of(stored.document), task=one.about, entity=one.author)
    except SecurityFinding:
        return None
    return paper if paper.freezes else None


def _word(document: Indexed) -> FreezeStatement:
    body = document.body
    scope = Scope(body["agent"], body["template"], body["owner"])
    at = datetime.fromisoformat(body["at"])
    return FreezeStatement(
        scope, document.standing is Standing.COUNTS, body["by"], body["reason"], at, body.get("entity") or ""
    )


class _Lifters:
    """Who the authors are and whether they may lift a freeze; each is asked for once in a look."""

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
    """A signer whose public keys are asked for once in a look."""

    def __init__(self, own: Signer) -> None:
        self._own = own
        self._known: dict[str, dict[int, str]] = {}

    def sign(self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None) -> dict[str, Any]:
        return self._own.sign(payload, payload_type, key=key, op=op)

    def public_keys(self, key: str) -> dict[int, str]:
        if key not in self._known:
            self._known[key] = self._own.public_keys(key)
        return self._known[key]
