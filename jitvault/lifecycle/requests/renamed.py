"""The tasks of an agent or owner whose entity was renamed: a task that is held has the name of when it was decided."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.errors import VaultRejected
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope


def entity_named(worker: WorkerContext, name: str) -> str:
    """Return the id of the entity that has a name now; empty where nobody has it."""
    # a scope holds by the name alone where Vault does not take it for one
    with suppress(VaultRejected):
        entity = worker.identity.by_name(name) if name else None
        return entity.id if entity else ""
    return ""


def scopes_of(worker: WorkerContext, scope: Scope) -> tuple[Scope, ...]:
    """Return the scope, and the same by the id of who has its name now."""
    entity = entity_named(worker, scope.name)
    return (scope, scope.of(entity)) if entity else (scope,)


def covers_any(scopes: Sequence[Scope], body: bytes) -> bool:
    """Return whether one of the scopes has the task with this revision."""
    content = Revision.of(body).content
    return any(scope.covers(content) for scope in scopes)
