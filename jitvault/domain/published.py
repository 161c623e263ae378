"""What the worker publishes of a task in Vault: its proof and its receipt are packed there, and read here."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

ILLEGIBLE = "illegible"
"""The state that is shown of what no worker can have written."""
MOST_UNPACKED = 16 * 1024 * 1024
"""So many bytes are unpacked. Some ten thousand leases with their checks are less; a few hundred kilobytes of a thief's
can be gigabytes.
"""
_UNPACKED_IN_VAIN = (ValueError, RecursionError, zlib.error)


def packed(part: Mapping[str, Any] | None) -> str | None:
    """A part as one string: OpenBao refuses a request that holds 1,000 of them, and 22 leases with their checks do."""
    return base64.b64encode(zlib.compress(json.dumps(dict(part)).encode())).decode() if part is not None else None


def unpacked(task_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """A published document as it was before it was packed. What no worker can have written says that it is `ILLEGIBLE`.

    Whoever stole a worker's token can write anything there, and must not stop a command by it.
    """
    found = document.get("proof")
    try:
        proof = _unpacked(found) if isinstance(found, str) else found
    except _UNPACKED_IN_VAIN:
        return _illegible(task_id)
    whole = {**document, "proof": proof, "receipt": unpacked_receipt(document)}
    return whole if whole.get("task_id") == task_id and _is_legible(whole) else _illegible(task_id)


def _illegible(task_id: str) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "state": ILLEGIBLE,
        "end_reason": None,
        # an event that no ledger holds
        "chain": {"seq": 0, "head": ""},
        "ends_at": None,
        "proof": None,
        "receipt": None,
        "findings": [],
        "error": None,
    }


def _is_legible(document: Mapping[str, Any]) -> bool:
    """Whether everything is there, and of its kind, by which a command decides what to do."""
    error, chain = document.get("error"), document.get("chain")
    is_error = isinstance(error, dict) and isinstance(error.get("exit_code"), int) and {"message", "hint"} <= {*error}
    if document.get("state") == "refused":
        return is_error
    proof = document["proof"]
    return (
        isinstance(document.get("state"), str)
        and (error is None or is_error)
        and isinstance(chain, dict)
        and isinstance(chain.get("seq"), int)
        and isinstance(chain.get("head"), str)
        and isinstance(document.get("body"), str)
        and isinstance(document.get("findings"), list)
        and (proof is None or (isinstance(proof, dict) and isinstance(proof.get("confirmed"), bool)))
    )


def unpacked_receipt(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The signed receipt in a published document, not verified; None where there is none."""
    found = document.get("receipt")
    if not isinstance(found, str):
        return None
    try:
        receipt = _unpacked(found)
    except _UNPACKED_IN_VAIN:
        return None
    return receipt if isinstance(receipt, dict) else None


def _unpacked(text: str) -> Any:
    packed = zlib.decompressobj()
    found = packed.decompress(base64.b64decode(text), MOST_UNPACKED)
    if not packed.eof:
        raise ValueError(f"it is cut, or more than {MOST_UNPACKED} bytes")
    return json.loads(found)
