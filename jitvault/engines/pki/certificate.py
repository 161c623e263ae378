"""Whether an issued certificate is no more than what was requested.

Pure: a certificate in, a sentence out. The lists here are of what is allowed, not of what is refused: with an
extension or a usage that is not known here, a certificate may let its holder vouch for others (OCSP, proxy
certificates, delegated credentials) or keep verifiers from looking (`ocsp-nocheck`). Whatever a certificate does
not restrict counts as unrestricted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from jitvault.engines.pki.x509_revocation import reading
from jitvault.errors import NotConfirmed
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.strict_yaml import shown

USAGES = {
    "1.3.6.1.5.5.7.3.1": "ServerAuth",
    "1.3.6.1.5.5.7.3.2": "ClientAuth",
    "1.3.6.1.5.5.7.3.3": "CodeSigning",
    "1.3.6.1.5.5.7.3.4": "EmailProtection",
    "1.3.6.1.5.5.7.3.5": "IPSECEndSystem",
    "1.3.6.1.5.5.7.3.6": "IPSECTunnel",
    "1.3.6.1.5.5.7.3.7": "IPSECUser",
    "1.3.6.1.5.5.7.3.17": "IPSECIKE",
}
"""The extended key usages that are allowed, by their number, with Vault's names for them."""
_EXTENSIONS = frozenset(
    {
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.TLS_FEATURE,
    }
)
# the parts of the subject that a request names, and those that the role adds, which are in the snapshot
_BY_REQUEST = {
    NameOID.COMMON_NAME: "common_name",
    NameOID.SERIAL_NUMBER: "serial_number",
    NameOID.USER_ID: "user_ids",
}
_BY_ROLE = {
    NameOID.ORGANIZATION_NAME: "organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "ou",
    NameOID.COUNTRY_NAME: "country",
    NameOID.LOCALITY_NAME: "locality",
    NameOID.STATE_OR_PROVINCE_NAME: "province",
    NameOID.STREET_ADDRESS: "street_address",
    NameOID.POSTAL_CODE: "postal_code",
}
_VOUCHES = {
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anything",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP answers",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamps",
}
_ALT_NAMES = ("common_name", "alt_names", "ip_sans", "uri_sans")


def as_asked(text: object, asked: Mapping[str, str], role: Mapping[str, Any], *, until: datetime) -> str:
    """Describe the certificate in a sentence.

    `text` is the certificate as Vault gave it, `asked` what was sent, and `until` the end that it may have. Raises
    NotConfirmed with everything that is more than that.
    """
    with reading("the certificate that was issued"):
        certificate = _parsed(str(text))
        more = [*_powers(certificate), *_names(certificate, asked, role)]
        if certificate.not_valid_after_utc > until:
            more.append(f"it ends at {rfc3339(certificate.not_valid_after_utc)}, not by {rfc3339(until)}")
        subject = certificate.subject.rfc4514_string()
    if more:
        raise NotConfirmed(f"what was issued is more than was asked for: {'; '.join(more)}")
    return (
        f"it is an end entity's, for {shown(subject)} and no other name, and ends at "
        f"{rfc3339(certificate.not_valid_after_utc)}"
    )


def _parsed(text: str) -> x509.Certificate:
    """Parse a certificate in one of Vault's formats.

    It comes first in `pem` and `pem_bundle`, and is base64 in `der`.
    """
    if "-----BEGIN" in text:
        return x509.load_pem_x509_certificate(text.encode())
    return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))


def _powers(certificate: x509.Certificate) -> Iterator[str]:
    """Yield what its holder could do beyond being the one that it names."""
    if certificate.version is not x509.Version.v3:
        yield "it is of a version that cannot say that it is no authority"
    restricted = set()
    for extension in certificate.extensions:
        restricted.add(extension.oid)
        if extension.oid not in _EXTENSIONS:
            yield f"it has the extension {extension.oid.dotted_string}, which is not known here"
        match extension.value:
            case x509.BasicConstraints(ca=True):
                yield "it is a certificate authority's"
            case x509.KeyUsage() as usage:
                if usage.key_cert_sign or usage.crl_sign:
                    yield "its key may sign certificates or CRLs"
            case x509.ExtendedKeyUsage() as usages:
                others = [oid for oid in usages if oid.dotted_string not in USAGES]
                yield from (f"it is for {_VOUCHES.get(oid, 'more')} ({oid.dotted_string})" for oid in others)
    if ExtensionOID.KEY_USAGE not in restricted:
        yield "it does not say what its key may do (key_usage)"
    if ExtensionOID.EXTENDED_KEY_USAGE not in restricted:
        yield "it does not say what it is for (server_flag, client_flag, ext_key_usage)"


def _names(certificate: x509.Certificate, asked: Mapping[str, str], role: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that were not requested.

    The holder could use each of them.
    """
    for attribute in certificate.subject:
        if str(attribute.value) not in _subject_allowed(attribute.oid, asked, role):
            yield f"its subject has {shown(attribute.rfc4514_string())}"
    allowed = {name.casefold() for key in _ALT_NAMES for name in _split(asked.get(key))}
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            yield from (f"it has the name {shown(name)}" for name in _others(extension.value, allowed))


def _subject_allowed(oid: x509.ObjectIdentifier, asked: Mapping[str, str], role: Mapping[str, Any]) -> Iterable[str]:
    key = _BY_REQUEST.get(oid)
    if key == "user_ids":
        return _split(asked.get(key))
    if key:
        return [asked[key]] if key in asked else []
    found = role.get(_BY_ROLE.get(oid, "")) or ()
    return _split(found) if isinstance(found, str) else [str(each) for each in found]


def _others(names: x509.SubjectAlternativeName, allowed: set[str]) -> Iterator[str]:
    addresses = {str(address) for name in allowed if (address := _address(name))}
    for name in names:
        match name:
            case x509.DNSName() | x509.RFC822Name() | x509.UniformResourceIdentifier():
                taken = name.value.casefold() in allowed
            case x509.IPAddress():
                taken = str(name.value) in addresses
            case _:
                # a directory name, a number, a Kerberos principal: no template can request one
                taken = False
        if not taken:
            yield f"{type(name).__name__} {name.value}"


def _address(name: str) -> str:
    try:
        return str(ip_address(name))
    except ValueError:
        return ""


def _split(text: object) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()] if text else []
