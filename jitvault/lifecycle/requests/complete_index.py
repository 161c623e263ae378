"""Keep the ledger's index of documents that end access complete.

Vault is listed where the stream may miss a document. After a gap, in a new or restored ledger, and while the stream is
not known to be this Vault's, there may be a document in Vault of which no line was read. Then all documents are listed,
once for all tasks. The ledger keeps when that was done, and how many gaps the stream had by then.
"""

from __future__ import annotations

from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.paths import FREEZES, REQUESTS, Kept, indexed_path, path_of
from jitvault.model.states import OVER

BLIND_FOR = timedelta(seconds=5)
"""How long a listing is valid while the stream cannot be read."""
_FOLDERS = {Kept.END: REQUESTS, Kept.FREEZE: FREEZES}


def index_is_complete(worker: WorkerContext, kind: Kept) -> bool:
    """Return whether the ledger's index has every document of a kind."""
    listing = worker.ledger.listing(kind)
    if not listing.is_whole or listing.at is None:
        return False
    return not worker.is_blind or abs(worker.now() - listing.at) < BLIND_FOR


def complete_index(worker: WorkerContext, kind: Kept) -> None:
    """List all documents of a kind if the stream may have missed one."""
    if not index_is_complete(worker, kind):
        rebuild_index(worker, kind, again=True)


def rebuild_index(worker: WorkerContext, kind: Kept, *, again: bool) -> None:
    """List the documents in Vault, and enter them in the index.

    With `again`, and after a gap, known documents count as unread: they may have been written again.
    """
    begun = worker.now()
    before = worker.ledger.listing(kind)
    again = again or not before.is_whole
    folder = _FOLDERS[kind]
    authors = sorted(name.rstrip("/") for name in worker.documents.names(folder))
    for author in authors:
        index_names(worker, kind, author, worker.documents.names(f"{folder}{author}/"), again=again)
    forget_authors(worker, kind, authors)
    worker.ledger.keep_listing(kind, before.gaps_now, begun)


def index_names(worker: WorkerContext, kind: Kept, author: str, names: list[str], *, again: bool) -> None:
    """Enter the listed documents of one author in the index.

    Documents about tasks that are over are left out, which most of an author's documents are.
    """
    found = [name.rstrip("/") for name in names]
    found = [name for name in found if indexed_path(path_of(kind, author, name)) is not None]
    if kind is Kept.END:
        known = worker.ledger.parts(found)
        found = [name for name in found if name not in known or known[name].state not in OVER]
    worker.ledger.keep_listed(kind, author, found, again=again)


def forget_authors(worker: WorkerContext, kind: Kept, besides: list[str]) -> None:
    """Remove authors from the index who have no document in Vault any more."""
    for author in set(worker.ledger.indexed_authors(kind)) - set(besides):
        worker.ledger.keep_listed(kind, author, (), again=False)
