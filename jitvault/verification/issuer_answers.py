"""Whether what a certificate's issuer signed shows that a lease's certificate is over.

1. The bytes have the digest that stands beside them, and are what the evidence calls them.
2. They are about the serial number that the evidence names; that it is the lease's own, its issue line alone shows.
3. An OCSP response calls it revoked for good, as of the lease's end or later; a certificate was over before the seal.
4. An issuer that the auditor brings signed them.

The certificate of an issuer in the receipt would be the worker's word, so there is none: without the auditor's, the
answer is attested. Only the issuer's own signature counts, and not that of a responder that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import ocsp

from jitvault.documents.receipt import Receipt
from jitvault.errors import NotConfirmed
from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.x509_signature import UNREADABLE, is_of, is_signed, spelled
from jitvault.model.evidence import SignedAnswer, SignedForm
from jitvault.model.proof_check import TARGET_N
from jitvault.verification.evidence import time_of
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import Credential, credentials

_NOT_FOR_GOOD = (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl)


@dataclass(slots=True)
class IssuerAnswers:
    """What issuers are said to have signed of certificates, and what contradicts that.

    `proven` are the leases whose issuer, which the auditor brings, signed it. `unproven` are the places of all others.
    """

    proven: set[str] = field(default_factory=set)
    unproven: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_answers(receipt: Receipt, issuers: Sequence[x509.Certificate]) -> IssuerAnswers:
    """Return what the issuers of certificates signed about the receipt's leases."""
    answers = IssuerAnswers()
    for credential in credentials(receipt):
        answer = credential.evidence(TARGET_N)
        if not isinstance(answer, SignedAnswer):
            continue
        at = credential.at(TARGET_N, "evidence")
        why, *fields = _contradiction(answer, credential, receipt.sealed_at, issuers)
        if why:
            answers.problems.append(Problem(why, tuple(f"{at}/{name}" for name in fields)))
        if not why and _is_signed(answer, issuers):
            answers.proven.add(credential.lease_id)
        else:
            answers.unproven.append(at)
    return answers


def _contradiction(
    answer: SignedAnswer, credential: Credential, sealed_at: datetime, issuers: Sequence[x509.Certificate]
) -> tuple[str, ...]:
    """Return why what was signed does not show the end, and the fields that say so.

    The text is empty where nothing speaks against it.
    """
    if answer.engine != "pki" or credential.is_token:
        return "only a certificate has an issuer that signs an answer", "engine"
    if answer.der is None:
        return ("",)
    # 1
    if sha256_hex(answer.der) != answer.sha256:
        return "what the issuer signed has another digest", "der", "sha256"
    try:
        serial, why = _read(answer.form, answer.der, credential, sealed_at)
    except UNREADABLE:
        return f"what the issuer signed cannot be read as {answer.form}", "form", "der"
    # 2
    if spelled(serial) != answer.question:
        return "what the issuer signed is about another certificate", "question", "der"
    # 4
    if not why and _is_signed(answer, issuers) is False:
        return "the issuer that it names did not sign it", "der"
    return why, "der"


def _read(form: SignedForm, der: bytes, credential: Credential, sealed_at: datetime) -> tuple[int, str]:
    """Return whose serial number the bytes show, and why they do not show its end. Raises UNREADABLE."""
    # 3
    if form is SignedForm.CERTIFICATE:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.not_valid_after_utc >= sealed_at:
            return certificate.serial_number, "the certificate was valid when the task was sealed"
        return certificate.serial_number, ""
    (single,) = ocsp.load_der_ocsp_response(der).responses
    if single.certificate_status is not ocsp.OCSPCertStatus.REVOKED or single.revocation_reason in _NOT_FOR_GOOD:
        return single.serial_number, "the OCSP response does not call it revoked for good"
    for n in (1, 2):
        at = time_of(credential.evidence(n))
        # the response has whole seconds
        if at is not None and single.this_update_utc < at.replace(microsecond=0):
            return single.serial_number, "the OCSP response is older than the certificate's end"
    return single.serial_number, ""


def _is_signed(answer: SignedAnswer, issuers: Sequence[x509.Certificate]) -> bool | None:
    """Return whether the issuer that the bytes name signed them; None where no such issuer is brought."""
    for issuer in issuers:
        with suppress(InvalidSignature, NotConfirmed, *UNREADABLE):
            if answer.form is SignedForm.CERTIFICATE:
                x509.load_der_x509_certificate(answer.der or b"").verify_directly_issued_by(issuer)
                return True
            response = ocsp.load_der_ocsp_response(answer.der or b"")
            if is_of(response, issuer):
                return is_signed(response, issuer)
    return None
