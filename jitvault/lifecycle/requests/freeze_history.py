"""Read every freeze that Vault still has a version of.

Those that were lifted or signed anew are among them.

A document `freezes/<entity>/<scope>` has its author's newest statement alone. Vault keeps ten versions of each by
default, so an earlier freeze of the same scope, and one that was lifted, can be read as long as it is among them.
Signatures are not verified here: what is in force is for `freeze_documents` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.documents.paths import FREEZES, freeze_path
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.requests.freeze_documents import unverified_statement
from jitvault.model.scope import FreezeStatement, lifts
from jitvault.vault.interface import Documents

MOST_VERSIONS = 10
"""How many versions of one document are read."""


@dataclass(frozen=True, slots=True)
class PastFreeze:
    """A freeze by one author, signed once or several times, and its lift.

    `first` and `last` are the same statement where it was signed once. `lift` is None while it holds.
    """

    first: FreezeStatement
    last: FreezeStatement
    lift: FreezeStatement | None


def freeze_history(documents: Documents) -> list[PastFreeze]:
    """Return the freezes that Vault still has, the oldest first.

    `by` of a statement is an entity id. Raises VaultRefused for who may not read freezes.
    """
    written = [list(_versions(documents, *place)) for place in _places(documents)]
    every_lift = sorted((one for each in written for one in each if not one.freezes), key=lambda one: one.at)
    found = [past for statements in written for past in _runs(statements, every_lift)]
    return sorted(found, key=lambda past: past.first.at)


def first_at(freeze: Mapping[str, Any], history: Sequence[PastFreeze]) -> str:
    """Return since when a freeze holds.

    Its author may have signed it anew, with another reason. `freeze` is as `signed_freeze` returns it.
    """
    known = (past for past in history if past.last.scope.as_json() == freeze["scope"])
    return next((rfc3339(past.first.at) for past in known if rfc3339(past.last.at) == freeze["at"]), freeze["at"])


def _places(documents: Documents) -> Iterator[tuple[str, str]]:
    for name in documents.names(FREEZES):
        entity = name.rstrip("/")
        for key in documents.names(f"{FREEZES}{entity}/"):
            yield entity, key


def _versions(documents: Documents, entity: str, key: str) -> Iterator[FreezeStatement]:
    """Yield the statements of one document, the oldest first."""
    path = freeze_path(entity, key)
    newest = documents.read(path)
    if newest is None:
        return
    for version in range(max(1, newest.version - MOST_VERSIONS + 1), newest.version + 1):
        stored = newest if version == newest.version else documents.earlier(path, version)
        if stored is not None and (statement := unverified_statement(stored, entity, key)):
            yield statement


def _runs(statements: Sequence[FreezeStatement], every_lift: Sequence[FreezeStatement]) -> Iterator[PastFreeze]:
    """Yield the freezes of one document.

    Those that were signed anew before a lift are one.
    """
    run: PastFreeze | None = None
    for one in (statement for statement in statements if statement.freezes):
        if run is not None and (run.lift is None or run.lift.at > one.at):
            run = PastFreeze(run.first, one, _lift_of(one, every_lift))
            continue
        if run is not None:
            yield run
        run = PastFreeze(one, one, _lift_of(one, every_lift))
    if run is not None:
        yield run


def _lift_of(freeze: FreezeStatement, every_lift: Sequence[FreezeStatement]) -> FreezeStatement | None:
    return next((lift for lift in every_lift if lifts(lift, freeze)), None)
