"""The freezes in force, as they are shown to people.

They are operators' signed freezes, a tripwire's, and a recovery's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jitvault.context import Person, WorkerContext
from jitvault.documents.paths import FREEZES, freeze_path
from jitvault.errors import Denied, Frozen
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import quoted
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.stream.model import Freeze
from jitvault.lifecycle.requests.freeze_documents import (
    freeze_covering,
    freezes,
    freezes_last_read,
    unverified_statement,
)
from jitvault.model.decision_input import DecisionInput
from jitvault.model.ledger_rebuild import HINT, why_nothing_is_granted
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement, Scope, as_dated, freezes_in_force
from jitvault.vault.interface import Documents

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


def all_freezes(worker: WorkerContext) -> list[dict[str, Any]]:
    """Return every freeze that the worker applies, the oldest first.

    Each is verified, and has the shape `{kind, scope, by, at, reason, line}`.
    """
    return [*freezes_of_everything(worker.ledger), *map(signed_freeze, freezes(worker))]


def freezes_last_seen(ledger: Ledger) -> list[dict[str, Any]]:
    """Return every freeze as the ledger has it; Vault is not asked."""
    return [*freezes_of_everything(ledger), *map(signed_freeze, freezes_last_read(ledger))]


def freezes_covering_request(worker: WorkerContext, asked: DecisionInput) -> list[dict[str, Any]]:
    """Return the freezes that cover the access which is asked about."""
    covering = [signed_freeze(statement) for statement in freezes(worker) if statement.covers(asked)]
    return [*freezes_of_everything(worker.ledger), *covering]


def freezes_covering_seen(person: Person, asked: DecisionInput) -> list[dict[str, Any]]:
    """Return operators' freezes that cover the access.

    They are those that a person sees. Raises VaultRefused for who may not read freezes.
    """
    return [one for one in freezes_seen_by_person(person) if Scope(**one["scope"]).covers(asked)]


def tripwire_freeze(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the freeze of everything by a tripwire, if there is one."""
    tripped = ledger.freeze()
    return [_freeze_as_json("tripwire", tripped.at, tripped.reason, tripped.line)] if tripped else []


def freezes_of_everything(ledger: Ledger) -> list[dict[str, Any]]:
    """Return what freezes everything without an operator.

    That is a recovery or a tripwire.
    """
    since = ledger.recovering()
    why = "nothing is granted before `jitvault ledger recover` has rebuilt the ledger"
    return [*([_freeze_as_json("recovery", since, why)] if since else []), *tripwire_freeze(ledger)]


def freezes_seen_by_person(person: Person) -> list[dict[str, Any]]:
    """Return operators' freezes as a person sees them.

    That is without the worker's identity. `by` is an entity id, or `you`. Whether its author still is an operator is
    for the worker to decide.
    """
    documents, own, now = person.documents, person.entity, person.clock.agreed()
    written = [statement for entity in _authors(documents) for statement in _statements(documents, entity, own)]
    return list(map(signed_freeze, freezes_in_force(dated for one in written if (dated := as_dated(one, now)))))


def _authors(documents: Documents) -> list[str]:
    return sorted(name.rstrip("/") for name in documents.names(FREEZES))


def _statements(documents: Documents, entity: str, own: str) -> Iterator[FreezeStatement]:
    for key in documents.names(f"{FREEZES}{entity}/"):
        stored = documents.read(freeze_path(entity, key))
        if stored is not None and (statement := unverified_statement(stored, entity, key)):
            yield replace(statement, by="you") if entity == own else statement


def signed_freeze(statement: FreezeStatement) -> dict[str, Any]:
    """Return an operator's freeze as `{kind, scope, by, at, reason, line}`."""
    return _freeze_as_json("operator", statement.at, statement.reason) | {
        "scope": statement.scope.as_json(),
        "by": statement.by,
    }


def _freeze_as_json(kind: str, at: datetime, reason: str, line: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "scope": {}, "by": None, "at": rfc3339(at), "reason": reason, "line": line}


def recovery_as_freeze(ledger: Ledger) -> Freeze | None:
    """Return an open recovery as a freeze: it blocks grants, but ends no task."""
    since = ledger.recovering()
    return Freeze(why_nothing_is_granted(since), "", since) if since else None


def freeze_of(worker: WorkerContext, record: TaskRecord) -> FreezeStatement | None:
    """Return the oldest operator's freeze in force that covers the task."""
    return freeze_covering(worker, Revision.of(record.revision.body).content)


def check_not_frozen(worker: WorkerContext, record: TaskRecord) -> None:
    """Raise Frozen or Denied where the task is frozen.

    Frozen is raised while everything is frozen, and Denied while an operator's freeze covers the task.
    """
    since = worker.ledger.recovering()
    if since is not None:
        raise Frozen(why_nothing_is_granted(since), hint=HINT)
    freeze = worker.ledger.freeze()
    if freeze is not None:
        raise Frozen(f"everything is frozen since {freeze.at:%Y-%m-%d %H:%M:%S} UTC: {freeze.reason}")
    statement = freeze_of(worker, record)
    if statement is not None:
        raise Denied(
            f"{statement.by} froze {statement.scope} at {statement.at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{quoted(statement.reason, 500)}",
            hint="Nothing of it is granted until an operator runs `jitvault unfreeze` for it.",
        )
