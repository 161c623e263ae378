"""From the bytes of a line to an observation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from jitvault.domain.observation import Entry, Observation, Place, observe

_decoder = msgspec.json.Decoder(Entry, strict=False)


class Undecodable(Exception):
    """A line that is not an audit entry: a gap in the record."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a chunk of whole lines holds, up to its end or to the first line that is not an audit entry.

    `consumed` is in bytes and includes that line; `bad` says what is wrong with it. The lines after it belong to
    another stretch, so the caller goes on there.
    """

    observations: list[Observation]
    lines: int
    consumed: int
    bad: str | None


def scan(chunk: bytes, place: Place, *, namespace: str = "") -> Scanned:
    """The observations in `chunk`, whole lines whose first byte stands at `place`."""
    found: list[Observation] = []
    offset = lines = 0
    for raw in chunk.splitlines(keepends=True):
        try:
            observation = decode(raw, Place(place.source, place.epoch, place.offset + offset), namespace=namespace)
        except Undecodable as error:
            return Scanned(found, lines, offset + len(raw), str(error))
        if observation:
            found.append(observation)
        offset += len(raw)
        lines += 1
    return Scanned(found, lines, offset, None)


def decode(raw: bytes, place: Place, *, namespace: str = "") -> Observation | None:
    """The observation in one line, None where it is nothing of ours.

    Raises Undecodable for whatever is not an audit entry, also for nesting that is too deep to read.
    """
    try:
        entry = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Undecodable(type(error).__name__) from None
    if entry.type not in ("request", "response"):
        raise Undecodable(f"type {entry.type!r:.20}")
    try:
        return observe(entry, line=hashlib.sha256(raw).hexdigest(), place=place, namespace=namespace)
    except OverflowError as error:
        raise Undecodable(type(error).__name__) from None
