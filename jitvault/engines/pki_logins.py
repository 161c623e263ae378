"""Whether an entry of Vault's cert auth method takes certificates of an issuer as a login. Pure: what was read, in.

Such a login gives a token that a revocation of the certificate does not end, and a new one as long as the method has
no CRL of that issuer. An entry takes a certificate when its CA stands in the certificate's chain or signed its top; a
CA with the same key under another certificate (a cross-signed one, a renewed one) does the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
_SANS: Mapping[str, type[x509.DNSName] | type[x509.RFC822Name] | type[x509.UniformResourceIdentifier]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}
# what an entry can demand, and the names of a certificate of which one has to match
_DEMANDS: Mapping[str, tuple[str, ...]] = {
    "allowed_names": ("common", "dns", "email"),
    "allowed_common_names": ("common",),
    "allowed_dns_sans": ("dns",),
    "allowed_email_sans": ("email",),
    "allowed_uri_sans": ("uri",),
    "allowed_organizational_units": ("unit",),
}


def trusts(entry: Mapping[str, Any], chain: Sequence[str]) -> bool:
    """Whether an entry trusts what the issuer signs whose certificates (PEM) are `chain`, its own and those above it.

    An entry that cannot be read trusts it: nobody can say that it does not.
    """
    try:
        issuers = [one for pem in chain for one in _certificates(pem)]
        trusted = list(_certificates(str(entry.get("certificate") or "")))
        keys = {_key(one) for one in issuers}
        return any(_key(one) in keys or any(_signed(one, issuer) for issuer in issuers) for one in trusted)
    except _UNREADABLE:
        return True


def takes(entry: Mapping[str, Any], certificate: str) -> bool:
    """Whether an entry that trusts its issuer takes a certificate (PEM) by its names.

    What else an entry can demand, such as extensions, is not looked at: it may be met.
    """
    try:
        names = _names(certificate)
    except _UNREADABLE:
        return True
    return all(
        _met(entry.get(demand) or (), [name for kind in kinds for name in names[kind]])
        for demand, kinds in _DEMANDS.items()
    )


def _met(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Whether one of the names matches one of the patterns; in those only * has a meaning, in Vault as here."""
    plain = [pattern.lower().replace("[", "[[]").replace("?", "[?]") for pattern in patterns]
    return not plain or any(fnmatchcase(name.lower(), pattern) for name in names for pattern in plain)


def _names(pem: str) -> dict[str, list[str]]:
    """The names of a certificate by their kind."""
    certificate = next(_certificates(pem))
    subject = certificate.subject
    found = {
        "common": [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)],
        "unit": [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)],
    }
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {**found, **{kind: [] for kind in _SANS}}
    return {**found, **{kind: [str(name) for name in sans.get_values_for_type(of)] for kind, of in _SANS.items()}}


def _certificates(pem: str) -> Iterator[x509.Certificate]:
    """The certificates in a text. Raises ValueError where there is none."""
    with warnings.catch_warnings():
        # of oddities, such as a country of three letters
        warnings.simplefilter("ignore")
        yield from x509.load_pem_x509_certificates(pem.encode())


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True
