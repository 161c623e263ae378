"""Open a receipt's envelope: which key signed it, and what was signed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope

from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE
from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.shorten import one_line
from jitvault.verification.keys import ReceiptKey

MAX_RECEIPT = 64 * 1024 * 1024
_KEY_ID = re.compile(rf"{RECEIPT_KEY}:v([1-9][0-9]{{0,8}})")
_HINT = "`jitvault report TASK --receipt FILE` writes a receipt."
_MISTRUST = "Nothing in it can be believed. Get receipt and key again, each from its own source (docs/auditors.md)."
_FIELDS = {"payload", "payloadType", "signatures"}


@dataclass(frozen=True, slots=True)
class SignedPayload:
    """The signed bytes of a receipt, and the key that signed them."""

    payload: bytes
    version: int
    key: ReceiptKey


def open_envelope(data: bytes, keys: Sequence[ReceiptKey]) -> SignedPayload:
    """Return what one of `keys` signed as a receipt.

    Raises InvalidInput for a file that is no envelope, and SecurityFinding for one that none of the keys signed.
    """
    envelope = _envelope(data)
    key_id = _key_id(envelope)
    version = int(key_id.rpartition(":v")[2])
    candidates = [key for key in keys if key.version in (version, None)]
    if not candidates:
        known = ", ".join(str(key.version) for key in keys)
        raise SecurityFinding(
            f"the receipt says version {version} of {RECEIPT_KEY}, and the key file has {known}", hint=_MISTRUST
        )
    payload, signature = _base64(envelope["payload"]), _base64(envelope["signatures"][0].get("sig"))
    for key in candidates:
        if is_signed(key.raw, signature, payload, RECEIPT_TYPE):
            return SignedPayload(payload, version, key)
    raise SecurityFinding(
        f"the signature does not hold: the receipt was changed, or another key than the file's signed it (it says "
        f"version {version} of {RECEIPT_KEY})",
        hint=_MISTRUST,
    )


def is_signed(key: bytes, signature: bytes, payload: bytes, payload_type: str) -> bool:
    """Return whether a key signed these bytes as a document of this type."""
    try:
        # DSSE's pre-authentication encoding covers the type as well
        Ed25519PublicKey.from_public_bytes(key).verify(signature, Envelope(payload, payload_type, {}).pae())
    except InvalidSignature:
        return False
    return True


def _base64(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:
        raise InvalidInput("a part of the receipt is no base64, so it was changed or cut off", hint=_HINT) from None


def _envelope(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_RECEIPT:
        raise InvalidInput(f"the file is larger than {MAX_RECEIPT >> 20} MiB, so it is no receipt", hint=_HINT)
    try:
        found = json.loads(data, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(data.rstrip()) - 1 or error.msg.startswith("Unterminated")
        why = "it ends too early, so a part of it is missing" if cut else f"{error.msg} at byte {error.pos}"
        raise InvalidInput(f"the receipt is not whole JSON: {why}", hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, _DuplicateKey) else type(error).__name__
        raise InvalidInput(f"the receipt cannot be read as JSON: {why}", hint=_HINT) from None
    if not isinstance(found, dict) or not _FIELDS.issubset(found):
        raise InvalidInput(f"this is no receipt: {_looks_like(found)}", hint=_HINT)
    if found["payloadType"] != RECEIPT_TYPE:
        raise InvalidInput(f"this is no receipt but {one_line(str(found['payloadType']))!r:.80}", hint=_HINT)
    return found


def _key_id(envelope: dict[str, Any]) -> str:
    """Return the one key id of the envelope.

    Raises InvalidInput, SecurityFinding.
    """
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or not all(isinstance(one, dict) for one in signatures):
        raise InvalidInput("the receipt's signatures are no list of signatures", hint=_HINT)
    if len(signatures) != 1:
        raise SecurityFinding(f"the receipt has {len(signatures)} signatures, and jitvault makes one", hint=_MISTRUST)
    key_id = signatures[0].get("keyid")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        shown = f"{one_line(str(key_id))!r:.80}"
        raise SecurityFinding(f"the receipt is signed by {shown}, and not by {RECEIPT_KEY}", hint=_MISTRUST)
    return key_id


class _DuplicateKey(ValueError):
    """A key that an object has twice: two programs could read two values."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKey("an object has one key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _looks_like(found: object) -> str:
    """Return in words what the file is instead of a receipt."""
    if isinstance(found, dict) and "timeline" in found:
        return "it looks like the output of `status --json`, which nobody signed"
    if isinstance(found, dict) and "leases" in found:
        return "it looks like a report (`report --out`), which nobody signed"
    return "it has no signed envelope (payload, payloadType, signatures)"
