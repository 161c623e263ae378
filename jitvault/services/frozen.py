"""The freezes in force, for people: what operators signed and nobody lifted, and what a tripwire froze."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from jitvault.domain.papers import FreezePaper, accepted
from jitvault.domain.scope import Scope, Word, as_dated, in_force
from jitvault.domain.signing import payload_of
from jitvault.errors import SecurityFinding
from jitvault.ports.record import Freeze
from jitvault.ports.vault import Documents
from jitvault.services.ask import Asked
from jitvault.services.context import Person, Worker
from jitvault.services.freezes import freezes
from jitvault.services.watch import being_rebuilt


def frozen_by_all(worker: Worker) -> list[dict[str, Any]]:
    """Every freeze as the worker goes by it, verified, the oldest first: `{kind, scope, by, at, reason, line}`."""
    return [*_of_everything(worker), *map(_signed, freezes(worker))]


def frozen_over(worker: Worker, asked: Asked) -> list[dict[str, Any]]:
    """Those of them that cover what is asked about."""
    agent, owner = ({"name": who.name, "entity": who.entity} for who in (asked.agent, asked.owner))
    content = {"agent": agent, "owner": owner, "access": asked.access}
    return [*_of_everything(worker), *(_signed(word) for word in freezes(worker) if word.covers(content))]


def _of_everything(worker: Worker) -> list[dict[str, Any]]:
    """What holds everything and no operator signed: a ledger that is being rebuilt, a tripwire."""
    since, tripped = worker.ledger.recovering(), worker.ledger.freeze()
    return [*([_rebuilt(since)] if since else []), *([_tripped(tripped)] if tripped else [])]


def frozen_by_operators(person: Person, *, tripped: Freeze | None) -> list[dict[str, Any]]:
    """The same as far as somebody without the worker's identity can see it: `by` is an entity, or `you`, and whether
    its author still is an operator the worker decides.
    """
    documents, own, now = person.documents, person.entity, person.clock.agreed()
    written = [word for entity in _authors(documents) for word in _words(documents, entity, own)]
    signed = in_force(dated for word in written if (dated := as_dated(word, now)))
    return [*([_tripped(tripped)] if tripped else []), *map(_signed, signed)]


def _authors(documents: Documents) -> list[str]:
    return sorted(name.rstrip("/") for name in documents.names("freezes/"))


def _words(documents: Documents, entity: str, own: str) -> Iterator[Word]:
    for key in documents.names(f"freezes/{entity}/"):
        # what is no proper document counts for nothing
        with suppress(SecurityFinding):
            stored = documents.read(f"freezes/{entity}/{key}")
            if stored is None:
                continue
            paper = accepted(FreezePaper, payload_of(stored.document), task=key, entity=entity)
            scope = Scope(paper.agent, paper.template, paper.owner)
            if scope.key == key:
                yield Word(scope, paper.freezes, "you" if entity == own else entity, paper.reason, stored.written_at)


def _signed(word: Word) -> dict[str, Any]:
    return {
        "kind": "operator",
        "scope": word.scope.as_json(),
        "by": word.by,
        "at": word.at.isoformat(),
        "reason": word.reason,
        "line": None,
    }


def _rebuilt(since: datetime) -> dict[str, Any]:
    return {
        "kind": "recovery",
        "scope": {},
        "by": None,
        "at": since.isoformat(),
        "reason": f"{being_rebuilt(since)}; nothing is granted until `jitvault ledger recover` has finished",
        "line": None,
    }


def _tripped(freeze: Freeze) -> dict[str, Any]:
    return {
        "kind": "tripwire",
        "scope": {},
        "by": None,
        "at": freeze.at.isoformat(),
        "reason": freeze.reason,
        "line": freeze.line,
    }
