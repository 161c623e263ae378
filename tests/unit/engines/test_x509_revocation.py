"""What counts as the end of a certificate, on CRLs and OCSP responses that are really signed."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from authority import DER, HOUR, NOW, SERIAL, Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.engines.pki.x509_revocation import (
    SKEW,
    check_good_by_ocsp,
    check_off_crl,
    check_valid,
    current_crl,
    expired,
    issuer_of,
    on_crl,
    request_for,
    revoked_by_ocsp,
)
from jitvault.errors import NotConfirmed, StillAccepted
from jitvault.formats import x509_signature
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.x509_signature import spelled

CA = Authority.new()
# the same name, another key: what anybody can make
IMPOSTOR = Authority.new(name="a CA")
SERIALS = st.integers(1, 2**159 - 1)
Status = ocsp.OCSPCertStatus


def listed(der: bytes, serial: int = SERIAL, *, issuer: Authority = CA, now: Any = NOW) -> str:
    return on_crl(current_crl(der, issuer.certificate, now), serial, now)


def answered(der: bytes, serial: int = SERIAL, *, issuer: Authority = CA, now: Any = NOW) -> str:
    return revoked_by_ocsp(der, serial, issuer.certificate, now)


def over(certificate: x509.Certificate, serial: int = SERIAL, *, issuer: Authority = CA, now: Any = NOW) -> str:
    return expired(certificate.public_bytes(DER), serial, issuer.certificate, now)


def why(ask: Any, *arguments: Any, **how: Any) -> str:
    with pytest.raises(NotConfirmed) as caught:
        ask(*arguments, **how)
    return str(caught.value)


@pytest.mark.parametrize(("serial", "vaults"), [(0, "00"), (0xABC, "0a:bc"), (0x8000, "80:00"), (0x1F0000, "1f:00:00")])
def test_a_serial_number_is_spelled_as_vault_does(serial: int, vaults: str) -> None:
    assert spelled(serial) == vaults


# -- the CRL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_serial_on_the_issuers_current_crl_is_listed(kind: str) -> None:
    ca = Authority.new(kind)
    found = listed(ca.crl(), issuer=ca)
    assert found == f"serial {spelled(SERIAL)} is on the CRL of {rfc3339(NOW - HOUR)}"


@settings(max_examples=40, deadline=None)
@given(st.lists(SERIALS, unique=True, max_size=8), SERIALS)
def test_only_what_a_crl_lists_is_on_it(serials: list[int], other: int) -> None:
    der = CA.crl(serials)
    for serial in serials:
        assert spelled(serial) in listed(der, serial)
    if other not in serials:
        assert why(listed, der, other).startswith(f"serial {spelled(other)} is not on the CRL")


def test_a_crl_without_entries_lists_nothing() -> None:
    """What Vault serves once somebody has switched it off."""
    assert "is not on the CRL" in why(listed, CA.crl([]))


@pytest.mark.parametrize("forger", [IMPOSTOR, Authority.new(name="another CA")], ids=["same name", "another name"])
def test_a_crl_that_another_key_signed_is_no_evidence(forger: Authority) -> None:
    assert why(listed, forger.crl()) == "the CRL is not signed by the issuer"


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_weak_signature_is_none(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here signs with SHA-1 any more, so another hash is the weak one."""
    monkeypatch.setattr(x509_signature, "_WEAK", (hashes.SHA384,))
    ca = Authority.new(kind)
    assert "not signed by the issuer" in why(listed, ca.crl(method=hashes.SHA384()), issuer=ca)
    assert "not signed by the issuer" in why(answered, ca.ocsp(method=hashes.SHA384()), issuer=ca)
    assert listed(ca.crl(), issuer=ca)
    assert answered(ca.ocsp(), issuer=ca)


