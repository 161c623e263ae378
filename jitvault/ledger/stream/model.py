"""Rows of the audit stream: positions, gaps, freezes, and line counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from jitvault.audit.observation import Observation, Place
from jitvault.audit.source import Position
from jitvault.ledger.model import GapKind

NO_PLACES: Mapping[str, Place] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SourceReading:
    """How far a source was read, and whether its lines are trusted.

    `vouched` is set once a canary of this worker was found in the source.
    """

    source: str
    position: Position
    vouched: bool
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Why segment `epoch` of a source does not continue the segment before it; `what` says it in words."""

    source: str
    epoch: int
    kind: GapKind
    what: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CountedLines:
    """How many lines of one kind were counted instead of stored.

    `last_at` is Vault's time of the last of them, `last_remote` the client's address in it.
    """

    kind: str
    lines: int
    last_at: datetime
    last_remote: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """A freeze in force: nothing is granted and every held task ends.

    It lasts until an operator lifts it.
    """

    reason: str
    line: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LiftedFreeze(Freeze):
    """A freeze by a tripwire that was lifted, when and why."""

    lifted_at: datetime
    lifted_why: str


@dataclass(frozen=True, slots=True)
class CreationLine:
    """The response line of an issue, and Vault's time of its request line."""

    line: Observation
    since: datetime
