"""What CRL, OCSP response and certificate prove of a serial number.

Pure: bytes and a time in, words out. Every function returns the sentence that is the evidence, or raises
NotConfirmed with the sentence that says what is missing. Only the issuer's own signature counts: a delegated
responder or an indirect CRL is another party's statement.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from jitvault.errors import NotConfirmed, ProbeUnusable, StillAccepted
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.x509_signature import UNREADABLE, hashes_of, is_of, is_signed, is_weak, key_of, spelled

# the largest difference of two clocks
SKEW = timedelta(seconds=60)
# these can be withdrawn, or withdraw an entry
_NOT_FOR_GOOD = (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl)


def issuer_of(pem: object) -> x509.Certificate:
    """Return the issuer of a probe's document. Raises ProbeUnusable."""
    if not isinstance(pem, str) or not pem:
        raise ProbeUnusable("the probe's document has no issuer, the certificate that signs the CRL")
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        found.public_key()
    except UNREADABLE:
        raise ProbeUnusable("the issuer in the probe's document is no certificate") from None
    return found


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn a parser's errors for untrusted bytes into NotConfirmed."""
    with warnings.catch_warnings():
        # warnings about oddities, such as a country of three letters
        warnings.simplefilter("ignore")
        try:
            yield
        except UNREADABLE:
            raise NotConfirmed(f"{what} cannot be read") from None


def current_crl(der: bytes, issuer: x509.Certificate, now: datetime) -> x509.CertificateRevocationList:
    """Return the CRL if it is the issuer's own, whole, and valid at `now`.

    Raises NotConfirmed, and ProbeUnusable for one that another issuer signed.
    """
    with reading("the CRL"):
        crl = x509.load_der_x509_crl(der)
        signed = crl.issuer == issuer.subject and crl.is_signature_valid(key_of(issuer))
        if not signed or is_weak(crl.signature_hash_algorithm):
            hint = "The probe's dsn is the mount's public URL, and its issuer the certificate that signs."
            raise ProbeUnusable("the CRL is not signed by the issuer", hint=hint)
        _check_scope(crl)
    mend = "; a worker that runs has it renewed in time, and reading the mount's crl/rotate does it once"
    _check_fresh("the CRL", crl.last_update_utc, crl.next_update_utc, now, mend)
    return crl


def on_crl(crl: x509.CertificateRevocationList, serial: int, now: datetime) -> str:
    """Return that `crl` lists `serial` for good. Raises NotConfirmed."""
    dated = rfc3339(crl.last_update_utc)
    with reading("the CRL"):
        entry = crl.get_revoked_certificate_by_serial_number(serial)
        if entry is None:
            raise StillAccepted(f"serial {spelled(serial)} is not on the CRL of {dated}")
        if _reason(entry) in _NOT_FOR_GOOD or entry.revocation_date_utc > now + SKEW:
            raise NotConfirmed(f"serial {spelled(serial)} is on the CRL of {dated}, but not for good")
    return f"serial {spelled(serial)} is on the CRL of {dated}"


def request_for(serial: int, issuer: x509.Certificate) -> bytes:
    """Return the OCSP request (DER) about `serial`."""
    name, key = hashes_of(issuer)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, hashes.SHA256())
    return builder.build().public_bytes(serialization.Encoding.DER)


def revoked_by_ocsp(der: bytes, serial: int, issuer: x509.Certificate, now: datetime) -> str:
    """Return the sentence that OCSP calls `serial` revoked for good.

    The response has to be current and the issuer's. Raises NotConfirmed.
    """
    single = current_answer(der, serial, issuer, now)
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        raise StillAccepted(f"OCSP calls serial {spelled(serial)} good")
    if single.certificate_status is not ocsp.OCSPCertStatus.REVOKED:
        raise NotConfirmed(f"OCSP calls serial {spelled(serial)} {single.certificate_status.name.lower()}")
    if single.revocation_reason in _NOT_FOR_GOOD:
        raise NotConfirmed(f"OCSP calls serial {spelled(serial)} revoked, but not for good")
    return f"OCSP calls it revoked as of {rfc3339(single.this_update_utc)}"


