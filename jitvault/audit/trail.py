"""What a proof rests on: a task's audit lines, with canaries between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.audit_form import ELIDED
from jitvault.audit.observation import Observation, Place


@dataclass(frozen=True, slots=True)
class Canary:
    """A line of ours that matched its own HMAC: its place and Vault's time."""

    place: Place
    at: datetime


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The audit stream as it was read, in its own order, with its canaries."""

    observations: Sequence[Observation]
    canaries: Sequence[Canary]
    worker_accessors: frozenset[str]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of the stream.

    Points are ordered by place within a segment, and by Vault's time across segments.
    """

    place: Place
    at: datetime

    @classmethod
    def of(cls, line: Observation | None) -> Point | None:
        return cls(line.place, line.at) if line else None

    def before(self, other: Point) -> bool:
        if (self.place.source, self.place.epoch) == (other.place.source, other.place.epoch):
            return self.place.offset < other.place.offset
        return self.at < other.at


def follows(line: Observation, other: Observation | None) -> bool:
    return other is None or Point(other.place, other.at).before(Point(line.place, line.at))


def shown(line: Observation | None, missing: str) -> str:
    return f"line {line.line[:16]} {line.path} at {line.at.isoformat()}" if line else missing


def done(line: Observation) -> bool:
    return line.closing and not line.failed


def listed(trail: AuditTrail, ops: frozenset[str], *, in_segment_of: Place) -> Observation | None:
    """Return the worker's last listing of the task's prefixes.

    A canary has to follow the listing. The listing is in the segment of `in_segment_of`. A listing whose line does
    not show what was listed does not count: nobody could check the proof against it.
    """
    return next(
        (
            o
            for o in reversed(trail.observations)
            if o.op in ops
            and done(o)
            and "elided" not in o.detail
            and o.actor in trail.worker_accessors
            and segment(o.place) == segment(in_segment_of)
            and canary_after(trail, o.place) is not None
        ),
        None,
    )


def unshown(trail: AuditTrail) -> str:
    """Return what to add where the device shows only a listing's length.

    The text belongs to a listing that is missing.
    """
    made = any("elided" in o.detail and o.actor in trail.worker_accessors for o in trail.observations)
    return f"; of the listing that was made, {ELIDED}" if made else ""


def segment(place: Place) -> tuple[str, int]:
    return place.source, place.epoch


def canary_before(trail: AuditTrail, place: Place) -> int | None:
    here = (c.place.offset for c in trail.canaries if segment(c.place) == segment(place))
    return max((offset for offset in here if offset < place.offset), default=None)


def canary_after(trail: AuditTrail, place: Place) -> int | None:
    here = (c.place.offset for c in trail.canaries if segment(c.place) == segment(place))
    return min((offset for offset in here if offset >= place.offset), default=None)
