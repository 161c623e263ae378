"""What the auditor knows from elsewhere, besides the receipts' keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from jitvault.documents.trust import TrustFile
from jitvault.errors import InvalidInput
from jitvault.formats.x509_signature import UNREADABLE
from jitvault.verification.keys import ReceiptKey


@dataclass(frozen=True, slots=True)
class Trust:
    """The ids of jitvault's namespace and of the worker's entities, and the public keys of those who sign.

    They are empty where the auditor gave none. `signers` has a key by entity and version. `issuers` are those of
    certificates.
    """

    namespace_id: str = ""
    workers: frozenset[str] = frozenset()
    signers: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    issuers: tuple[x509.Certificate, ...] = ()


NO_TRUST = Trust()


def trust_in(file: TrustFile) -> Trust:
    """Return what a trust file says of namespace, worker, signers and issuers. Raises InvalidInput."""
    signers = {(one.entity, one.version): _key(one.public_key, one.version).raw for one in file.signers}
    workers = frozenset(worker.entity for worker in file.workers)
    return Trust(file.namespace.id, workers, signers, tuple(map(_issuer, file.issuers)))


def keys_in(file: TrustFile) -> list[ReceiptKey]:
    """Return the receipts' keys of a trust file. Raises InvalidInput."""
    return [ReceiptKey(_key(key.public_key, key.version).raw, key.version, key.made_at) for key in file.receipt_keys]


def _issuer(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except UNREADABLE:
        raise InvalidInput(
            "an issuer of the trust file is no certificate", hint="`jitvault export-keys --pki MOUNT` writes them."
        ) from None


def _key(public_key: str, version: int) -> ReceiptKey:
    try:
        return ReceiptKey.of(base64.b64decode(public_key, validate=True), version, None)
    except ValueError:
        raise InvalidInput(
            "a key of the trust file is no Ed25519 key", hint="`jitvault export-keys --out FILE` writes another one."
        ) from None
