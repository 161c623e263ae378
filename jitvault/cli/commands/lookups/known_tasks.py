"""The tasks that a caller can read: in the ledger, or published in Vault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from jitvault.documents.paths import PUBLISHED
from jitvault.errors import CorruptRecord
from jitvault.model.revision import Revision

if TYPE_CHECKING:
    from jitvault.documents.published_task import PublishedTask
    from jitvault.ledger.ledger import Ledger
    from jitvault.model.revision_content import RevisionContent
    from jitvault.model.scope import Scope
    from jitvault.wiring import Wiring


def published_in(wiring: Wiring, scope: Scope) -> dict[str, PublishedTask | None]:
    """Return what is published of each task of a scope.

    None for a document that cannot be read, since it may belong to a task of the scope.
    """
    from jitvault.cli import session
    from jitvault.documents.published_task import IllegibleDocument, PublishedTask

    found: dict[str, PublishedTask | None] = {}
    for name in wiring.documents.names(PUBLISHED):
        document = session.published(wiring, name)
        if isinstance(document, PublishedTask) and scope.covers(document.full_revision.content):
            found[name] = document
        elif isinstance(document, IllegibleDocument):
            found[name] = None
    return found


def contents_in(ledger: Ledger) -> Iterator[RevisionContent]:
    """Yield the content of each task's revision that can be read."""
    for body in ledger.current_bodies([row.task_id for row in ledger.tasks()]).values():
        with suppress(CorruptRecord, KeyError):
            yield Revision.of(body).content


def contents_published(wiring: Wiring) -> Iterator[RevisionContent]:
    """Yield the content of each published task that can be read."""
    from jitvault.model.scope import Scope

    for shown in published_in(wiring, Scope()).values():
        if shown is not None:
            yield shown.full_revision.content
