"""Whether what a certificate's issuer signed shows that a lease's certificate is over.

1. The bytes have the digest that stands beside them, and are what the evidence calls them.
2. They are about the serial number that the evidence names; that it is the lease's own shows its issue line alone.
3. An OCSP response calls it revoked for good, as of the lease's end or later; a certificate was over before the seal.
4. An issuer that the auditor brings signed them.

The certificate of an issuer in the receipt would be the worker's word, so there is none: without the auditor's, the
answer is attested. Only the issuer's own signature counts, and not that of a responder that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import ocsp

from jitvault.documents.receipt import Receipt
from jitvault.errors import NotConfirmed
from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.x509_signature import UNREADABLE, is_of, is_signed
from jitvault.model.evidence import SignedAnswer, SignedForm
from jitvault.model.proof_check import TARGET_N
from jitvault.verification.evidence import stated, time_of
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, Credential, credentials

_ENGINE = "pki"
_NOT_FOR_GOOD = (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl)


@dataclass(frozen=True, slots=True)
class IssuerAnswers:
    """What issuers are said to have signed of certificates, and what contradicts that.

    `proven` are the leases whose issuer, which the auditor brings, signed it. `unproven` are the places of all others.
    """

    proven: frozenset[str]
    unproven: tuple[str, ...]
    problems: tuple[Problem, ...]


def read_answers(receipt: Receipt, issuers: Sequence[x509.Certificate]) -> IssuerAnswers:
    """Return what the issuers of certificates signed about the receipt's leases."""
    proven: set[str] = set()
    unproven: list[str] = []
    problems: list[Problem] = []
    for credential in credentials(receipt):
        said = stated(credential.check(TARGET_N))
        if not isinstance(said, SignedAnswer):
            continue
        at = credential.at(TARGET_N, "evidence")
        found = list(_problems(said, credential, receipt.sealed_at, at))
        try:
            is_proven = not found and said.der is not None and _is_issuers(said.form, said.der, issuers)
        except InvalidSignature:
            found.append(Problem("the issuer that it names did not sign it", (f"{at}/der", f"{at}/sha256")))
            is_proven = False
        problems += found
        if is_proven:
            proven.add(credential.lease_id)
        else:
            unproven.append(at)
    return IssuerAnswers(frozenset(proven), tuple(unproven), tuple(problems))


def _problems(said: SignedAnswer, credential: Credential, sealed_at: datetime, at: str) -> Iterator[Problem]:
    if said.engine != _ENGINE or not credential.lease_id:
        yield Problem("only a certificate has an issuer that signs an answer", (f"{at}/engine", credential.place))
    if said.der is None:
        return
    # 1
    if sha256_hex(said.der) != said.sha256:
        yield Problem("what the issuer signed has another digest", (f"{at}/der", f"{at}/sha256"))
        return
    try:
        if said.form is SignedForm.OCSP:
            yield from _response_problems(_response(said.der)[1], said, credential, at)
        else:
            yield from _certificate_problems(x509.load_der_x509_certificate(said.der), said, sealed_at, at)
    except UNREADABLE:
        yield Problem(f"what the issuer signed cannot be read as {said.form}", (f"{at}/form", f"{at}/der"))


def _response_problems(
    single: ocsp.OCSPSingleResponse, said: SignedAnswer, credential: Credential, at: str
) -> Iterator[Problem]:
    # 2
    if _spelled(single.serial_number) != said.question:
        yield Problem("the OCSP response is about another certificate", (f"{at}/question", f"{at}/der"))
    # 3
    is_revoked = single.certificate_status is ocsp.OCSPCertStatus.REVOKED
    if not is_revoked or single.revocation_reason in _NOT_FOR_GOOD:
        yield Problem("the OCSP response does not call it revoked for good", (f"{at}/der",))
    # the response has whole seconds
    for n in (1, 2):
        end = time_of(stated(credential.check(n)))
        if end is not None and single.this_update_utc < end.replace(microsecond=0):
            places = (f"{at}/der", credential.at(n, "evidence", "at"))
            yield Problem("the OCSP response is older than the certificate's end", places)


def _certificate_problems(
    certificate: x509.Certificate, said: SignedAnswer, sealed_at: datetime, at: str
) -> Iterator[Problem]:
    # 2
    if _spelled(certificate.serial_number) != said.question:
        yield Problem("it is another certificate", (f"{at}/question", f"{at}/der"))
    # 3
    if certificate.not_valid_after_utc >= sealed_at:
        yield Problem("the certificate was valid when the task was sealed", (f"{at}/der", f"{PREDICATE}/sealed_at"))


def _is_issuers(form: SignedForm, der: bytes, issuers: Sequence[x509.Certificate]) -> bool:
    """Return whether one of the issuers signed these bytes, which can be read.

    Raises InvalidSignature where the one that they name did not.
    """
    # 4
    if form is SignedForm.CERTIFICATE:
        certificate = x509.load_der_x509_certificate(der)
        return any(_is_directly_issued(certificate, issuer) for issuer in issuers)
    answer, single = _response(der)
    own = next((issuer for issuer in issuers if is_of(single, issuer)), None)
    try:
        if own is not None and not is_signed(answer, own):
            raise InvalidSignature
    except (NotConfirmed, *UNREADABLE):
        return False
    return own is not None


def _is_directly_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _response(der: bytes) -> tuple[ocsp.OCSPResponse, ocsp.OCSPSingleResponse]:
    """Return a response and its one statement. Raises ValueError for anything else."""
    answer = ocsp.load_der_ocsp_response(der)
    (single,) = answer.responses
    return answer, single


def _spelled(serial: int) -> str:
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big").hex(":")
