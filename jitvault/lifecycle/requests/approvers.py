"""Read the registrations of approvers.

Only administrators can write them.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.documents.approvers import Registered, Registry, registered
from jitvault.documents.paths import APPROVERS
from jitvault.errors import SecurityFinding


def registry(worker: WorkerContext) -> Registry:
    """Return all registrations that are in Vault now.

    A document that is no valid registration is a finding, and counts as absent.
    """
    found: list[Registered] = []
    for entity in worker.documents.names(APPROVERS):
        stored = worker.documents.read(f"{APPROVERS}{entity}")
        if stored is None:
            continue
        try:
            found.append(registered(stored.document, entity=entity, since=stored.written_at))
        except SecurityFinding as error:
            worker.ledger.finding(None, "forged_document", str(error), worker.now())
    return Registry(tuple(found))
