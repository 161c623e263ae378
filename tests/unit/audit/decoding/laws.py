"""What holds for any bytes at all: the tests ask it for generated lines, the fuzzer for whatever it finds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace

from jitvault.audit.decoding.decoder import Scanned, Undecodable, decode, decode_skimmed, scan
from jitvault.audit.decoding.oversized import skim
from jitvault.audit.observation import Observation, Place

PLACE = Place("audit", 1, 0)


def scan_is_decoding_of_each_line(chunk: bytes) -> Scanned:
    """`scan` finds what each line says by itself, up to the first that is bad."""
    found = scan(chunk, PLACE)
    observations, lines, consumed, bad = _by_line(chunk)
    assert found.observations == observations
    assert (found.lines, found.consumed, found.bad is not None) == (lines, consumed, bad)
    assert found.bad != ""
    return found


def skimming_is_decoding(raw: bytes, ends: list[int]) -> Observation | str | None:
    """`skim` and `decode` say the same of one line, in whatever pieces it comes."""
    found = outcome(raw, ends)
    assert _without_terms(found) == _without_terms(decoded(raw))
    return found


def _without_terms(found: Observation | str | None) -> Observation | str | None:
    """Leave out the terms that a create asked for, which skimming does not keep."""
    if not isinstance(found, Observation) or "asked" not in found.detail:
        return found
    return replace(found, detail={**found.detail, "asked": "something"})


def outcome(raw: bytes, ends: list[int] | None = None) -> Observation | str | None:
    """What skimming gives: an observation, none, or that it is no audit entry."""
    try:
        skimmed = skim(_pieces(raw, ends or []))
        found = decode_skimmed(skimmed, PLACE).observation
    except Undecodable:
        return "undecodable"
    assert skimmed.sha256 == hashlib.sha256(raw).hexdigest()
    assert skimmed.length == len(raw)
    return found


def decoded(raw: bytes) -> Observation | str | None:
    try:
        return decode(raw, PLACE)
    except Undecodable:
        return "undecodable"


def _by_line(chunk: bytes) -> tuple[list[Observation], int, int, bool]:
    found: list[Observation] = []
    offset = 0
    lines = re.findall(rb"[^\n]*\n|[^\n]+", chunk)
    for n, raw in enumerate(lines):
        # what stands before the first entry stands before each
        prefix = lines[0].partition(b"{")[0]
        try:
            observation = decode(raw, Place(PLACE.source, PLACE.epoch, PLACE.offset + offset))
        except Undecodable:
            return found, n, offset + len(raw), True
        if not raw.startswith(prefix + b"{"):
            return found, n, offset + len(raw), True
        found += [observation] if observation else []
        offset += len(raw)
    return found, len(lines), offset, False


def _pieces(raw: bytes, ends: list[int]) -> Iterator[bytes]:
    """`raw` in pieces that end there."""
    borders = sorted({end % (len(raw) + 1) for end in ends})
    for begin, end in zip([0, *borders], [*borders, len(raw)], strict=True):
        yield raw[begin:end]
