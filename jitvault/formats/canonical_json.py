"""Canonical bytes and digests: one byte form for one meaning (RFC 8785)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import rfc8785

_SORTED = msgspec.json.Encoder(order="sorted")


def canonical_bytes(value: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 bytes of JSON data.

    Raises ValueError for what JSON cannot hold exactly.
    """
    return rfc8785.dumps(dict(value))


def likely_bytes(value: Mapping[str, Any]) -> bytes | None:
    """Return the canonical bytes of nearly all JSON data, quickly.

    This takes a twentieth of the time of `canonical_bytes`. For the rest the bytes differ, or the result is None. A
    digest of canonical bytes that these bytes match proves that data is unchanged; a mismatch proves nothing.
    """
    try:
        return _SORTED.encode(value)
    except (TypeError, ValueError, RecursionError):
        return None


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data`, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Mapping[str, Any]) -> str:
    """Return `sha256:` and the SHA-256 of the canonical bytes of `value`."""
    return "sha256:" + sha256_hex(canonical_bytes(value))
