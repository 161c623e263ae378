"""What the auditor knows from elsewhere, besides the receipts' keys."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from jitvault.documents.trust import TrustFile
from jitvault.errors import InvalidInput
from jitvault.verification.keys import ReceiptKey


@dataclass(frozen=True, slots=True)
class Trust:
    """The ids of jitvault's namespace and of the worker's entities.

    They are empty where the auditor gave none.
    """

    namespace: str = ""
    workers: frozenset[str] = frozenset()


NO_TRUST = Trust()


def trust_in(file: TrustFile) -> Trust:
    """Return what a trust file says of namespace and worker."""
    return Trust(file.namespace.id, frozenset(worker.entity for worker in file.workers))


def keys_in(file: TrustFile) -> list[ReceiptKey]:
    """Return the receipts' keys of a trust file. Raises InvalidInput."""
    try:
        return [
            ReceiptKey.of(base64.b64decode(key.public_key, validate=True), key.version, key.made_at)
            for key in file.receipt_keys
        ]
    except ValueError:
        raise InvalidInput(
            "a key of the trust file is no Ed25519 key", hint="`jitvault export-keys --out FILE` writes another one."
        ) from None
