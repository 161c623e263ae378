"""Rows of the audit stream as values: positions, gaps, freezes, and lines that are counted and not kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from jitvault.audit.observation import Place
from jitvault.audit.source import Position

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