def test_a_crl_of_another_issuer_with_the_same_key_is_no_evidence() -> None:
    other = Authority.new(name="another CA", key=CA.key)
    assert why(listed, other.crl()) == "the CRL is not signed by the issuer"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"begins": NOW - 3 * HOUR, "ends": NOW - HOUR, "at": NOW - 3 * HOUR}, "is stale"),
        ({"begins": NOW - HOUR, "ends": NOW}, "is stale"),
        ({"begins": NOW + 2 * SKEW, "ends": NOW + HOUR}, "in the future"),
    ],
    ids=["over", "just over", "not begun"],
)
def test_a_crl_that_does_not_hold_now_is_no_evidence(how: dict[str, Any], says: str) -> None:
    assert says in why(listed, CA.crl(**how))


def test_two_clocks_may_be_a_little_apart() -> None:
    assert listed(CA.crl(begins=NOW + SKEW, at=NOW + SKEW))


def test_an_entry_of_a_time_that_is_to_come_is_no_evidence() -> None:
    assert "not for good" in why(listed, CA.crl(at=NOW + 2 * SKEW))


@pytest.mark.parametrize("reason", [x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl], ids=str)
def test_an_entry_that_can_be_taken_back_is_no_evidence(reason: x509.ReasonFlags) -> None:
    assert "not for good" in why(listed, CA.crl(reason=reason))


def test_any_other_reason_is_for_good() -> None:
    assert listed(CA.crl(reason=x509.ReasonFlags.superseded))


def _scope(**how: Any) -> tuple[x509.ExtensionType, bool]:
    point = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**point, **how}), True


@pytest.mark.parametrize(
    "extension",
    [
        (x509.DeltaCRLIndicator(3), True),
        _scope(only_contains_ca_certs=True),
        _scope(only_contains_attribute_certs=True),
        _scope(indirect_crl=True),
        _scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
    ],
    ids=["delta", "CAs only", "attributes only", "indirect", "some reasons", "unknown and critical"],
)
def test_a_crl_that_is_not_all_about_this_issuer_is_no_evidence(extension: tuple[x509.ExtensionType, bool]) -> None:
    assert why(listed, CA.crl(extensions=[extension])).startswith("the CRL ")


@pytest.mark.parametrize(
    "extension",
    [
        _scope(only_contains_user_certs=True),
        (x509.CRLNumber(7), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),
    ],
    ids=["users only", "its number", "unknown"],
)
def test_a_crl_with_harmless_extensions_is_evidence(extension: tuple[x509.ExtensionType, bool]) -> None:
    assert listed(CA.crl(extensions=[extension]))


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x03\x02\x01\x01", b"<html>", CA.crl()[:-1], CA.ocsp()], ids=range(6))
def test_what_is_no_crl_is_no_evidence(der: bytes) -> None:
    assert why(listed, der) == "the CRL cannot be read"


# -- OCSP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_current_answer_of_the_issuer_calls_it_revoked(kind: str) -> None:
    ca = Authority.new(kind)
    assert answered(ca.ocsp(), issuer=ca) == f"OCSP calls it revoked as of {rfc3339(NOW - HOUR)}"


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_the_question_is_about_the_serial_at_this_issuer(kind: str) -> None:
    ca = Authority.new(kind)
    asked = ocsp.load_der_ocsp_request(request_for(SERIAL, ca.certificate))
    own = ocsp.OCSPRequestBuilder().add_certificate(ca.leaf(), ca.certificate, hashes.SHA256()).build()
    assert asked.public_bytes(DER) == own.public_bytes(DER)


@pytest.mark.parametrize("status", [Status.GOOD, Status.UNKNOWN], ids=str)
def test_good_and_unknown_are_no_evidence(status: Status) -> None:
    assert why(answered, CA.ocsp(status=status)) == f"OCSP calls serial {spelled(SERIAL)} {status.name.lower()}"


@pytest.mark.parametrize("status", [s for s in ocsp.OCSPResponseStatus if s.value], ids=str)
def test_an_error_is_no_evidence(status: ocsp.OCSPResponseStatus) -> None:
    der = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(DER)
    assert why(answered, der) == f"OCSP answers {status.name.lower()}"


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_an_answer_that_another_key_signed_is_no_evidence(kind: str) -> None:
    ca = Authority.new(kind)
    forged = ca.ocsp(signer=Authority.new(kind))
    assert why(answered, forged, issuer=ca) == "the OCSP response is not signed by the issuer"
    other = Authority.new("rsa" if kind != "rsa" else "ec")
    assert "OCSP response" in why(answered, ca.ocsp(signer=other), issuer=ca)


