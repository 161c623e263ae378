"""Signed documents: DSSE envelopes that only the author's entity signs.

The signing key of an entity is `jitvault-signer-<entity id>` in Vault's Transit engine; the public half
is read from Vault for each check. DSSE: https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]

from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes

DOCUMENT_TYPE = "application/vnd.jitvault.document+json"
RECEIPT_TYPE = "application/vnd.jitvault.receipt+json"
RECEIPT_KEY = "jitvault-receipts"


def signer_key(entity_id: str) -> str:
    """Return the name of the Transit key that only this entity can use."""
    return f"jitvault-signer-{entity_id}"


def to_sign(payload: Mapping[str, Any], payload_type: str) -> str:
    """Return the base64 input that is sent to Transit for signing."""
    return input_of(unsigned(payload, payload_type))


def input_of(envelope: Envelope) -> str:
    return base64.b64encode(envelope.pae()).decode()


def unsigned(payload: Mapping[str, Any], payload_type: str) -> Envelope:
    """Return an unsigned envelope around the canonical bytes of `payload`."""
    return Envelope(canonical_bytes(payload), payload_type, {})


def signed(envelope: Envelope, *, key: str, version: int, signature: bytes) -> dict[str, Any]:
    """Return `envelope` as JSON data, with one signature.

    The signature was made by version `version` of the Transit key `key`.
    """
    keyid = f"{key}:v{version}"
    envelope.signatures[keyid] = Signature(keyid, signature.hex())
    return dict(envelope.to_dict())


def opened(document: object, *, key: str, public_keys: Mapping[int, str], payload_type: str) -> dict[str, Any]:
    """Return the payload of a document whose signature by `key` is valid.

    `public_keys` maps the versions of the Transit key to their base64 Ed25519 public keys, as Vault gives them.
    Raises SecurityFinding if the document is malformed, of another type, or not signed by that key.
    """
    try:
        envelope = Envelope.from_dict(msgspec.json.decode(msgspec.json.encode(document)))
        # Without any key this raises as well: securesystemslib refuses a threshold that cannot be met.
        envelope.verify([_ed25519(f"{key}:v{v}", public) for v, public in public_keys.items()], 1)
        payload = msgspec.json.decode(envelope.payload)
    except (VerificationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SecurityFinding(f"a document is not signed by {key}: {type(error).__name__}") from error
    if envelope.payload_type != payload_type or not isinstance(payload, dict):
        raise SecurityFinding(f"a document signed by {key} is of type {envelope.payload_type!r:.80}")
    return payload


def payload_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of one's own document, signature unchecked.

    Raises SecurityFinding if the document is not an envelope.
    """
    try:
        payload: dict[str, Any] = msgspec.json.decode(base64.b64decode(document["payload"]), type=dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SecurityFinding("a document in Vault is not a signed envelope") from error
    return payload


def _ed25519(keyid: str, public_base64: str) -> SSlibKey:
    public = base64.b64decode(public_base64, validate=True).hex()
    return SSlibKey(keyid, "ed25519", "ed25519", {"public": public})
