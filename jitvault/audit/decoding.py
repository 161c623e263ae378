"""From the bytes of a line to an observation."""

from __future__ import annotations

import hashlib

import msgspec

from jitvault.domain.observation import Entry, Observation, Place, observe

_decoder = msgspec.json.Decoder(Entry, strict=False)


class Undecodable(Exception):
    """A line that is not an audit entry: a gap in the record."""


def decode(raw: bytes, place: Place) -> Observation | None:
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
        return observe(entry, line=hashlib.sha256(raw).hexdigest(), place=place)
    except OverflowError as error:
        raise Undecodable(type(error).__name__) from None
