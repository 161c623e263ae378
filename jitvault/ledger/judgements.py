"""What the ledger knows of the documents that people write: whose they are, and which of them were judged already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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
