"""The ledger's index of the documents by which access ends: which of them lie in Vault, and what came of each.

The lines of the audit stream keep it up to date. So a look at a task reads what was written since the last one, however
many people there are and however much they wrote before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

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