def check_off_crl(crl: x509.CertificateRevocationList, serial: int) -> None:
    """Raise NotConfirmed if `crl` lists `serial`."""
    with reading("the CRL"):
        if crl.get_revoked_certificate_by_serial_number(serial) is not None:
            raise NotConfirmed(f"serial {spelled(serial)} is on the CRL of {rfc3339(crl.last_update_utc)} already")


def check_good_by_ocsp(der: bytes, serial: int, issuer: x509.Certificate, now: datetime) -> None:
    """Raise NotConfirmed unless OCSP calls `serial` good.

    The response has to be current, and the issuer's.
    """
    status = current_answer(der, serial, issuer, now).certificate_status
    if status is not ocsp.OCSPCertStatus.GOOD:
        raise NotConfirmed(f"OCSP calls serial {spelled(serial)} {status.name.lower()}, not good")


def current_answer(der: bytes, serial: int, issuer: x509.Certificate, now: datetime) -> ocsp.OCSPSingleResponse:
    """Return what an OCSP response says about `serial`.

    The response has to be current, and signed by the issuer. Raises NotConfirmed.
    """
    with reading("the OCSP response"):
        answer = ocsp.load_der_ocsp_response(der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise NotConfirmed(f"OCSP answers {answer.response_status.name.lower()}")
        signed = is_signed(answer, issuer)
        singles = list(answer.responses)
    if not signed:
        raise NotConfirmed("the OCSP response is not signed by the issuer")
    if len(singles) != 1 or singles[0].serial_number != serial or not is_of(singles[0], issuer):
        raise NotConfirmed("the OCSP response is about another certificate")
    single = singles[0]
    _check_fresh("the OCSP response", single.this_update_utc, single.next_update_utc, now)
    return single


def expired(der: bytes, serial: int, issuer: x509.Certificate, now: datetime) -> str:
    """Return that certificate `serial` has expired. Raises NotConfirmed."""
    certificate = _certificate(der, serial, issuer)
    end = certificate.not_valid_after_utc
    if now <= end + SKEW:
        raise NotConfirmed(f"serial {spelled(serial)} is valid until {rfc3339(end)}")
    return f"the certificate with serial {spelled(serial)} expired at {rfc3339(end)}"


def check_valid(der: bytes, serial: int, issuer: x509.Certificate, now: datetime) -> None:
    """Raise NotConfirmed unless certificate `serial` is valid at `now`."""
    certificate = _certificate(der, serial, issuer)
    begin = certificate.not_valid_before_utc
    end = certificate.not_valid_after_utc
    if not begin - SKEW <= now < end:
        raise NotConfirmed(f"serial {spelled(serial)} is valid from {rfc3339(begin)} until {rfc3339(end)}, not now")


def _certificate(der: bytes, serial: int, issuer: x509.Certificate) -> x509.Certificate:
    """Return the certificate if it is the issuer's, with that serial number.

    Raises NotConfirmed.
    """
    with reading("the certificate"):
        certificate = x509.load_der_x509_certificate(der)
        try:
            certificate.verify_directly_issued_by(issuer)
        except (*UNREADABLE, InvalidSignature):
            raise NotConfirmed("the certificate is not the issuer's") from None
    if certificate.serial_number != serial:
        raise NotConfirmed("the certificate is another one")
    return certificate


def _check_fresh(what: str, begins: datetime, ends: datetime | None, now: datetime, mend: str = "") -> None:
    if begins > now + SKEW:
        raise NotConfirmed(f"{what} is of {rfc3339(begins)}, which is in the future")
    if ends is None:
        raise NotConfirmed(f"{what} does not say until when it holds")
    if ends <= now:
        raise NotConfirmed(f"{what} is stale: it held until {rfc3339(ends)}{mend}")


def _check_scope(crl: x509.CertificateRevocationList) -> None:
    """Raise NotConfirmed for a CRL that is not whole or of other scope.

    Its scope has to have certificates like ours.
    """
    for extension in crl.extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            raise NotConfirmed("the CRL is only a difference to another one")
        point = extension.value
        if isinstance(point, x509.IssuingDistributionPoint):
            others = point.only_contains_ca_certs or point.only_contains_attribute_certs
            if others or point.indirect_crl or point.only_some_reasons:
                raise NotConfirmed("the CRL is not about all of the issuer's certificates")
        elif extension.critical:
            raise NotConfirmed(f"the CRL has a critical extension that is not known ({extension.oid.dotted_string})")


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None
