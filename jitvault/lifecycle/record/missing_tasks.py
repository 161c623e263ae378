"""Find the tasks that Vault knows of and the ledger lacks.

Their rows were deleted, or the ledger was lost or restored. What is published of a task names its installation: what
another one left in Vault is in no ledger of this one. A refused request never became a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeGuard

from jitvault.documents.paths import PUBLISHED, published_path
from jitvault.documents.published_task import IllegibleDocument, PublishedDocument, PublishedTask, read_published
from jitvault.errors import LostTask
from jitvault.model.states import OVER
from jitvault.vault.interface import Documents

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


def missing_tasks(
    documents: Documents, ledger: Ledger, installation: str | None, *, since: datetime | None = None
) -> Iterator[PublishedTask | IllegibleDocument]:
    """Yield what is published of each task that the ledger lacks.

    With `since`, only what was published from then on. Raises VaultRefused, VaultUnavailable.
    """
    # listed before the ledger is read, so an honest ledger has at least as much
    for said in _published(documents, installation, ledger.unknown_tasks(documents.names(PUBLISHED))):
        if since is None or said.written_at >= since:
            yield said


def open_tasks(documents: Documents, installation: str | None) -> int:
    """Return how many open tasks a ledger of `installation` has to have.

    Raises VaultRefused, VaultUnavailable.
    """
    return sum(map(may_be_open, _published(documents, installation, documents.names(PUBLISHED))))


def _published(
    documents: Documents, installation: str | None, names: Iterable[str]
) -> Iterator[PublishedTask | IllegibleDocument]:
    for name in names:
        stored = documents.read(published_path(name))
        said = read_published(name, stored.document, stored.written_at) if stored is not None else None
        if said is not None and is_own(said, installation):
            yield said


def is_own(said: PublishedDocument, installation: str | None) -> TypeGuard[PublishedTask | IllegibleDocument]:
    """Return whether a ledger of `installation` has to have the task."""
    return isinstance(said, PublishedTask | IllegibleDocument) and said.installation == installation


def lost(said: PublishedTask | IllegibleDocument) -> LostTask:
    """Return the error for a task that the ledger lacks."""
    return LostTask(f"task {said.task_id} is known in Vault (it was {said.state}) and missing in the ledger")


def may_be_open(said: PublishedTask | IllegibleDocument) -> bool:
    """Return whether a published task may hold access, or be granted.

    What no worker wrote says nothing, so such a task may.
    """
    return said.state not in OVER
