"""Decode the bytes of audit lines into observations.

Of most lines only a few keys are read: those that show whether the line can matter. Only lines that can are decoded
in full. `decode` states that rule for one line; `scan` applies the rule to many lines at once, and `decode_skimmed`
to a line that is too large to be held in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from jitvault.audit.changes import Change, change_of, may_change
from jitvault.audit.classify import may_matter, may_matter_by_token, observe
from jitvault.audit.decoding.json_tokens import Undecodable, prefix_length
from jitvault.audit.decoding.oversized import Skimmed, skim
from jitvault.audit.entry import Entry
from jitvault.audit.hazard_paths import READING
from jitvault.audit.observation import Observation, Place

__all__ = ["Decoded", "Scanned", "Undecodable", "decode", "decode_skimmed", "scan"]


# No part of these structs can be part of a cycle, so the garbage collector need not look at one per line.
class _Headers(msgspec.Struct, frozen=True, gc=False):
    op: tuple[str, ...] | None = msgspec.field(default=None, name="x-jitvault-op")


class _PeekRequest(msgspec.Struct, frozen=True, gc=False):
    path: str = ""
    operation: str = ""
    headers: _Headers | None = None


class _PeekAuth(msgspec.Struct, frozen=True, gc=False):
    policies: tuple[str, ...] | None = None
    accessor: str = ""


class _Peek(msgspec.Struct, frozen=True, gc=False):
    """The keys that show whether a line can matter.

    They include those that every line has.
    """

    time: str
    type: Literal["request", "response"]
    request: _PeekRequest = _PeekRequest()
    auth: _PeekAuth | None = None
    error: str = ""


_entry = msgspec.json.Decoder(Entry).decode
_peek = msgspec.json.Decoder(_Peek).decode
_peek_lines = msgspec.json.Decoder(_Peek).decode_lines


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one line shows: an observation, and which facts it may change."""

    observation: Observation | None = None
    change: Change | None = None


_NOTHING = Decoded()


@dataclass(frozen=True, slots=True)
class Scanned:
    """The contents of a chunk of whole lines.

    They reach to the chunk's end, or to the first line that is not an audit entry. `consumed` is in bytes and
    includes that line; `bad` says what is wrong with it. The lines after that line belong to another segment, so
    the caller continues there.
    """

    observations: list[Observation]
    lines: int
    consumed: int
    bad: str | None
    changes: list[Change] = field(default_factory=list)


