"""The freezes in force, for people: what operators signed and nobody lifted, and what a tripwire froze."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jitvault.context import Person, WorkerContext
from jitvault.documents.dsse import payload_of
from jitvault.documents.signed import FreezeDocument, parse_signed
from jitvault.errors import Denied, Frozen, SecurityFinding
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.stream_model import Freeze
from jitvault.lifecycle.decision.questions import DecisionInput
from jitvault.lifecycle.requests.freeze_documents import freeze_covering, freezes
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement, Scope, as_dated, freezes_in_force
from jitvault.vault.interface import Documents

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


def frozen_by_all(worker: WorkerContext) -> list[dict[str, Any]]:
    """Every freeze as the worker goes by it, verified, the oldest first: `{kind, scope, by, at, reason, line}`."""
    return [*_of_everything(worker), *map(_signed, freezes(worker))]


def frozen_over(worker: WorkerContext, asked: DecisionInput) -> list[dict[str, Any]]:
    """Those of them that cover what is asked about."""
    agent, owner = ({"name": who.name, "entity": who.entity} for who in (asked.agent, asked.owner))
    content = {"agent": agent, "owner": owner, "access": asked.access}
    return [*_of_everything(worker), *(_signed(word) for word in freezes(worker) if word.covers(content))]


def _of_everything(worker: WorkerContext) -> list[dict[str, Any]]:
    """What holds everything and no operator signed: a ledger that is being rebuilt, a tripwire."""
    since, tripped = worker.ledger.recovering(), worker.ledger.freeze()
    return [*([_rebuilt(since)] if since else []), *([_tripped(tripped)] if tripped else [])]


def frozen_by_operators(person: Person, *, tripped: Freeze | None) -> list[dict[str, Any]]:
    """The same as far as somebody without the worker's identity can see it: `by` is an entity, or `you`, and whether
    its author still is an operator the worker decides.
    """
    documents, own, now = person.documents, person.entity, person.clock.agreed()
    written = [word for entity in _authors(documents) for word in _words(documents, entity, own)]
    signed = freezes_in_force(dated for word in written if (dated := as_dated(word, now)))
    return [*([_tripped(tripped)] if tripped else []), *map(_signed, signed)]


def _authors(documents: Documents) -> list[str]:
    return sorted(name.rstrip("/") for name in documents.names("freezes/"))


def _words(documents: Documents, entity: str, own: str) -> Iterator[FreezeStatement]:
    for key in documents.names(f"freezes/{entity}/"):
        # what is no proper document counts for nothing
        with suppress(SecurityFinding):
            stored = documents.read(f"freezes/{entity}/{key}")
            if stored is None:
                continue
            paper = parse_signed(FreezeDocument, payload_of(stored.document), task=key, entity=entity)
            scope = Scope(paper.agent, paper.template, paper.owner)
            if scope.key == key:
                yield FreezeStatement(
                    scope, paper.freezes, "you" if entity == own else entity, paper.reason, stored.written_at
                )


def _signed(word: FreezeStatement) -> dict[str, Any]:
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


GO_ON = "`jitvault ledger recover` goes on with it, also after it was interrupted."


def being_rebuilt(since: datetime) -> str:
    """An open recovery in words."""
    return f"the ledger is being rebuilt since {since:%Y-%m-%d %H:%M:%S} UTC"


def rebuilding(ledger: Ledger) -> Freeze | None:
    """An open recovery as what keeps tasks from being granted; it ends nothing."""
    since = ledger.recovering()
    return Freeze(f"{being_rebuilt(since)}; until then nothing is granted", "", since) if since else None


def freeze_of(worker: WorkerContext, file: TaskRecord) -> FreezeStatement | None:
    """The oldest freeze of an operator's that covers the task and was not lifted."""
    return freeze_covering(worker, Revision.of(file.revision.body).content)


def check_not_frozen(worker: WorkerContext, file: TaskRecord) -> None:
    """Raise Frozen while everything is frozen, and Denied while an operator's freeze covers the task."""
    since = worker.ledger.recovering()
    if since is not None:
        raise Frozen(f"nothing is granted: {being_rebuilt(since)}", hint=GO_ON)
    freeze = worker.ledger.freeze()
    if freeze is not None:
        raise Frozen(f"everything is frozen since {freeze.at:%Y-%m-%d %H:%M:%S} UTC: {freeze.reason}")
    word = freeze_of(worker, file)
    if word is not None:
        raise Denied(
            f"{word.by} froze {word.scope} at {word.at:%Y-%m-%d %H:%M:%S} UTC: {word.reason}",
            hint="Nothing of it is granted until an operator runs `jitvault unfreeze` for it.",
        )
