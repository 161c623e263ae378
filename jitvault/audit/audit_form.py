"""The form in which an audit device writes its lines.

With some options of a device, its lines cannot prove anything. The worker may not read a device's options
(`sys/audit` needs sudo), so the form is recognised from the lines themselves.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from jitvault.audit.entry import Auth

_MOST_LINES = 500
# The device's option `prefix` puts text before the entry.
_PREFIX = re.compile(rb"[^{]{0,64}(?=\{)")
_END_OF_XML = (b"</json:object>", b"</json:string>", b"</json:number>", b"</json:boolean>", b"</json:array>")

JSONX = "its device writes JSONx (format=jsonx), which has neither lines nor JSON"
RAW = "its device writes everything in plain (log_raw=true), secrets too, and nothing can be found by its HMAC"
PLAIN_ACCESSORS = "its device shows accessors in plain (hmac_accessor=false), so no line can be linked to a task"
ELIDED = "its device shows of a listing no more than how long it was (elide_list_responses=true)"


class _Request(msgspec.Struct, frozen=True):
    operation: str = ""


class _Response(msgspec.Struct, frozen=True):
    data: dict[str, Any] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    request: _Request = msgspec.field(default_factory=_Request)
    auth: Auth | None = None
    response: _Response | None = None


_line = msgspec.json.Decoder(_Line).decode


def wrong_form(tail: bytes) -> str:
    """Return why a log that ends with `tail` cannot prove anything, or "".

    The newest line that shows the form counts: a device may have been set up anew since the older ones.
    """
    if tail.rstrip().endswith(_END_OF_XML):
        return JSONX
    hashed = whole = False
    for raw in reversed(tail.splitlines()[-_MOST_LINES:]):
        line = _decoded(raw)
        if line is None:
            continue
        if not hashed and line.auth and line.auth.accessor:
            if not is_hashed(line.auth.accessor):
                return PLAIN_ACCESSORS if is_hashed(line.auth.client_token) else RAW
            hashed = True
        if not whole and line.type == "response" and line.request.operation == "list":
            data = line.response.data if line.response else None
            if is_elided(data):
                return ELIDED
            whole = bool(data and data.get("keys"))
        if hashed and whole:
            break
    return ""


def is_hashed(value: str) -> bool:
    return value.startswith("hmac-")


def is_elided(data: dict[str, Any] | None) -> bool:
    """Return whether the answer to a listing has only the number of its keys."""
    keys = (data or {}).get("keys")
    return isinstance(keys, int) and not isinstance(keys, bool)


def _decoded(raw: bytes) -> _Line | None:
    """Decode one line; None if it is no entry, or only its end is there."""
    prefix = _PREFIX.match(raw)
    try:
        return _line(raw[prefix.end() :]) if prefix else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
