"""Reduce one audit line of any size, in bounded memory.

The result has what an observation is made of. A client can make Vault write lines of hundreds of megabytes, and
such a line still holds a lease id. `skim` passes over the line once. It refuses what is not JSON just as the
decoder of ordinary lines does, and checks strings that are not needed as little as that decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from jitvault.audit.decoding.json_tokens import (
    BRACE,
    BRACKET,
    CLOSES,
    COLON,
    COMMA,
    MAX_PREFIX,
    QUOTE,
    Reader,
    Text,
    Undecodable,
    broken,
    prefix_length,
    skip,
)
from jitvault.audit.entry import TARGET_NAMES, Entry

MAX_TEXT = 64 * 1024
# A hazard is recognised by any part of its path, so a path is not cut. Go's HTTP server takes no path over 1 MiB, and
# JSON writes some of its characters as six.
MAX_PATH = 6 * 1024 * 1024 + 64 * 1024
# policies and warnings, of which the first few words count
MAX_ITEMS = 512
MAX_ITEM = 4 * 1024
# The keys of the free-form parts that an observation is made of. The terms of a create (policies, TTL) are not among
# them: the worker's own creates are small, so that a large one under an operation id of ours fits no intent.
_IN_DICTS: Mapping[str, tuple[str, ...]] = {
    "request.data": ("input", "lease_id", "accessor", "token"),
    "request.headers": ("x-jitvault-op",),
    "response.data": ("error", "http_status_code", *TARGET_NAMES),
}
_LONGEST_KEY = 6 * 32

# of an object these keys, of a list all items, of a text so many bytes
_Wanted = dict[str, Any] | list[Any] | int


@dataclass(frozen=True, slots=True)
class Skimmed:
    """What is needed of a line (`reduced`, JSON).

    `sha256` and `length` are those of all its bytes.
    """

    reduced: bytes
    sha256: str
    length: int


def skim(chunks: Iterator[bytes]) -> Skimmed:
    """Return what `Entry` needs of the one line in `chunks`, newline included.

    A text of more than 64 KiB, in a list of more than 4 KiB, is cut and ends in a remark with the SHA-256 of the whole,
    so that it still differs from every other text. Raises Undecodable for whatever is not a JSON object, for a path of
    more than MAX_PATH bytes of JSON, a list of more than 512 items (policies, warnings) and more than 20,000 levels;
    `chunks` are then not read to their end.
    """
    reader = Reader(chunks)
    while len(reader.buffer) <= MAX_PREFIX and reader.fill():
        pass
    reader.at = prefix_length(reader.buffer)
    found = _value(reader, _WANTED)
    if reader.next_or_end() is not None:
        broken()
    return Skimmed(msgspec.json.encode(found), reader.sha256.hexdigest(), reader.length)


def _value(reader: Reader, wanted: _Wanted) -> Any:
    """Return the wanted part of one value.

    A value of another type stays recognisable as such.
    """
    opening = reader.next()
    if opening == QUOTE:
        text = Text(reader, wanted if isinstance(wanted, int) else MAX_TEXT)
        if text.is_cut and wanted == MAX_PATH:
            raise Undecodable("a path of more than 1 MiB")
        # The decoder finds text that is not UTF-8: the text may be one that is not needed.
        return msgspec.Raw(text.json())
    if opening == BRACE and isinstance(wanted, dict):
        return _object(reader, wanted)
    if opening == BRACKET and isinstance(wanted, list):
        return _list(reader)
    if opening in CLOSES:
        skip(reader)
        return {} if opening == BRACE else []
    try:
        return msgspec.json.decode(reader.scalar())
    except msgspec.ValidationError:
        # a number out of every range: still a number
        return 0


def _object(reader: Reader, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted keys of an object.

    Of a duplicate key the last one counts, as in any other reader.
    """
    found: dict[str, Any] = {}
    reader.take(BRACE)
    if reader.next() != CLOSES[BRACE]:
        while True:
            key = _key(reader)
            if key in wanted:
                found[key] = _value(reader, wanted[key])
            else:
                skip(reader)
            if reader.next() == CLOSES[BRACE]:
                break
            reader.take(COMMA)
    reader.take(CLOSES[BRACE])
    return found


def _list(reader: Reader) -> list[Any]:
    found: list[Any] = []
    reader.take(BRACKET)
    if reader.next() != CLOSES[BRACKET]:
        while True:
            if len(found) == MAX_ITEMS:
                raise Undecodable("a list is too long")
            found.append(_value(reader, MAX_ITEM))
            if reader.next() == CLOSES[BRACKET]:
                break
            reader.take(COMMA)
    reader.take(CLOSES[BRACKET])
    return found


def _key(reader: Reader) -> str | None:
    """Pass over a key and its colon; return the key.

    The result is None for a key that is longer than every wanted one, or that is no text.
    """
    text = Text(reader, _LONGEST_KEY)
    reader.take(COLON)
    try:
        return None if text.is_cut else msgspec.json.decode(text.json(), type=str)
    except UnicodeDecodeError:
        return None


def _wanted(kind: Any, at: str = "") -> _Wanted:
    """Return what is kept of a value of type `kind` at `at`.

    `at` is the place in an entry.
    """
    for option in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            fields = msgspec.structs.fields(option)
            return {f.encode_name: _wanted(f.type, f"{at}.{f.encode_name}".lstrip(".")) for f in fields}
        if get_origin(option) is dict:
            return {key: _wanted(get_args(option)[1]) for key in _IN_DICTS.get(at, ())}
        if get_origin(option) is list:
            return []
    return MAX_PATH if at == "request.path" else MAX_TEXT


_WANTED = _wanted(Entry)
