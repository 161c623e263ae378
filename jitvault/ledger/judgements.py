"""What the ledger knows of the documents that people write: whose they are, and which of them were judged already."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from jitvault.documents.paths import Parts


class Judgement(StrEnum):
    """Why a request began no task.

    invalid: it is not properly signed, or no spec. refused: its author was told so. lost: Vault says that it began a
    task, which the ledger does not know. too_old: nobody read it for so long that it begins nothing any more.
    """

    INVALID = "invalid"
    REFUSED = "refused"
    LOST = "lost"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class Judged:
    """One version of a request that was read and began no task.

    `version` and `written_at` are Vault's, and tell it from what is written at the same path later. `line_at` is
    Vault's time of the newest line about it that had been read before the request was.
    """

    path: str
    version: int
    written_at: datetime
    judgement: Judgement
    line_at: datetime | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Of one author the tasks whose request has to be read.

    `new` ones, and `doubtful` ones, which may have been written again while the audit stream was not read.
    """

    new: Sequence[str]
    doubtful: Sequence[str]


@dataclass(frozen=True, slots=True)
class OverQuota:
    """An author who wrote more than is taken in: how much waits, and since when that is so."""

    author: str
    waiting: int
    since: datetime
    at: datetime


class Intake(Protocol):
    """Raises LedgerUnavailable as the rest of the ledger does."""

    def parts(self, task_ids: Collection[str]) -> Mapping[str, Parts]:
        """Those of these tasks that are known."""
        ...

    def newest_line(self, path: str) -> datetime | None:
        """Vault's time of the newest line that shows that a document was written at this path."""
        ...

    def judge(self, judged: Sequence[Judged], at: datetime) -> None:
        """Remember what became of requests; one that was judged before is judged anew."""
        ...

    def judged(self, path: str) -> Judged | None: ...

    def unsettled(self, author: str, task_ids: Sequence[str]) -> Unsettled:
        """Those of these tasks, which an author asks for, that are neither known nor judged as the request is now."""
        ...

    def judged_authors(self) -> list[str]:
        """The authors of what was judged."""
        ...

    def forget_judged(self, author: str, besides: Collection[str]) -> int:
        """Forget what was judged of an author's requests that are not there any more; gives how many those were."""
        ...

    def open_requests(self, requester: str) -> int:
        """How many tasks of a requester may still be granted."""
        ...

    def keep_over_quota(self, author: str, waiting: int, at: datetime) -> None:
        """Remember that so many documents of an author wait since they are too many; 0: none any more."""
        ...

    def over_quota(self) -> list[OverQuota]:
        """Those whose documents wait."""
        ...
