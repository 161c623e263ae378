"""What `doctor` reads in the ledger.

That is its condition, its free space and the newest decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.formats.server_product import Product


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes on the ledger's disk, and in its write-ahead log."""

    free: int
    log: int


@dataclass(frozen=True, slots=True)
class Finding:
    task_id: str | None
    rule: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LedgerLogin:
    """What the login to a ledger on PostgreSQL may do there.

    `writes` says that a worker's rights are needed, else a reader's. `missing` names the needed rights that it lacks,
    `excess` the others that it has. `owns` says that it can switch off the triggers that keep rows from being changed.
    """

    name: str
    writes: bool
    owns: bool
    missing: tuple[str, ...]
    excess: tuple[str, ...]

    @property
    def mend(self) -> str:
        """How the login gets the rights that it needs, and no others.

        A worker also meets a refusal where it only reads, and the reader's grants would take its other rights.
        """
        if self.writes:
            return f"The owner of the tables runs what `jitvault ledger grants {self.name}` prints."
        return (
            f"The owner of the tables runs what `jitvault ledger grants {self.name}` prints if a worker logs in as it, "
            "else the same with `--reader`."
        )


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """The condition of the ledger.

    `looked_at` is how many tasks' event chains were read, and `broken` names those that are not whole. `overdue` are
    live tasks that a worker should have looked at by now, each with its `due_at`. `ending` are tasks with the time
    since when they are being ended, `stuck` pairs of a lease that could not be revoked and its task. `recovering` is
    the start of a recovery that has not finished.
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
    """The highest generation of rules that has worked on the ledger."""
    product: Product | None = None
    """The server that the ledger was last used with."""
    over_quota: Sequence[tuple[str, int, datetime]] = ()
    """Authors who write more than is accepted, how many of their documents wait, and since when."""
    place: str = ""
    """Where the ledger is, as messages name it."""
    login: LedgerLogin | None = None
    """The login to a ledger on PostgreSQL; None for a file."""


@dataclass(frozen=True, slots=True)
class LastDecision:
    """The newest decision in the ledger.

    `digest` is that of the policy set that made the decision.
    """

    digest: str
    task_id: str
    at: datetime
