"""Where audit lines come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from jitvault.domain.observation import Observation


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read. `epoch` counts the contiguous stretches: a gap starts a new one."""

    identity: str
    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines' observations, the position after them, and what could not be read on the way."""

    observations: tuple[Observation, ...]
    position: Position
    gaps: tuple[str, ...]
    lines: int


class Source(Protocol):
    name: str

    def start(self) -> Position:
        """Where to begin when nothing was read before: the present end."""
        ...

    def has_more(self, position: Position) -> bool:
        """Whether anything happened to the source since `position` was its end. Raises AuditUntrusted."""
        ...

    def read(self, position: Position) -> Iterator[Batch]:
        """What was written since `position`, in batches, up to the present end. Raises AuditUntrusted."""
        ...