def test_a_delegated_responder_is_somebody_else() -> None:
    """Its certificate is in the answer and signed by the issuer; whoever may ask for one could make an end of all."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a responder")])
    purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(CA.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(7).not_valid_before(NOW - HOUR)
    delegate = builder.not_valid_after(NOW + HOUR).add_extension(purpose, critical=False).sign(CA.key, CA.method)
    answer = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            CA.leaf(), CA.certificate, hashes.SHA256(), Status.REVOKED, NOW - HOUR, NOW + HOUR, NOW - HOUR, None
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, delegate)
        .certificates([delegate])
        .sign(key, hashes.SHA256())
    )
    assert why(answered, answer.public_bytes(DER)) == "the OCSP response is not signed by the issuer"


@pytest.mark.parametrize(
    "der",
    [CA.ocsp(SERIAL + 1), CA.ocsp(about=IMPOSTOR.certificate), CA.ocsp(asked_with=hashes.SHA1())],
    ids=["another serial", "another issuer's", "another hash"],
)
def test_an_answer_about_something_else_is_no_evidence(der: bytes) -> None:
    assert why(answered, der) == "the OCSP response is about another certificate"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"ends": NOW}, "is stale"),
        ({"ends": None}, "does not say until when"),
        ({"begins": NOW + 2 * SKEW}, "in the future"),
    ],
    ids=["just over", "without an end", "not begun"],
)
def test_an_answer_that_does_not_hold_now_is_no_evidence(how: dict[str, Any], says: str) -> None:
    assert says in why(answered, CA.ocsp(**how))


def test_an_answer_that_can_be_taken_back_is_no_evidence() -> None:
    assert "not for good" in why(answered, CA.ocsp(reason=x509.ReasonFlags.certificate_hold))


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"<html>", CA.ocsp()[:-1], CA.crl()], ids=range(5))
def test_what_is_no_answer_is_no_evidence(der: bytes) -> None:
    assert why(answered, der) == "the OCSP response cannot be read"


# -- what nobody may change ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_never_makes_evidence_out_of_nothing(data: st.DataObject) -> None:
    """What says that it is not revoked never says that it is, and no other error comes out, whatever is changed."""
    der = data.draw(st.sampled_from([_GOOD, _EMPTY]))
    at = data.draw(st.integers(0, len(der) - 1))
    changed = der[:at] + bytes([der[at] ^ data.draw(st.integers(1, 255))]) + der[at + 1 :]
    with contextlib.suppress(NotConfirmed):
        raise AssertionError(listed(changed))
    with contextlib.suppress(NotConfirmed):
        raise AssertionError(answered(changed))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_changes_nothing_or_takes_the_evidence_away(data: st.DataObject) -> None:
    der, ask = data.draw(st.sampled_from([(_LISTED, listed), (_REVOKED, answered)]))
    at = data.draw(st.integers(0, len(der) - 1))
    changed = der[:at] + bytes([der[at] ^ data.draw(st.integers(1, 255))]) + der[at + 1 :]
    with contextlib.suppress(NotConfirmed):
        assert ask(changed) == ask(der)


_GOOD, _EMPTY = CA.ocsp(status=Status.GOOD), CA.crl([])
_REVOKED, _LISTED = CA.ocsp(), CA.crl()


# -- its own time ------------------------------------------------------------------------------------------------


def test_a_certificate_whose_time_is_over_says_so_itself() -> None:
    end = NOW - SKEW - timedelta(seconds=1)
    assert over(CA.leaf(ends=end)) == f"the certificate with serial {spelled(SERIAL)} expired at {rfc3339(end)}"


@pytest.mark.parametrize("end", [NOW + HOUR, NOW, NOW - SKEW], ids=["lives", "just over", "over by one clock"])
def test_a_certificate_that_may_still_be_taken_is_not_over(end: Any) -> None:
    assert "is valid until" in why(over, CA.leaf(ends=end))


def test_another_certificate_that_is_over_says_nothing() -> None:
    assert "is another one" in why(over, CA.leaf(SERIAL + 1, ends=NOW - HOUR))
    assert "is not the issuer's" in why(over, IMPOSTOR.leaf(ends=NOW - HOUR))
    assert "cannot be read" in why(expired, b"<html>", SERIAL, CA.certificate, NOW)


# -- the issuer ----------------------------------------------------------------------------------------------------


def test_the_issuer_is_read_from_pem() -> None:
    assert issuer_of(CA.pem) == CA.certificate


@pytest.mark.parametrize("pem", [None, "", 7, "-----BEGIN CERTIFICATE-----", CA.pem[:200]], ids=range(5))
def test_without_an_issuer_nothing_is_verified(pem: object) -> None:
    assert "the probe's document" in why(issuer_of, pem)


# -- before its end ------------------------------------------------------------------------------------------


def test_the_issuers_own_good_word_is_more_than_silence() -> None:
    for ask, der in ((listed, CA.crl([])), (answered, CA.ocsp(status=Status.GOOD))):
        with pytest.raises(StillAccepted):
            ask(der)


@pytest.mark.parametrize(
    ("ask", "der"),
    [
        (listed, IMPOSTOR.crl([])),
        (listed, CA.crl([], ends=NOW)),
        (listed, CA.crl(reason=x509.ReasonFlags.certificate_hold)),
        (answered, CA.ocsp(status=Status.UNKNOWN)),
        (answered, CA.ocsp(status=Status.GOOD, ends=NOW)),
        (answered, CA.ocsp(status=Status.GOOD, signer=IMPOSTOR)),
        (answered, b""),
    ],
    ids=range(7),
)
def test_what_is_no_evidence_is_no_good_word_either(ask: Any, der: bytes) -> None:
    with pytest.raises(NotConfirmed) as caught:
        ask(der)
    assert not isinstance(caught.value, StillAccepted)


def good(der: bytes, serial: int = SERIAL) -> None:
    check_good_by_ocsp(der, serial, CA.certificate, NOW)


def test_only_a_current_answer_of_the_issuer_calls_it_good() -> None:
    good(CA.ocsp(status=Status.GOOD))
    assert why(good, CA.ocsp(status=Status.GOOD), SERIAL + 1) == "the OCSP response is about another certificate"
    assert why(good, CA.ocsp(status=Status.GOOD, signer=IMPOSTOR)) == "the OCSP response is not signed by the issuer"
    assert "is stale" in why(good, CA.ocsp(status=Status.GOOD, ends=NOW))
    for status in (Status.REVOKED, Status.UNKNOWN):
        assert (
            why(good, CA.ocsp(status=status)) == f"OCSP calls serial {spelled(SERIAL)} {status.name.lower()}, not good"
        )


def test_whatever_the_crl_lists_is_not_off_it() -> None:
    def off(der: bytes) -> None:
        check_off_crl(current_crl(der, CA.certificate, NOW), SERIAL)

    off(CA.crl([SERIAL + 1]))
    for der in (CA.crl(), CA.crl(reason=x509.ReasonFlags.certificate_hold)):
        assert why(off, der).startswith(f"serial {spelled(SERIAL)} is on the CRL of ")


def test_only_the_issuers_certificate_in_its_time_is_valid() -> None:
    def valid(certificate: x509.Certificate, serial: int = SERIAL) -> None:
        check_valid(certificate.public_bytes(DER), serial, CA.certificate, NOW)

    valid(CA.leaf())
    assert why(valid, CA.leaf(), SERIAL + 1) == "the certificate is another one"
    assert why(valid, IMPOSTOR.leaf()) == "the certificate is not the issuer's"
    assert why(valid, CA.leaf(ends=NOW)).endswith(", not now")
