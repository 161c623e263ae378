"""The public keys by which a receipt is verified, from a file.

The file is PEM with one public key or several, or the JSON that Vault answers for the key `jitvault-receipts`. PEM does
not say which version of the key a key is; a line `jitvault-receipts:v2` before a key does. Vault's JSON always does,
and says when each version was made.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from jitvault.documents.signed import RECEIPT_KEY
from jitvault.errors import InvalidInput

MAX_KEY_FILE = 1024 * 1024
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[^-]*-----END \1-----")
_LABEL = re.compile(rf"{RECEIPT_KEY}:v([1-9][0-9]{{0,8}})\s*$".encode())
_WHERE = "It is PEM, or Vault's answer for the Transit key jitvault-receipts: docs/auditors.md says where to get it."


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """One public key.

    `version` and `made_at` are None where the file does not say them.
    """

    raw: bytes
    version: int | None = None
    made_at: datetime | None = None

    @classmethod
    def of(cls, raw: bytes, version: int, made_at: datetime | None) -> ReceiptKey:
        """Return the key of these bytes.

        Raises ValueError for bytes that are no Ed25519 key.
        """
        Ed25519PublicKey.from_public_bytes(raw)
        return cls(raw, version, made_at)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's DER.

        `openssl pkey -pubin -outform DER | sha256sum` computes it, too.
        """
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_keys(data: bytes) -> list[ReceiptKey]:
    """Return the keys in a key file.

    Raises InvalidInput for a file without one.
    """
    if data.lstrip().startswith(b"{"):
        return _from_vault(data)
    if b"PRIVATE KEY-----" in data:
        raise InvalidInput("the key file has a private key, and Vault gives nobody the receipts' one", hint=_WHERE)
    keys = list(_from_pem(data))
    if not keys:
        raise InvalidInput("the key file has no public key in it", hint=_WHERE)
    return keys


def _from_pem(data: bytes) -> list[ReceiptKey]:
    found = []
    before = 0
    for block in _BLOCK.finditer(data):
        label = _LABEL.search(data[before : block.start()])
        before = block.end()
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(f"a key of the key file cannot be read: {type(error).__name__}", hint=_WHERE) from None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInput("a key of the key file is no Ed25519 key, and receipts are signed by one", hint=_WHERE)
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        found.append(ReceiptKey(raw, int(label[1]) if label else None))
    return found


def _from_vault(data: bytes) -> list[ReceiptKey]:
    try:
        answer = msgspec.json.decode(data, type=dict[str, Any])
        keys = answer["data"]["keys"] if "data" in answer else answer["keys"]
        found = [_from_version(int(version), facts) for version, facts in keys.items()]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"the key file is JSON, and not Vault's answer with Ed25519 keys ({type(error).__name__})", hint=_WHERE
        ) from None
    if not found:
        raise InvalidInput("Vault's answer in the key file has no key in it", hint=_WHERE)
    return found


def _from_version(version: int, facts: dict[str, Any]) -> ReceiptKey:
    made = facts.get("creation_time")
    made_at = datetime.fromisoformat(made).astimezone(UTC) if isinstance(made, str) else None
    return ReceiptKey.of(base64.b64decode(facts["public_key"], validate=True), version, made_at)
