"""Whether the audit stream has told of every document by which access ends, and what is listed where it has not.

After a gap, in a new or restored ledger, and while nobody knows whether the stream is ours, a document may lie in Vault
of which no line was read. Then all are listed, once for all tasks: that is kept in the ledger, with how many gaps the
stream had by then.
"""

from __future__ import annotations

from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.paths import Kept, indexed_path, path_of
from jitvault.model.states import OVER

BLIND_FOR = timedelta(seconds=5)
"""How long a list holds while the stream tells nothing."""
_FOLDERS = {Kept.END: "requests/", Kept.FREEZE: "freezes/"}


def is_told(worker: WorkerContext, kind: Kept) -> bool:
    """Whether the ledger's index has every document of a kind."""
    listing = worker.ledger.listing(kind)
    if not listing.is_whole or listing.at is None:
        return False
    return not worker.is_blind or abs(worker.now() - listing.at) < BLIND_FOR


def see_that_it_is_told(worker: WorkerContext, kind: Kept) -> None:
    """List all documents of a kind where the stream may not have told of one."""
    if not is_told(worker, kind):
        list_all(worker, kind, again=True)


def list_all(worker: WorkerContext, kind: Kept, *, again: bool) -> None:
    """Enter in the index what lies in Vault. `again`, and after a gap: what is known may have been written anew, and is
    read again.
    """
    begun, before = worker.now(), worker.ledger.listing(kind)
    again = again or not before.is_whole
    folder = _FOLDERS[kind]
    authors = sorted(name.rstrip("/") for name in worker.documents.names(folder))
    for author in authors:
        keep_names(worker, kind, author, worker.documents.names(f"{folder}{author}/"), again=again)
    forget_authors(worker, kind, authors)
    worker.ledger.keep_listing(kind, before.gaps_now, begun)


def keep_names(worker: WorkerContext, kind: Kept, author: str, names: list[str], *, again: bool) -> None:
    """Enter what is listed of one author.

    Of tasks that are over nothing is kept: most of what an author ever asked for is.
    """
    found = [name.rstrip("/") for name in names]
    found = [name for name in found if indexed_path(path_of(kind, author, name)) is not None]
    if kind is Kept.END:
        known = worker.ledger.parts(found)
        found = [name for name in found if name not in known or known[name].state not in OVER]
    worker.ledger.keep_listed(kind, author, found, again=again)


def forget_authors(worker: WorkerContext, kind: Kept, besides: list[str]) -> None:
    """Forget those of whom nothing is in Vault any more."""
    for author in set(worker.ledger.indexed_authors(kind)) - set(besides):
        worker.ledger.keep_listed(kind, author, (), again=False)
