"""What makes a certificate more than was asked for, on certificates that are really signed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from authority import DER, NOW, Authority, key_of
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.engines.pki.certificate import as_asked
from jitvault.errors import NotConfirmed

CA = Authority.new()
KEY = key_of("ec").public_key()
ASKED = {"common_name": "orders.svc.internal", "ttl": "15m"}
ROLE = {"organization": ["Example"], "ou": []}
END = NOW + timedelta(minutes=15)
CN = x509.NameAttribute(NameOID.COMMON_NAME, "orders.svc.internal")
DNS = x509.DNSName("orders.svc.internal")
_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_ALL_USES = (*_USES, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
Extension = tuple[x509.ExtensionType, bool]


def uses(*names: str) -> Extension:
    return x509.KeyUsage(**{use: use in names for use in _ALL_USES}), True


def purposes(*oids: x509.ObjectIdentifier) -> Extension:
    return x509.ExtendedKeyUsage(oids), False


def named(*names: x509.GeneralName) -> Extension:
    return x509.SubjectAlternativeName(names), False


def unknown(oid: str, *, critical: bool = False) -> Extension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00"), critical


SIGNS, SERVES = uses("digital_signature", "key_agreement"), purposes(Usage.SERVER_AUTH, Usage.CLIENT_AUTH)


def issued(*extensions: Extension, subject: Sequence[x509.NameAttribute] = (CN,), ends: Any = END) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(CA.certificate.subject)
        .public_key(KEY)
        .serial_number(7)
        .not_valid_before(NOW - timedelta(seconds=30))
        .not_valid_after(ends)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(CA.key, CA.method)


def judged(certificate: x509.Certificate, asked: dict[str, str] = ASKED) -> str:
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return as_asked(pem, asked, ROLE, until=END)


def test_what_was_asked_for_is_described() -> None:
    said = judged(issued(SIGNS, SERVES, named(DNS), (x509.BasicConstraints(ca=False, path_length=None), True)))
    assert said == (
        "it is an end entity's, for 'CN=orders.svc.internal' and no other name, and ends at 2026-11-24T12:15:00Z"
    )


MORE: dict[str, tuple[Sequence[Extension], str]] = {
    "an authority": ([SIGNS, SERVES, (x509.BasicConstraints(ca=True, path_length=0), True)], "certificate authority"),
    "signs certificates": ([uses("digital_signature", "key_cert_sign"), SERVES], "may sign certificates or CRLs"),
    "signs CRLs": ([uses("crl_sign"), SERVES], "may sign certificates or CRLs"),
    "any use of its key": ([SERVES], "does not say what its key may do"),
    "for whatever it is": ([SIGNS], "does not say what it is for"),
    "answers for the issuer": ([SIGNS, purposes(Usage.CLIENT_AUTH, Usage.OCSP_SIGNING)], "it is for OCSP answers"),
    "for anything": ([SIGNS, purposes(Usage.ANY_EXTENDED_KEY_USAGE)], "it is for anything"),
    "time stamps": ([SIGNS, purposes(Usage.TIME_STAMPING)], "it is for time stamps"),
    "an enrolment agent": ([SIGNS, purposes(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.1"))], "it is for more"),
    "is not to be looked up": ([SIGNS, SERVES, (x509.OCSPNoCheck(), False)], "1.3.6.1.5.5.7.48.1.5, which is not"),
    "makes proxies": ([SIGNS, SERVES, unknown("1.3.6.1.5.5.7.1.14", critical=True)], "1.3.6.1.5.5.7.1.14, which"),
    "delegates": ([SIGNS, SERVES, unknown("1.3.6.1.4.1.44363.44")], "1.3.6.1.4.1.44363.44, which"),
    "another host": ([SIGNS, SERVES, named(DNS, x509.DNSName("billing.svc.internal"))], "DNSName billing."),
    "all hosts": ([SIGNS, SERVES, named(x509.DNSName("*.svc.internal"))], "DNSName *.svc.internal"),
    "an address": ([SIGNS, SERVES, named(DNS, x509.IPAddress(ip_address("10.0.0.1")))], "IPAddress 10.0.0.1"),
    "a URI": ([SIGNS, SERVES, named(x509.UniformResourceIdentifier("spiffe://x/y"))], "spiffe://x/y"),
    "a person": ([SIGNS, SERVES, named(x509.RFC822Name("a@example.org"))], "RFC822Name a@example.org"),
    "a Windows login": (
        [SIGNS, SERVES, named(x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"))],
        "OtherName",
    ),
    "a directory's entry": ([SIGNS, SERVES, named(x509.DirectoryName(x509.Name([CN])))], "DirectoryName"),
    "a number": ([SIGNS, SERVES, named(x509.RegisteredID(x509.ObjectIdentifier("1.2.3")))], "RegisteredID"),
}


@pytest.mark.parametrize(("extensions", "says"), MORE.values(), ids=MORE)
def test_more_than_was_asked_for_is_refused(extensions: Sequence[Extension], says: str) -> None:
    with pytest.raises(NotConfirmed, match="more than was asked for") as refused:
        judged(issued(*extensions))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "subject",
    [
        [x509.NameAttribute(NameOID.COMMON_NAME, "billing.svc.internal")],
        [CN, x509.NameAttribute(NameOID.COMMON_NAME, "billing.svc.internal")],
        [CN, x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")],
        [CN, x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org")],
        [CN, x509.NameAttribute(NameOID.USER_ID, "root")],
    ],
    ids=["another name", "two names", "an organization that is not the role's", "an address", "a login"],
)
def test_a_subject_that_nobody_asked_for_is_refused(subject: list[x509.NameAttribute]) -> None:
    with pytest.raises(NotConfirmed, match="its subject has"):
        judged(issued(SIGNS, SERVES, subject=subject))


def test_what_the_role_adds_to_a_subject_is_the_administrators() -> None:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")
    assert "O=Example" in judged(issued(SIGNS, SERVES, subject=[organization, CN]))


def test_an_end_that_is_later_is_refused_to_the_second() -> None:
    judged(issued(SIGNS, SERVES))
    with pytest.raises(NotConfirmed, match="it ends at 2026-11-24T12:15:01"):
        judged(issued(SIGNS, SERVES, ends=END + timedelta(seconds=1)))


def test_each_format_that_vault_gives_is_read() -> None:
    found = issued(SIGNS, SERVES)
    pem = found.public_bytes(serialization.Encoding.PEM).decode()
    key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
    said = judged(found)
    assert as_asked(base64.b64encode(found.public_bytes(DER)).decode(), ASKED, ROLE, until=END) == said
    assert as_asked(f"{key}{pem}\n{CA.pem}", ASKED, ROLE, until=END) == said


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----", "AAAA", "no certificate"], ids=repr)
def test_what_is_no_certificate_is_not_as_asked(text: object) -> None:
    with pytest.raises(NotConfirmed, match="cannot be read"):
        as_asked(text, ASKED, ROLE, until=END)


LABELS = st.sampled_from(["a.example", "b.example", "c.example", "d.example"])


@settings(max_examples=60, deadline=None)
@given(st.sets(LABELS, min_size=1), st.lists(LABELS, min_size=1, unique=True))
def test_every_name_was_asked_for_or_it_is_refused(asked: set[str], names: list[str]) -> None:
    data = {"alt_names": ",".join(sorted(asked)), "exclude_cn_from_sans": "true"}
    found = issued(SIGNS, SERVES, named(*map(x509.DNSName, names)), subject=())
    if set(names) <= asked:
        judged(found, data)
    else:
        with pytest.raises(NotConfirmed):
            judged(found, data)
