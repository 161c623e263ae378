"""Which entries of a cert auth method take a certificate as a login: by the key of its CA, and by its names."""

from __future__ import annotations

from typing import Any

import pytest
from authority import NOW, SERIAL, Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from jitvault.engines.pki.logins import takes, trusts

ROOT, OTHER = Authority.new(name="a root"), Authority.new(name="another CA")


def certificate(
    common: str, signer: Authority, key: Any = None, *, names: tuple[x509.GeneralName, ...] = (), unit: str = ""
) -> str:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    subject += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    builder = x509.CertificateBuilder().subject_name(x509.Name(subject)).issuer_name(signer.certificate.subject)
    builder = builder.public_key((key or OTHER.key).public_key()).serial_number(SERIAL)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW.replace(year=2027))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


ISSUER = Authority.new(name="an issuer")
CHAIN = [certificate("an issuer", ROOT, ISSUER.key)]
LEAF = certificate(
    "orders.svc.internal",
    ISSUER,
    names=(x509.DNSName("orders.svc.internal"), x509.RFC822Name("orders@example.org")),
    unit="services",
)


@pytest.mark.parametrize(
    ("trusted", "does"),
    [
        (CHAIN[0], True),
        (ISSUER.pem, True),
        (ROOT.pem, True),
        (OTHER.pem, False),
        (OTHER.pem + ROOT.pem, True),
        ("no certificate", True),
    ],
    ids=["the issuer", "its key in another certificate", "the CA above it", "another CA", "one of two", "unreadable"],
)
def test_an_entry_trusts_what_is_signed_by_the_key_of_its_ca_or_below_it(trusted: str, does: bool) -> None:
    assert trusts({"certificate": trusted}, CHAIN) is does


@pytest.mark.parametrize(
    ("demands", "does"),
    [
        ({}, True),
        ({"allowed_names": None, "allowed_dns_sans": []}, True),
        ({"allowed_common_names": ["*.svc.internal"]}, True),
        ({"allowed_common_names": ["ORDERS.svc.internal"]}, True),
        ({"allowed_common_names": ["worker.example.org"]}, False),
        ({"allowed_common_names": ["orders?svc.internal"]}, False),
        ({"allowed_names": ["*@example.org"]}, True),
        ({"allowed_dns_sans": ["worker.example.org", "orders.*"]}, True),
        ({"allowed_dns_sans": ["orders.*"], "allowed_organizational_units": ["people"]}, False),
        ({"allowed_organizational_units": ["services"]}, True),
        ({"allowed_email_sans": ["*@example.com"]}, False),
        ({"allowed_uri_sans": ["*"]}, False),
        ({"required_extensions": ["2.5.4.3:x"]}, True),
    ],
    ids=str,
)
def test_an_entry_takes_a_certificate_whose_names_meet_each_of_its_demands(demands: dict[str, Any], does: bool) -> None:
    assert takes(demands, LEAF) is does


def test_a_certificate_that_cannot_be_read_is_taken() -> None:
    assert takes({"allowed_common_names": ["x"]}, "no certificate")
