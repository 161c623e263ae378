"""The ledger's index of the documents by which access ends: which of them lie in Vault, and what came of each.

The lines of the audit stream keep it up to date. So a look at a task reads what was written since the last one, however
many people there are and however much they wrote before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from jitvault.documents.paths import Kept


class Standing(StrEnum):
    """What came of a document when it was read.

    counts: it ends a task, or it is a freeze that nobody lifted. lifts: it lifts freezes. waits: it would lift some,
    and its author is no operator now. lifted: it is a freeze that was lifted. void: it counts for nothing.
    """

    COUNTS = "counts"
    LIFTS = "lifts"
    WAITS = "waits"
    LIFTED = "lifted"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document of an author about a task or a scope.

    `news` counts how often it was seen to be written, `read` is what `news` was when it was read last: 0 where nobody
    has read it yet. `body` is what is kept of what it says.
    """

    kind: Kept
    author: str
    about: str
    news: int
    read: int = 0
    standing: Standing | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_unread(self) -> bool:
        return self.news > self.read


MAY_COME = timedelta(seconds=60)
"""How long a document that a line told of, and that is not there, is looked for again.

A node that was the active one, and does not know yet that another is, says that what was written since is not there
(docs/vault-facts.md, "Several nodes").
"""
_MISSED = "missed_at"


def looked_for(one: Indexed, now: datetime) -> Indexed | None:
    """The document as one to look for again; None where it was missing for long enough to be gone."""
    since = datetime.fromisoformat(one.body[_MISSED]) if _MISSED in one.body else now
    if abs(now - since) > MAY_COME:
        return None
    return replace(one, body={**one.body, _MISSED: since.isoformat()})


@dataclass(frozen=True, slots=True)
class Listing:
    """When all documents of a kind were listed last, and how many gaps the audit stream had then; `gaps_now` has it."""

    at: datetime | None
    gaps: int
    gaps_now: int

    @property
    def is_whole(self) -> bool:
        """Whether the lines since then tell of every document that was written since."""
        return self.at is not None and self.gaps == self.gaps_now


class DocumentIndex(Protocol):
    """Raises LedgerUnavailable as the rest of the ledger does."""

    def indexed(self, kind: Kept, about: str | None, standings: Collection[Standing]) -> list[Indexed]:
        """What nobody has read as it is now, and what has one of these standings; of all scopes or tasks for None."""
        ...

    def unread_of_open(self, kind: Kept) -> list[tuple[str, str]]:
        """The author and the task of each that nobody has read as it is now, of tasks that are not over."""
        ...

    def note_written(self, kind: Kept, author: str, about: str) -> None:
        """Enter a document whose line may not be there yet."""
        ...

    def keep_read(self, documents: Sequence[Indexed]) -> None:
        """Keep what came of documents. One that was read later, or is gone from the index, stays as it is."""
        ...

    def forget(self, document: Indexed) -> None:
        """Take a document out that is not in Vault any more."""
        ...

    def keep_listed(self, kind: Kept, author: str, names: Sequence[str], *, again: bool) -> list[str]:
        """Enter all that lies there of an author, and forget what does not, but for freezes that were in force; gives
        what was not known before.

        `again`: those that are known may have been written again, and have to be read.
        """
        ...

    def indexed_authors(self, kind: Kept) -> list[str]:
        """Those of whom something is in the index."""
        ...

    def listing(self, kind: Kept) -> Listing: ...

    def keep_listing(self, kind: Kept, gaps: int, at: datetime) -> None:
        """Remember that everything was listed, which began at `at` when the stream had so many gaps."""
        ...
