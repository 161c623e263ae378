"""Find the tasks of a scope also where an entity was renamed.

A task keeps the name from when it was decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.errors import VaultRejected
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope


def entity_named(worker: WorkerContext, name: str) -> str:
    """Return the id of the entity that has a name now.

    The result is empty where no entity has it.
    """
    # where Vault rejects the name as an entity's name, the scope holds by the name alone
    with suppress(VaultRejected):
        entity = worker.identity.by_name(name) if name else None
        return entity.id if entity else ""
    return ""


def scope_by_name_and_id(worker: WorkerContext, scope: Scope) -> tuple[Scope, ...]:
    """Return the scope by its name, and by its entity's id.

    The entity is the one that has the name.
    """
    entity = entity_named(worker, scope.name)
    return (scope, scope.of(entity)) if entity else (scope,)


def covers_any(scopes: Sequence[Scope], body: bytes) -> bool:
    """Return whether one of the scopes covers the task with this revision."""
    content = Revision.of(body).content
    return any(scope.covers(content) for scope in scopes)
