"""What the worker publishes of a task in Vault: its proof and its receipt are packed there, and read here."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any


def packed(part: Mapping[str, Any] | None) -> str | None:
    """A part as one string: OpenBao refuses a request that holds 1,000 of them, and 22 leases with their checks do."""
    return base64.b64encode(zlib.compress(json.dumps(dict(part)).encode())).decode() if part is not None else None


def unpacked(document: Mapping[str, Any]) -> dict[str, Any]:
    """A published document as it was before it was packed. Raises ValueError and RecursionError for what never was."""
    found = document.get("proof")
    proof = _unpacked(found) if isinstance(found, str) else found
    return {**document, "proof": proof, "receipt": unpacked_receipt(document)}


def unpacked_receipt(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The signed receipt in a published document, not verified; None where there is none."""
    found = document.get("receipt")
    if not isinstance(found, str):
        return None
    try:
        receipt = _unpacked(found)
    except (ValueError, RecursionError):
        return None
    return receipt if isinstance(receipt, dict) else None


def _unpacked(text: str) -> Any:
    try:
        return json.loads(zlib.decompress(base64.b64decode(text)))
    except zlib.error as error:
        raise ValueError(str(error)) from None
