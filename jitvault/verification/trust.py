"""What the auditor knows from elsewhere, besides the receipts' keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from jitvault.documents.trust import TrustFile
from jitvault.errors import InvalidInput
from jitvault.verification.keys import ReceiptKey


@dataclass(frozen=True, slots=True)
class Trust:
    """The ids of jitvault's namespace and of the worker's entities, and the public keys of those who sign.

    They are empty where the auditor gave none. `signers` has a key by entity and version.
    """

    namespace: str = ""
    workers: frozenset[str] = frozenset()
    signers: Mapping[tuple[str, int], bytes] = field(default_factory=dict)


NO_TRUST = Trust()


def trust_in(file: TrustFile) -> Trust:
    """Return what a trust file says of namespace, worker and signers. Raises InvalidInput."""
    signers = {(one.entity, one.version): _key(one.public_key, one.version).raw for one in file.signers}
    return Trust(file.namespace.id, frozenset(worker.entity for worker in file.workers), signers)


def keys_in(file: TrustFile) -> list[ReceiptKey]:
    """Return the receipts' keys of a trust file. Raises InvalidInput."""
    return [ReceiptKey(_key(key.public_key, key.version).raw, key.version, key.made_at) for key in file.receipt_keys]


def _key(public_key: str, version: int) -> ReceiptKey:
    try:
        return ReceiptKey.of(base64.b64decode(public_key, validate=True), version, None)
    except ValueError:
        raise InvalidInput(
            "a key of the trust file is no Ed25519 key", hint="`jitvault export-keys --out FILE` writes another one."
        ) from None
