"""The interface of audit sources: streams from which audit lines are read."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jitvault.audit.changes import Change
from jitvault.audit.observation import Observation


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read.

    `epoch` counts the segments: a gap starts a new one. `offset` counts the bytes of the segment, also if the
    segment continues in another file. `identity` is how the source itself finds the place again (at most 500
    characters); no other code reads it.
    """

    identity: str
    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Observations of lines of one segment, and the position after them.

    `gaps` says what is missing between the previous batch and this one; `position.epoch` then names another
    segment. `changes` says which facts the lines may change; they are for this process alone.
    """

    observations: tuple[Observation, ...]
    position: Position
    gaps: tuple[str, ...]
    lines: int
    changes: tuple[Change, ...] = ()


class Source(Protocol):
    """One stream of audit lines with one writer.

    The stream is a file with its rotated predecessors, or a connection. `name` is the stream's name in the ledger,
    at most 255 characters.
    """

    name: str
    passing: bool
    """Whether the stream is one of many that come and go. It is recorded only once its lines count."""

    def start(self) -> Position:
        """Return the position to begin at when nothing was read before."""
        ...

    def beginning(self) -> Position:
        """Return the position before everything that is there.

        Rotated files are included.
        """
        ...

    def end(self) -> Position:
        """Return the position after the last whole line that is there now."""
        ...

    def continues(self, position: Position) -> bool:
        """Return whether the stream still holds what was read, or continues it.

        What was read is everything up to `position`.
        """
        ...

    def wrong_form(self) -> str:
        """Return why the lines in their present form cannot prove anything, or ""."""
        ...

    def has_more(self, position: Position) -> bool:
        """Return whether anything happened since `position` was the end.

        Raises AuditUntrusted.
        """
        ...

    def stamp(self) -> Hashable:
        """Return what is another value once anything was written.

        It costs no more than a look at the stream from outside, and is no proof: what changes the stream and leaves its
        stamp as it was is found by `has_more`.
        """
        ...

    def read(self, position: Position, *, only: str = "") -> Iterator[Batch]:
        """Yield what was written since `position`, in batches.

        The last batch ends at the present end. With `only`, lines that do not contain this text are skipped
        undecoded, whatever they are. Raises AuditUntrusted.
        """
        ...


class Sources(Protocol):
    """All streams that exist now: connections come and go."""

    def present(self) -> Sequence[Source]: ...
