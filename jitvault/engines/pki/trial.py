"""What a template check tries with a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jitvault.engines.interface import After, Trial
from jitvault.engines.pki.certificate import as_asked
from jitvault.engines.pki.revocations import Revocations, serial_of
from jitvault.engines.pki.verifiers import AtVerifiers
from jitvault.engines.pki.x509_revocation import (
    SKEW,
    check_good_by_ocsp,
    check_off_crl,
    check_valid,
    on_crl,
    revoked_by_ocsp,
)
from jitvault.model.template import TemplateBody
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

_REVOCATION = (
    "Servers would still accept the certificate: the mount's CRL and OCSP have to be on, with auto_rebuild=false, and "
    "the CRL must not have expired (`crl/rotate` renews it)."
)


class PkiTrial(Trial):
    """Shows a certificate to verifiers. Its holder can do nothing about its revocation."""

    remedies: Mapping[str, str] = {
        "leased": "The role needs generate_lease=true and no_store=false, and has to allow what the template sends.",
        "as_asked": "The role gives more than the template asks for: its usages, not_after, names or policies; "
        "docs/vault-facts.md, Certificates, has what is taken.",
        "used": "The mount's CRL and OCSP have to be on, and to be signed by the issuer in the probe's document; the "
        "template's verifiers have to take the certificate and to be known by verifiers_ca there.",
        "probe_sees_it": "The probe's issuer has to be the one that the role signs with.",
        "session_ended": _REVOCATION,
        "login_refused": _REVOCATION,
        "probe_sees_end": _REVOCATION,
    }

    @contextmanager
    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> Iterator[_InUse]:
        """Use a certificate, and show it to the verifiers.

        `where` has in `verifiers_ca` the PEM of the verifiers' own CAs; without it, the system's CAs count.
        """
        used = _InUse(where, issued, verifiers)
        try:
            yield used
        finally:
            used.close()

    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        return (f"bao write {mount}/revoke serial_number={name}", f"bao read {mount}/crl/rotate")

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        return as_asked(issued.get("certificate"), data, snapshot["role"], until=datetime.now(UTC) + spec.ttl + SKEW)


class _InUse:
    """A certificate, where it is taken now and refused later.

    Implements `jitvault.engines.interface.CredentialInUse`. A certificate is in use once all that refuses it later
    was asked and found nothing against it: a CRL and an OCSP responder that do not answer would let it through as
    well, and go on doing so. They know of no session; the servers that the template names do, so it is shown to
    those as well.
    """

    sessions: int | None = None

    def __init__(self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers) -> None:
        """Show the certificate everywhere.

        Raises NotConfirmed unless the certificate is valid, on no CRL, good by OCSP, and taken by the servers.
        """
        name = str(issued.get("serial_number"))
        self._serial = serial_of(name)
        self._where = where
        revocations = Revocations.of(where)
        now = datetime.now(UTC)
        check_off_crl(revocations.crl, self._serial)
        check_valid(revocations.certificate(name), self._serial, revocations.issuer, now)
        check_good_by_ocsp(revocations.by_ocsp(self._serial), self._serial, revocations.issuer, now)
        self._at = AtVerifiers(verifiers, issued, where.get("verifiers_ca"))
        self.seen = "; ".join(filter(None, (f"{name} is valid, on no CRL, and good by OCSP", self._at.seen)))

    def still_works(self) -> After:
        # the sentence of an error says more than that it works: which CRL does not have it
        listed = on_crl(Revocations.of(self._where).crl, self._serial, datetime.now(UTC))
        return _with_evidence(listed, self._at.still_open())

    def works_anew(self) -> After:
        revocations = Revocations.of(self._where)
        answer = revocations.by_ocsp(self._serial)
        revoked = revoked_by_ocsp(answer, self._serial, revocations.issuer, datetime.now(UTC))
        return _with_evidence(revoked, self._at.taken_anew())

    def close(self) -> None:
        self._at.close()


def _with_evidence(evidence: str, after: After) -> After:
    # what is wrong goes first: a long sentence is cut
    return replace(after, seen="; ".join((after.seen, evidence) if after.works else (evidence, after.seen)))
