"""Where audit lines come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jitvault.audit.observation import Observation


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read. `epoch` counts the contiguous stretches: a gap starts a new one.

    `offset` counts the bytes of the stretch, also where it goes on in another file. `identity` is the source's own
    way to find the place again (at most 500 characters); nobody else looks into it.
    """

    identity: str
    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The observations of some lines of one stretch, and the position after them.

    `gaps` says what is missing between the batch before and this one; `position.epoch` is another one then.
    """

    observations: tuple[Observation, ...]
    position: Position
    gaps: tuple[str, ...]
    lines: int


class Source(Protocol):
    """One stream of audit lines with one writer: a file with its rotated predecessors, or a connection.

    `name` is what the ledger knows it by, at most 255 characters.
    """

    name: str
    passing: bool
    """Whether it is one of many that come and go. It is remembered only once its lines count."""

    def vouch(self) -> None:
        """Tell whoever receives this source that a canary of ours was found in it."""
        ...

    def start(self) -> Position:
        """Where to begin when nothing was read before."""
        ...

    def beginning(self) -> Position:
        """Before everything that is there, in files that were rotated too."""
        ...

    def end(self) -> Position:
        """The end of the last whole line that is there now."""
        ...

    def continues(self, position: Position) -> bool:
        """Whether what is there now holds what was read up to `position`, or the continuation of it."""
        ...

    def wrong_form(self) -> str:
        """Why nothing can be proven by its lines as its device writes them now; empty where nothing is wrong."""
        ...

    def has_more(self, position: Position) -> bool:
        """Whether anything happened to the source since `position` was its end. Raises AuditUntrusted."""
        ...

    def read(self, position: Position, *, only: str = "") -> Iterator[Batch]:
        """What was written since `position`, in batches, up to the present end. Raises AuditUntrusted.

        Where `only` is given, lines that do not contain this text are passed over undecoded, whatever they are.
        """
        ...


class Sources(Protocol):
    """All streams that there are now: connections come and go."""

    def present(self) -> Sequence[Source]: ...
