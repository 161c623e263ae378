"""A CA without a server: it signs CRLs, OCSP responses and certificates, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DER = serialization.Encoding.DER
SERIAL = 0x2429A738C3B8B0D8E7D0582D281596BD031EE269


def key_of(kind: str) -> Any:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Authority:
    """A key with its certificate; `method` is the hash that it signs with (none for Ed25519)."""

    key: Any
    certificate: x509.Certificate
    method: hashes.HashAlgorithm | None

    @classmethod
    def new(cls, kind: str = "ec", name: str = "a CA", key: Any = None) -> Authority:
        key = key or key_of(kind)
        method = None if kind == "ed25519" else hashes.SHA256()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _certificate(subject, subject, key.public_key(), 1, NOW - HOUR, NOW + 9 * HOUR)
        return cls(key, builder.sign(key, method), method)

    def crl(
        self,
        serials: Sequence[int] = (SERIAL,),
        *,
        begins: datetime = NOW - HOUR,
        ends: datetime = NOW + HOUR,
        at: datetime = NOW - HOUR,
        reason: x509.ReasonFlags | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        method: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject, begins, ends)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, at)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, method or self.method).public_bytes(DER)

    def ocsp(
        self,
        serial: int = SERIAL,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.REVOKED,
        begins: datetime = NOW - HOUR,
        ends: datetime | None = NOW + HOUR,
        reason: x509.ReasonFlags | None = None,
        about: x509.Certificate | None = None,
        signer: Authority | None = None,
        method: hashes.HashAlgorithm | None = None,
        asked_with: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """`about` is whose certificate the response is about, `signer` who signs instead."""
        issuer, signer = about or self.certificate, signer or self
        leaf = self.leaf(serial)
        revoked = begins if status is ocsp.OCSPCertStatus.REVOKED else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            leaf, issuer, asked_with or hashes.SHA256(), status, begins, ends, revoked, reason
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, signer.certificate)
        return builder.sign(signer.key, method or signer.method).public_bytes(DER)

    def leaf(self, serial: int = SERIAL, *, ends: datetime = NOW + HOUR) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders.svc.internal")])
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        builder = _certificate(subject, self.certificate.subject, public, serial, NOW - 2 * HOUR, ends)
        return builder.sign(self.key, self.method)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: Any, serial: int, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(serial).not_valid_before(begins).not_valid_after(ends)