def scan(chunk: bytes, place: Place, *, namespace: str = "") -> Scanned:
    """Return the observations in `chunk`, whole lines from `place` on.

    Text that the device's `prefix` option put before the first entry has to precede each entry.
    """
    if not chunk:
        return Scanned([], 0, 0, None)
    try:
        prefix = chunk[: prefix_length(chunk[: chunk.find(b"\n") + 1] or chunk)]
    except Undecodable as error:
        return Scanned([], 0, chunk.find(b"\n") + 1 or len(chunk), str(error))
    try:
        return _scan_at_once(chunk, prefix, place, namespace)
    except (Undecodable, _UnusualChunk, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # only a pass line by line shows which line it was, and whether it is bad at all
        return _scan_by_line(chunk, prefix, place, namespace)


def decode(raw: bytes, place: Place, *, namespace: str = "") -> Observation | None:
    """Return the observation in one line, or None.

    Raises Undecodable for a line that is not an audit entry. An entry is a JSON object with a time and a type,
    whose path, policies, accessor, operation, error and header have their types. If those show that the line can
    matter, the time and all other keys that `Entry` names have to be valid, too.
    """
    return _decode(raw, place, namespace).observation


def _decode(raw: bytes, place: Place, namespace: str) -> Decoded:
    body = raw[prefix_length(raw) :]
    try:
        entry = _entry(body) if _matters(_peek(body)) else None
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        # The error may be in a part that is not needed: a client can send numbers of any size, and any depth.
        return decode_skimmed(skim(iter([raw])), place, namespace=namespace)
    except msgspec.MsgspecError as error:
        raise Undecodable(type(error).__name__) from None
    return _decoded(entry, hashlib.sha256(raw).hexdigest(), place, namespace) if entry else _NOTHING


def decode_skimmed(skimmed: Skimmed, place: Place, *, namespace: str = "") -> Decoded:
    """Return what the line that was skimmed shows.

    Its observation is that of `decode`. Raises Undecodable.
    """
    try:
        entry = _entry(skimmed.reduced) if _matters(_peek(skimmed.reduced)) else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Undecodable(type(error).__name__) from None
    return _decoded(entry, skimmed.sha256, place, namespace) if entry else _NOTHING


class _UnusualChunk(Exception):
    """A chunk that is no plain sequence of one entry per line."""


def _scan_by_line(chunk: bytes, prefix: bytes, place: Place, namespace: str) -> Scanned:
    found: list[Observation] = []
    changes: list[Change] = []
    offset = lines = 0
    while offset < len(chunk):
        end = chunk.find(b"\n", offset) + 1 or len(chunk)
        raw = chunk[offset:end]
        if not raw.startswith(prefix + b"{"):
            return Scanned(found, lines, end, "another prefix, or none", changes)
        try:
            decoded = _decode(raw, Place(place.source, place.epoch, place.offset + offset), namespace)
        except Undecodable as error:
            return Scanned(found, lines, end, str(error), changes)
        _add(decoded, found, changes)
        offset = end
        lines += 1
    return Scanned(found, lines, offset, None, changes)


def _scan_at_once(chunk: bytes, prefix: bytes, place: Place, namespace: str) -> Scanned:
    """Scan a usual chunk in one pass, with the result of a scan by line.

    Raises one of many errors if anything about the chunk is unusual.
    """
    ends = _line_ends(chunk)
    entries = chunk[len(prefix) :].replace(b"\n" + prefix + b"{", b"\n{") if prefix else chunk
    peeks = _peek_lines(entries)
    if len(peeks) != len(ends) or not _is_one_per_line(chunk, ends, prefix):
        raise _UnusualChunk
    found: list[Observation] = []
    changes: list[Change] = []
    for n in _candidates(peeks):
        if not _matters(peeks[n]):
            continue
        begin = ends[n - 1] if n else 0
        raw = chunk[begin : ends[n]]
        entry = _entry(raw[len(prefix) :])
        at = Place(place.source, place.epoch, place.offset + begin)
        _add(_decoded(entry, hashlib.sha256(raw).hexdigest(), at, namespace), found, changes)
    return Scanned(found, len(ends), len(chunk), None, changes)


def _line_ends(chunk: bytes) -> list[int]:
    """Return the offset after each newline."""
    ends: list[int] = []
    end, find = 0, chunk.find
    while end := find(b"\n", end) + 1:
        ends.append(end)
    return ends


def _is_one_per_line(chunk: bytes, ends: list[int], prefix: bytes) -> bool:
    """Return whether each line holds one entry, given equally many of both.

    A line break between } and { is never inside an entry. So if all line breaks are there, no entry contains one,
    no line is empty, and no line holds two entries.
    """
    border = b"}\n" + prefix + b"{"
    after = len(border) - 2
    return ends[-1] == len(chunk) and {chunk[end - 2 : end + after] for end in ends} <= {border, b"}\n"}


class _CachedAnswers(dict[Any, bool]):
    """A cache of answers to a question.

    The question is asked often, about few different values.
    """

    def __init__(self, ask: Callable[[Any], bool], *, most: int) -> None:
        self._ask, self._most = ask, most

    def __missing__(self, about: Any) -> bool:
        answer = self._ask(about)
        if len(self) >= self._most:
            self.clear()
        if len(about or ()) < 300:
            self[about] = answer
        return answer


_by_path = _CachedAnswers(lambda path: may_matter(path) or may_change(path), most=20_000)
_by_path_read = _CachedAnswers(lambda path: may_matter(path, "read") or may_change(path, "read"), most=5_000)
_by_policies = _CachedAnswers(lambda names: may_matter_by_token(names or ()), most=5_000)


def _matters(peek: _Peek) -> bool:
    """Return whether the line can be an observation or a change."""
    auth, headers = peek.auth, peek.request.headers
    by_path = _by_path_read if peek.request.operation in READING else _by_path
    return (
        by_path[peek.request.path]
        or (auth is not None and _by_policies[auth.policies])
        or (headers is not None and bool(headers.op))
        # Vault refused a token that it does not know
        or (bool(peek.error) and not (auth and auth.accessor))
    )


def _candidates(peeks: list[_Peek]) -> list[int]:
    """Return the numbers of the lines that may matter.

    This is `_matters` without its finer distinctions, since it is applied to every line.
    """
    path, policies = _by_path, _by_policies
    return [
        n
        for n, peek in enumerate(peeks)
        if path[peek.request.path]
        or ((auth := peek.auth) is not None and policies[auth.policies])
        or peek.error
        or peek.request.headers
    ]


def _decoded(entry: Entry, line: str, place: Place, namespace: str) -> Decoded:
    try:
        observation = observe(entry, line=line, place=place, namespace=namespace)
    except OverflowError as error:
        raise Undecodable(type(error).__name__) from None
    return Decoded(observation, change_of(entry, namespace))


def _add(decoded: Decoded, found: list[Observation], changes: list[Change]) -> None:
    if decoded.observation is not None:
        found.append(decoded.observation)
    if decoded.change is not None:
        changes.append(decoded.change)
