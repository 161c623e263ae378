"""The audit record in the ledger: what was read of each source, and what it means as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from jitvault.audit.observation import Place
from jitvault.audit.source import Batch, Position
from jitvault.audit.trail import Canary

NOWHERE: Mapping[str, Place] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a source was read, and whether its lines count: a canary of ours was found in it."""

    source: str
    position: Position
    vouched: bool
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Why the stretch `epoch` of a source is not the continuation of the one before."""

    source: str
    epoch: int
    what: str
    at: datetime


@dataclass(frozen=True, slots=True)
class NotKept:
    """How many lines of a kind were counted and not kept, and Vault's time and the client's address of the last."""

    kind: str
    lines: int
    last_at: datetime
    last_remote: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing is granted and everything that is held ends, until somebody lifts it."""

    reason: str
    line: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """A document that somebody wrote: its path below the mount, Vault's time of it, and where the line stands that
    shows it.

    `claim` is the newest claim of its task when the line was entered, 0 for a task that was not known: whoever takes a
    later one reads the document.
    """

    path: str
    at: datetime
    place: Place
    claim: int | None = None


class Record(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def readings(self) -> Mapping[str, Reading]:
        """By name, every source that was ever read."""
        ...

    def start_source(self, source: str, position: Position) -> None:
        """Begin a source; one that is known keeps its own position."""
        ...

    def claim_source(self, source: str) -> AbstractContextManager[int]:
        """The exclusive right to change what is said of a source, as `Ledger.claim` for a task."""
        ...

    def turn(self, source: str) -> AbstractContextManager[object]:
        """Wait for the other threads of this process that read the source."""
        ...

    def vouch(self, source: str, *, claim: int) -> None:
        """From now on the source's lines count."""
        ...

    def observe(
        self,
        source: str,
        batch: Batch,
        *,
        after: Position,
        at: datetime,
        expected: str | None = None,
        shared: Sequence[str] = (),
    ) -> Canary | None:
        """Write a batch, what it means for tasks and for all of them, and the position after it, at once.

        Raises WrongState where the source was not read up to `after`, exactly: somebody else has read on.

        Gives, and keeps, the canary whose HMAC is `expected`, when its line is in the batch. `shared` are networks
        whose addresses the worker has in common with agents (`jitvault.audit.tripwires.rules.of_fleet`).
        """
        ...

    def keep_canary(self, source: str, expected: str) -> Canary | None:
        """The canary `expected`, kept, if another process has read its line."""
        ...

    def last_canaries(self) -> Mapping[str, datetime]:
        """Vault's time of the newest canary of each source."""
        ...

    def not_kept(self) -> Sequence[NotKept]:
        """How many lines were counted and not kept, since they belong to no task or repeat themselves; by kind."""
        ...

    def gaps(self) -> Sequence[Gap]:
        """All gaps, the newest first."""
        ...

    def unseen_operations(self, before: datetime) -> list[str]:
        """Own operations that Vault answered before `before`, and whose line has not been read, with no gap since."""
        ...

    def session(self, accessor_hmac: str, at: datetime) -> None:
        """Remember the accessor HMAC of this worker's token: an operation id only counts with one of them."""
        ...

    def is_own(self, canary: str) -> bool:
        """Whether the canary's line names a session that is remembered; `canary` is its HMAC."""
        ...

    def salt(self, mark: str, at: datetime) -> bool:
        """Remember the HMAC of a constant; True if the device had another salt before: it was made anew."""
        ...

    def break_stretches(self, what: str, at: datetime, *, only: Collection[str] | None = None) -> int:
        """Begin a new stretch in every source, or in `only` those: what comes is not the continuation of what was read.

        Gives how many sources there are.
        """
        ...

    def written(self, *, since: datetime, after: Mapping[str, Place] = NOWHERE) -> Sequence[Written]:
        """People's documents that the stream showed as written at `since` or later, in the order of Vault's time.

        `after` leaves out, by source, what stands there or before: each is read in the order of its places.
        """
        ...

    def configured(self, mount: str, since: datetime) -> datetime | None:
        """Vault's time of the newest write to the configuration of an engine that the stream showed after `since`."""
        ...

    def alarm(self, op_id: str, at: datetime) -> None:
        """Freeze everything where a token was made under a create that Vault refused, or that was given up."""
        ...

    def freeze(self) -> Freeze | None:
        """The oldest freeze that was not lifted."""
        ...

    def lift_freezes(self, why: str, at: datetime) -> int:
        """Lift all freezes; gives how many there were."""
        ...
