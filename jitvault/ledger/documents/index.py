"""Index of the documents by which access ends, and what came of each.

The index says which of these documents lie in Vault. The lines of the audit stream keep it up to date, so that a look
at a task reads only what was written since the last look, however many people there are and however much they wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from jitvault.audit.observation import Place
from jitvault.documents.paths import Kept
from jitvault.formats.rfc3339 import rfc3339


class DocumentStatus(StrEnum):
    """The result of reading a document.

    counts: the document ends a task, or it is a freeze that no one lifted. lifts: it lifts freezes. waits: it would
    lift freezes, and its author is no operator now. lifted: it is a freeze that was lifted. void: it has no effect.
    """

    COUNTS = "counts"
    LIFTS = "lifts"
    WAITS = "waits"
    LIFTED = "lifted"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document of an author about a task or a scope.

    `news` counts how often the document was seen to be written. `read` is the value of `news` when it was last read, 0
    for a document that was never read. `body` is the part of its content that is kept.
    """

    kind: Kept
    author: str
    about: str
    news: int
    read: int = 0
    standing: DocumentStatus | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_unread(self) -> bool:
        """Whether the document was written since it was last read."""
        return self.news > self.read


APPEARS_WITHIN = timedelta(seconds=60)
"""How long to look again for a document that an audit line named and that Vault does not find.

A node that was the active one and does not know yet that another node took over answers that a newer document does not
exist (docs/vault-facts.md, "Several nodes").
"""
_MISSED = "missed_at"


def retry_missing(document: Indexed, now: datetime) -> Indexed | None:
    """Return the document as one to look for again.

    None where it has been missing for longer than `APPEARS_WITHIN`: it is gone.
    """
    missing_since = datetime.fromisoformat(document.body[_MISSED]) if _MISSED in document.body else now
    if abs(now - missing_since) > APPEARS_WITHIN:
        return None
    return replace(document, body={**document.body, _MISSED: rfc3339(missing_since)})


@dataclass(frozen=True, slots=True)
class Listing:
    """When all documents of a kind were listed last.

    `gaps` is how many gaps the audit stream had then, `gaps_now` how many it has now.
    """

    at: datetime | None
    gaps: int
    gaps_now: int

    @property
    def is_whole(self) -> bool:
        """Whether the lines since the listing show every document written since."""
        return self.at is not None and self.gaps == self.gaps_now


@dataclass(frozen=True, slots=True)
class WrittenDocument:
    """A document that a person wrote, as the audit stream shows it.

    `path` is below the mount, `at` is Vault's time of the write, `place` is where its line stands. `claim` is the epoch
    of the task's newest claim when the line was ingested, 0 for a task that was unknown then: a worker that takes a
    later claim reads the document.
    """

    path: str
    at: datetime
    place: Place
    claim: int | None = None
