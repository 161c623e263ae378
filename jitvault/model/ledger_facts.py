"""What a check-up reads in the ledger: its condition, the room it has, and the newest decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.formats.product import Product


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes free on the ledger's disk, and in its write-ahead log."""

    free: int
    log: int


@dataclass(frozen=True, slots=True)
class Finding:
    task_id: str | None
    rule: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in the ledger. `broken` are the tasks whose chain is not whole, of the `looked_at` that were read.

    `overdue` are tasks and since when, `ending` those that are being ended and since when, `stuck` are leases that
    could not be revoked, with their tasks. `recovering`: since when a recovery has not finished.
    """

    schema: str
    installation: str | None
    tasks: int
    looked_at: int
    broken: Sequence[str]
    room: Room | None
    findings: Sequence[Finding]
    overdue: Sequence[tuple[str, datetime]]
    ending: Sequence[tuple[str, datetime]]
    stuck: Sequence[tuple[str, str]]
    recovering: datetime | None = None
    rules: int = 0
    """The highest generation of rules that worked on it."""
    product: Product | None = None
    """The server that it was last used with."""
    over_quota: Sequence[tuple[str, int, datetime]] = ()
    """Authors who write more than is taken in, how many of their documents wait, and since when."""


@dataclass(frozen=True, slots=True)
class LastDecision:
    """The newest decision in the ledger: by which set it was made, about which task, and when."""

    digest: str
    task_id: str
    at: datetime
