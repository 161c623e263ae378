"""Which certificate an OCSP response is about, and whether its issuer itself signed it."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import SignatureAlgorithmOID

from jitvault.errors import NotConfirmed

_WEAK = (hashes.MD5, hashes.SHA1)
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
"""What the parsers raise for malformed bytes."""


def spelled(serial: int) -> str:
    """Return a serial number as Vault writes and takes it."""
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big").hex(":")


def key_of(issuer: x509.Certificate) -> CertificateIssuerPublicKeyTypes:
    """Return the key of an issuer. Raises NotConfirmed for a kind that cannot be verified."""
    key = issuer.public_key()
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key
    raise NotConfirmed("the issuer's key is of a kind that cannot be verified")


def is_weak(method: hashes.HashAlgorithm | None) -> bool:
    """Return whether signatures with this hash can be forged."""
    return isinstance(method, _WEAK)


def hashes_of(issuer: x509.Certificate) -> tuple[bytes, bytes]:
    """Return the SHA-256 of an issuer's name and of its key, as OCSP names it (RFC 6960)."""
    asked = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, hashes.SHA256()).build()
    return asked.issuer_name_hash, asked.issuer_key_hash


def is_of(single: ocsp.OCSPSingleResponse | ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    """Return whether a response is about a certificate of this issuer.

    The request uses SHA-256, so the response does as well.
    """
    named = (single.issuer_name_hash, single.issuer_key_hash)
    return isinstance(single.hash_algorithm, hashes.SHA256) and named == hashes_of(issuer)


def is_signed(answer: ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    """Return whether the issuer's key itself signed the response. Raises NotConfirmed."""
    key = key_of(issuer)
    data = answer.tbs_response_bytes
    signature = answer.signature
    try:
        if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, data)
            return True
        method = answer.signature_hash_algorithm
        if method is None or is_weak(method):
            return False
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(method))
        elif isinstance(key, rsa.RSAPublicKey):
            pss = answer.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
            how = padding.PSS(padding.MGF1(method), padding.PSS.AUTO) if pss else padding.PKCS1v15()
            key.verify(signature, data, how, method)
        else:
            return False
    except InvalidSignature:
        return False
    return True
