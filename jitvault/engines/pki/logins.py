"""Whether Vault's cert auth method takes an issuer's certificates.

Pure: it judges what was read. Such a login gives a token that a revocation of the certificate does not end, and a
new one as long as the method has no CRL of that issuer. An entry takes a certificate if its CA is in the
certificate's chain or signed the top of that chain; a CA with that key under another certificate (a cross-signed
one, a renewed one) does so as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from jitvault.formats.x509_signature import UNREADABLE

_SANS: Mapping[str, type[x509.DNSName] | type[x509.RFC822Name] | type[x509.UniformResourceIdentifier]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}
# What an entry can demand, and the kinds of names of a certificate of which one has to match.
_DEMANDS: Mapping[str, tuple[str, ...]] = {
    "allowed_names": ("common", "dns", "email"),
    "allowed_common_names": ("common",),
    "allowed_dns_sans": ("dns",),
    "allowed_email_sans": ("email",),
    "allowed_uri_sans": ("uri",),
    "allowed_organizational_units": ("unit",),
}


def trusts(entry: Mapping[str, Any], chain: Sequence[str]) -> bool:
    """Return whether an entry trusts what the issuer signs.

    `chain` are the certificates (PEM) of the issuer and of those above it. An entry that cannot be read counts as
    trusting the issuer: nothing shows that it does not.
    """
    try:
        issuers = [certificate for pem in chain for certificate in _certificates(pem)]
        trusted = list(_certificates(str(entry.get("certificate") or "")))
        keys = {_key(issuer) for issuer in issuers}
        return any(_key(ca) in keys or any(_signed(ca, issuer) for issuer in issuers) for ca in trusted)
    except UNREADABLE:
        return True


def takes(entry: Mapping[str, Any], certificate: str) -> bool:
    """Return whether an entry takes a certificate (PEM) by its names.

    The entry trusts the certificate's issuer. Only the names count. Whatever else an entry can demand, such as
    extensions, is not checked: it may be met.
    """
    try:
        names = _names(certificate)
    except UNREADABLE:
        return True
    return all(
        _met(entry.get(demand) or (), [name for kind in kinds for name in names[kind]])
        for demand, kinds in _DEMANDS.items()
    )


def _met(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a name matches a pattern.

    Only * is special in a pattern, in Vault as here.
    """
    plain = [pattern.lower().replace("[", "[[]").replace("?", "[?]") for pattern in patterns]
    return not plain or any(fnmatchcase(name.lower(), pattern) for name in names for pattern in plain)


def _names(pem: str) -> dict[str, list[str]]:
    """Return the names of a certificate by their kind."""
    certificate = next(_certificates(pem))
    subject = certificate.subject
    found = {
        "common": [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)],
        "unit": [str(name.value) for name in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)],
    }
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {**found, **{kind: [] for kind in _SANS}}
    return {**found, **{kind: [str(name) for name in sans.get_values_for_type(of)] for kind, of in _SANS.items()}}


def _certificates(pem: str) -> Iterator[x509.Certificate]:
    """Yield the certificates in a text. Raises ValueError if there is none."""
    with warnings.catch_warnings():
        # warnings about oddities, such as a country of three letters
        warnings.simplefilter("ignore")
        yield from x509.load_pem_x509_certificates(pem.encode())


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True
