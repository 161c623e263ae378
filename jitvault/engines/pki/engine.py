"""Vault's PKI secrets engine, with the proof from CRL and OCSP.

Why the target itself is asked: docs/vault-facts.md, "Certificates". With its CRL switched off, with an issuer that
is gone, or for a certificate that is about to expire, Vault revokes the lease with 204 and every verifier goes on
trusting the certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jitvault.engines.interface import After, Limits, Login, ProbeResult, Read, Resisting, TargetFinding, Upkeep
from jitvault.engines.pki import config
from jitvault.engines.pki.bounded_fetch import Web
from jitvault.errors import NotConfirmed, StillAccepted
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

if TYPE_CHECKING:
    from cryptography import x509

_SERIAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,31}")
# A CRL of a million certificates has about 40 MB; a mount with more of them needs another proof.
_MAX_CRL = 48 * 1024 * 1024
_MAX_ANSWER = 64 * 1024
# For all requests of one probe together, below the ledger's claim of 30 s.
_LONGEST_S = 15
# A serial number of no certificate: a responder that answers for it answers for all.
_ANY = 1


_UNSEEN = "sessions that it opened before were not looked at"
_REVOCATION = (
    "Servers would still accept the certificate: the mount's CRL and OCSP have to be on, with auto_rebuild=false, and "
    "the CRL must not have expired (`crl/rotate` renews it)."
)


class PkiEngine:
    """The engine of `pki/` mounts.

    Implements `jitvault.engines.interface.Engine`.
    """

    name: str = "pki"
    capability: Capability = "update"
    non_hmac_response_keys: tuple[str, ...] = ("serial_number",)
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

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        return config.snapshot(read, mount, path)

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        config.check_template(spec, snapshot)

    def why_no_credential(self, path: str, snapshot: Mapping[str, Any]) -> str | None:
        return None

    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        return (f"bao write {mount}/revoke serial_number={name}", f"bao read {mount}/crl/rotate")

    def limits(self, spec: TemplateBody) -> Limits | None:
        return config.limits(spec)

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        return config.upkeep(read, mount)

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        from jitvault.engines.pki.certificate import as_asked
        from jitvault.engines.pki.x509_revocation import SKEW

        return as_asked(issued.get("certificate"), data, snapshot["role"], until=datetime.now(UTC) + spec.ttl + SKEW)

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return config.worker_paths(mount, path)

    def probe(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        """Ask CRL and OCSP about each serial number.

        `where` has the mount's URL (`dsn`), the issuer's certificate (`issuer`, PEM), for private HTTPS the CA
        (`ca`, PEM), and for an issuer that is not the mount's default the URL of its CRL (`crl`).
        """
        revocations = _revocations_of(where)
        return {name: _look(revocations, name) for name in names}

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        # asking about a certificate needs no connection that an agent could take
        return ()

    def close(self) -> None:
        """Do nothing: nothing stays open."""

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        raise NotConfirmed("a certificate does not say by which role it was made: one that no line names is not found")

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        from jitvault.engines.pki.x509_revocation import check_answered

        revocations = _revocations_of(where)
        _crl(revocations)
        check_answered(_by_ocsp(revocations, _ANY), _ANY, revocations.issuer, datetime.now(UTC))
        # everything that the probe requests is public
        return ()

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        return None

    def inspect(
        self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None
    ) -> Sequence[TargetFinding]:
        return ()

    finds_unnamed = False
    # the holder of a certificate can do nothing about its revocation
    resistances: Mapping[str, str] = MappingProxyType({})

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any], other: Mapping[str, Any] | None
    ) -> AbstractContextManager[Resisting]:
        raise NotConfirmed(f"a certificate resists nothing, also not {step}")

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
        from jitvault.engines.pki.verifiers import AtVerifiers
        from jitvault.engines.pki.x509_revocation import check_good_by_ocsp, check_off_crl, check_valid

        name = str(issued.get("serial_number"))
        if not _SERIAL.fullmatch(name):
            raise NotConfirmed(f"{name!r:.80} is not a serial number")
        self._where = where
        self._serial = _number(name)
        revocations = _revocations_of(where)
        now = datetime.now(UTC)
        check_off_crl(_crl(revocations), self._serial)
        check_valid(_fetched(revocations, name), self._serial, revocations.issuer, now)
        check_good_by_ocsp(_by_ocsp(revocations, self._serial), self._serial, revocations.issuer, now)
        self._at = AtVerifiers(verifiers, issued, where.get("verifiers_ca"))
        self.seen = "; ".join(filter(None, (f"{name} is valid, on no CRL, and good by OCSP", self._at.seen)))

    def still_works(self) -> After:
        from jitvault.engines.pki.x509_revocation import on_crl

        # the sentence of an error says more than that it works: which CRL does not have it
        listed = on_crl(_crl(_revocations_of(self._where)), self._serial, datetime.now(UTC))
        return _with_evidence(listed, self._at.still_open())

    def works_anew(self) -> After:
        from jitvault.engines.pki.x509_revocation import revoked_by_ocsp

        revocations = _revocations_of(self._where)
        answer = _by_ocsp(revocations, self._serial)
        revoked = revoked_by_ocsp(answer, self._serial, revocations.issuer, datetime.now(UTC))
        return _with_evidence(revoked, self._at.taken_anew())

    def close(self) -> None:
        self._at.close()


def _with_evidence(evidence: str, after: After) -> After:
    # what is wrong goes first: a long sentence is cut
    return replace(after, seen="; ".join((after.seen, evidence) if after.works else (evidence, after.seen)))


def _revocations_of(where: Mapping[str, Any]) -> _Revocations:
    """Fetch what all certificates of a mount share. Raises NotConfirmed."""
    from jitvault.engines.pki.x509_revocation import current_crl, issuer_of

    issuer = issuer_of(where.get("issuer"))
    mount = str(where["dsn"]).rstrip("/")
    web = Web(where.get("ca"), within_s=_LONGEST_S)
    try:
        found = web.get(str(where.get("crl") or f"{mount}/crl"), at_most=_MAX_CRL)
        return _Revocations(web, mount, issuer, current_crl(found, issuer, datetime.now(UTC)))
    except NotConfirmed as error:
        return _Revocations(web, mount, issuer, error)


@dataclass(frozen=True, slots=True)
class _Revocations:
    """What all certificates of one mount share: the CRL, or why there is none."""

    web: Web
    mount: str
    issuer: x509.Certificate
    crl: x509.CertificateRevocationList | NotConfirmed


def _look(revocations: _Revocations, name: str) -> ProbeResult:
    """Return what CRL and OCSP say of one certificate.

    It is refused only if both say so, or if it has expired.
    """
    if not _SERIAL.fullmatch(name):
        return _probed(f"{name!r:.80} is not a serial number", seen=False)
    serial = _number(name)
    try:
        return _probed(f"{_revoked(revocations, serial)}; {_UNSEEN}", refused=True)
    except NotConfirmed as why:
        expiry = _expired(revocations, name, serial)
        if expiry:
            return _probed(f"{expiry}; {_UNSEEN}", refused=True)
        return _probed(str(why), seen=isinstance(why, StillAccepted))


def _revoked(revocations: _Revocations, serial: int) -> str:
    """Return that CRL and OCSP call it revoked. Raises NotConfirmed."""
    from jitvault.engines.pki.x509_revocation import on_crl, revoked_by_ocsp

    listed = on_crl(_crl(revocations), serial, datetime.now(UTC))
    answer = _by_ocsp(revocations, serial)
    return f"{listed}; {revoked_by_ocsp(answer, serial, revocations.issuer, datetime.now(UTC))}"


def _expired(revocations: _Revocations, name: str, serial: int) -> str:
    """Return the sentence that the certificate has expired, or "".

    The certificate itself shows that, and the mount gives it to everyone. Vault does not put a certificate on the
    CRL that expires within seconds, and OCSP goes on calling it good.
    """
    from jitvault.engines.pki.x509_revocation import expired

    try:
        return expired(_fetched(revocations, name), serial, revocations.issuer, datetime.now(UTC))
    except NotConfirmed:
        return ""


def _crl(revocations: _Revocations) -> x509.CertificateRevocationList:
    if isinstance(revocations.crl, NotConfirmed):
        # each use raises it, and a traceback grows
        raise revocations.crl.with_traceback(None)
    return revocations.crl


def _by_ocsp(revocations: _Revocations, serial: int) -> bytes:
    from jitvault.engines.pki.x509_revocation import request_for

    question = request_for(serial, revocations.issuer)
    url = f"{revocations.mount}/ocsp"
    return revocations.web.post(url, question, kind="application/ocsp-request", at_most=_MAX_ANSWER)


def _fetched(revocations: _Revocations, name: str) -> bytes:
    return revocations.web.get(f"{revocations.mount}/cert/{name}/raw", at_most=_MAX_ANSWER)


def _number(name: str) -> int:
    return int(name.replace(":", ""), 16)


def _probed(evidence: str, *, refused: bool = False, seen: bool = True) -> ProbeResult:
    # CRL and OCSP know of no session: sessions are at servers that the probe does not ask
    return ProbeResult(refused=refused, open_sessions=None, evidence=evidence, seen=seen)
