"""The probe of a PKI mount: whether CRL and OCSP call a certificate revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jitvault.engines.interface import Probe, ProbeResult
from jitvault.engines.pki.revocations import Revocations, serial_of
from jitvault.engines.pki.x509_revocation import current_answer, expired, on_crl, revoked_by_ocsp
from jitvault.errors import NotConfirmed, StillAccepted
from jitvault.model.evidence import SignedForm

# A serial number of no certificate: a responder that answers for it answers for all.
_ANY = 1
_UNSEEN = "sessions that it opened before were not looked at"


class PkiProbe(Probe):
    """Asks CRL and OCSP; both are public, so that it needs no login."""

    credential_key = "serial_number"

    def ask(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        revocations = Revocations.of(where)
        return {name: _look(revocations, name) for name in names}

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        revocations = Revocations.of(where)
        _ = revocations.crl
        current_answer(revocations.by_ocsp(_ANY), _ANY, revocations.issuer, datetime.now(UTC))
        return ()


def _look(revocations: Revocations, name: str) -> ProbeResult:
    """Return what CRL and OCSP say of one certificate.

    It is refused only if both say so, or if it has expired.
    """
    try:
        serial = serial_of(name)
    except NotConfirmed as error:
        return _unproven(error)
    try:
        return _revoked(revocations, serial)
    except NotConfirmed as why:
        return _expired(revocations, name, serial) or _unproven(why)


def _revoked(revocations: Revocations, serial: int) -> ProbeResult:
    """Return that CRL and OCSP call it revoked. Raises NotConfirmed.

    The OCSP response is kept of what was read: a CRL can have megabytes.
    """
    listed = on_crl(revocations.crl, serial, datetime.now(UTC))
    answer = revocations.by_ocsp(serial)
    revoked = revoked_by_ocsp(answer, serial, revocations.issuer, datetime.now(UTC))
    return _refused(f"{listed}; {revoked}", SignedForm.OCSP, answer)


def _expired(revocations: Revocations, name: str, serial: int) -> ProbeResult | None:
    """Return that the certificate has expired; None where it has not.

    The certificate itself shows that. Vault does not put a certificate on the CRL that expires within seconds, and OCSP
    goes on calling it good.
    """
    try:
        certificate = revocations.certificate(name)
        over = expired(certificate, serial, revocations.issuer, datetime.now(UTC))
    except NotConfirmed:
        return None
    return _refused(over, SignedForm.CERTIFICATE, certificate)


def _refused(evidence: str, form: SignedForm, der: bytes) -> ProbeResult:
    # CRL and OCSP know of no session: sessions are at servers that the probe does not ask
    return ProbeResult(refused=True, open_sessions=None, evidence=f"{evidence}; {_UNSEEN}", signed=(form, der))


def _unproven(why: NotConfirmed) -> ProbeResult:
    return ProbeResult(refused=False, open_sessions=None, evidence=str(why), seen=isinstance(why, StillAccepted))
