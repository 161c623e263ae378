"""A task's audit lines, and the links by which a line belongs to a task.

A trail also has the canaries between a task's lines, since a task is judged by both.

Links are needed where no accessor in a line names the token. A derived token belongs to a task token if a line of
Vault's own says that one came from the other: the wrapping of the task token, the task token itself, and the wrapping
of what it read. Vault makes the accessors and token HMACs of a line; a client chooses metadata, headers and the
operation id, so nothing here looks at those.

A wrapping that was requested as a JWT is shown by the HMAC of the token inside the JWT, both where it is created and
where it is opened by the header. If it is opened by the body, the line has the HMAC of the JWT, and nothing joins the
two: `jitvault.lifecycle.confirmation.wrapped_reads` accounts for the content of such a wrapping.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.model.evidence import Evidence, Lack, Line, Missing


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


def shown(line: Observation | None, otherwise: Evidence | Lack) -> Evidence:
    """Return a line as evidence; without one what there is `otherwise`, or that this is missing."""
    if line:
        return Line(line.line, line.place.source, line.request_id, line.kind.value, line.path, line.at)
    return Missing(lack=otherwise) if isinstance(otherwise, Lack) else otherwise


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


def is_elided(trail: AuditTrail) -> bool:
    """Return whether the worker made a listing of which the device shows only the length."""
    return any("elided" in o.detail and o.actor in trail.worker_accessors for o in trail.observations)


def segment(place: Place) -> tuple[str, int]:
    return place.source, place.epoch


def canary_before(trail: AuditTrail, place: Place) -> int | None:
    here = (c.place.offset for c in trail.canaries if segment(c.place) == segment(place))
    return max((offset for offset in here if offset < place.offset), default=None)


def canary_after(trail: AuditTrail, place: Place) -> int | None:
    here = (c.place.offset for c in trail.canaries if segment(c.place) == segment(place))
    return min((offset for offset in here if offset >= place.offset), default=None)


T = TypeVar("T")

# The subject of all other kinds is a lease, a nonce or a document, which a client can choose to be any text.
_ABOUT_A_TOKEN = frozenset(
    {
        Kind.TOKEN_CREATED,
        Kind.UNWRAPPED,
        Kind.REWRAPPED,
        Kind.USED,
        Kind.DENIED,
        Kind.RENEWED,
        Kind.TOKEN_REVOKED,
        Kind.TOKEN_LOOKUP,
    }
)


def derived_tokens(lines: Iterable[Observation], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return each derived token with the accessor of its task token.

    Both are HMACs. `given` has the pairs that are known without a line. The order of the lines does not matter.
    After a rewrap that does not show what is wrapped, the new wrapping belongs to the token of the old one. Should
    two lines disagree, which Vault's lines cannot, the result is always the same.
    """
    stated: defaultdict[str, set[str]] = defaultdict(set)
    rewraps: defaultdict[str, set[str]] = defaultdict(set)
    for token, accessor in (given or {}).items():
        stated[accessor].add(token)
    for line in lines:
        if line.alias and line.stands_for:
            stated[line.stands_for].add(line.alias)
        elif line.alias and line.kind is Kind.REWRAPPED:
            rewraps[line.token].add(line.alias)
    found: dict[str, str] = {}
    for accessor in sorted(stated):
        found |= {alias: accessor for alias in stated[accessor] if alias not in found}
    # what a line states goes before what a rewrap passes on; each token is reached once, so a circle ends
    for accessor in sorted(stated):
        waiting = list(stated[accessor])
        while waiting:
            for alias in rewraps[waiting.pop()] - found.keys():
                found[alias] = accessor
                waiting.append(alias)
    return found


def owning_token(line: Observation, derived_tokens: Mapping[str, str]) -> str:
    """Return the accessor HMAC of the token that owns a line.

    In this order: the token named by the line, the task token whose wrapping is named, the caller. The caller comes
    last: an agent that holds another token sends that one in the header and the wrapping token in the body
    (`bao unwrap` does), and the content belongs to the task whose wrapping it was.
    """
    named = line.subject if line.kind in _ABOUT_A_TOKEN else ""
    if line.kind is Kind.LEASE_ISSUED and line.token:
        # whoever opened the wrapping, the lease belongs to the token that had it wrapped, or to none that is known yet
        return derived_tokens.get(line.token, "")
    return named or derived_tokens.get(line.token, "") or line.actor


def with_subjects(lines: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return the lines, with a subject for revocations that name a task token.

    A revocation that names the token in its body gets that token's accessor as its subject. Only a token that was
    unwrapped, or that acted, is the task token itself: revoking a wrapping does not revoke what was in it.
    """
    itself = (o for o in lines if o.alias and (o.kind is Kind.UNWRAPPED or not o.closing))
    tokens = {o.alias: o.stands_for for o in itself}

    def is_named(line: Observation) -> bool:
        return line.kind is Kind.TOKEN_REVOKED and not line.subject and line.token in tokens

    return tuple(replace(line, subject=tokens[line.token]) if is_named(line) else line for line in lines)


def linked(
    lines: Iterable[Observation], tokens: Mapping[str, T], derived_tokens: Mapping[str, str]
) -> Iterator[tuple[T, Observation]]:
    """Yield each line with the value of each token that it concerns.

    The values are those of `tokens`. `tokens` is keyed by accessor HMACs; lines that concern none of them are left
    out. A line in which one task's token acts on another's is yielded for both, the owner first: theft shows in the
    task that it befalls. A lease has one owner.
    """
    for line in lines:
        names = (
            (owning_token(line, derived_tokens),)
            if line.kind is Kind.LEASE_ISSUED
            else (owning_token(line, derived_tokens), line.actor)
        )
        found: list[T] = []
        for name in names:
            if name in tokens and name and tokens[name] not in found:
                found.append(tokens[name])
                yield tokens[name], line
