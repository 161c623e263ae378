"""Rows about people's requests: results of reading them, and quotas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Judgement(StrEnum):
    """Why a request began no task.

    invalid: it is not properly signed, or no spec. refused: its author was told so. lost: Vault's documents say that it
    began a task, which the ledger does not know. too_old: it was not read for so long that it begins nothing any more.
    """

    INVALID = "invalid"
    REFUSED = "refused"
    LOST = "lost"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class Judged:
    """One version of a request that was read and began no task.

    `version` and `written_at` are Vault's, and distinguish this version from later ones at the path. `line_at` is
    Vault's time of the newest line about the request that had been ingested before the request was read.
    """

    path: str
    version: int
    written_at: datetime
    judgement: Judgement
    line_at: datetime | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The tasks of one author whose request has to be read.

    Requests for `new` tasks were never read. Those for `doubtful` ones may have been written again while the audit
    stream was not read.
    """

    new: Sequence[str]
    doubtful: Sequence[str]


@dataclass(frozen=True, slots=True)
class OverQuota:
    """An author who wrote more documents than the quota allows.

    `waiting` is how many of them wait, `since` since when any do, `at` when a worker last reported it.
    """

    author: str
    waiting: int
    since: datetime
    at: datetime
