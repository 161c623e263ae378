"""Vault's PKI secrets engine, and the proof from its CRL and OCSP responder.

Why the target itself is asked: docs/vault-facts.md, "Certificates". With its CRL switched off, with an issuer that is
gone, or for a certificate that is about to expire, Vault revokes the lease with 204 and everybody goes on trusting the
certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jitvault.engines import pki_config
from jitvault.engines.fetch import Web
from jitvault.engines.interface import After, Limits, Login, ProbeResult, Read, Resisting, TargetFinding, Upkeep
from jitvault.errors import NotConfirmed, StillAccepted
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

if TYPE_CHECKING:
    from cryptography import x509

_SERIAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,31}")
# A CRL of a million certificates has about 40 MB; whoever has more of them needs another proof.
_MAX_CRL = 48 * 1024 * 1024
_MAX_ANSWER = 64 * 1024
# for all requests of one probe together: it stays below the ledger's claim of 30 s
_LONGEST_S = 15
# a serial number of no certificate: whoever answers for it answers for all
_ANY = 1


_UNSEEN = "sessions that it opened before were not looked at"
_REVOCATION = (
    "Somebody would not refuse the certificate: the mount's CRL and OCSP have to be on, with auto_rebuild=false, and "
    "the list has to hold (`crl/rotate` makes it anew)."
)


class PkiEngine:
    """`jitvault.engines.interface.Engine` for `pki/` mounts."""

    name: str = "pki"
    capability: Capability = "update"
    non_hmac_response_keys: tuple[str, ...] = ("serial_number",)
    remedies: Mapping[str, str] = {
        "leased": "The role needs generate_lease=true and no_store=false, and has to allow what the template sends.",
        "probe_rights": "The probe's dsn is the mount's public URL, and its issuer the certificate that signs.",
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
        return pki_config.snapshot(read, mount, path)

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        pki_config.check_template(spec, snapshot)

    def limits(self, spec: TemplateBody) -> Limits | None:
        return pki_config.limits(spec)

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        return pki_config.upkeep(read, mount)

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        from jitvault.engines.pki_certificate import as_asked
        from jitvault.engines.x509_revocation import SKEW

        return as_asked(issued.get("certificate"), data, snapshot["role"], until=datetime.now(UTC) + spec.ttl + SKEW)

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return pki_config.worker_paths(mount, path)

    def probe(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        """`where` has the mount's URL (`dsn`), the issuer's certificate (`issuer`, PEM), for a private HTTPS
        certificate its CA (`ca`, PEM), and for an issuer that is not the mount's default the URL of its CRL (`crl`).
        """
        asked = _ask(where)
        return {name: _look(asked, name) for name in names}

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        # whoever asks about a certificate needs no place that somebody could take
        return ()

    def close(self) -> None:
        """Nothing stays open."""

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        raise NotConfirmed("a certificate does not say by which role it was made: one that no line names is not found")

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        from jitvault.engines.x509_revocation import check_answered

        asked = _ask(where)
        _crl(asked)
        check_answered(_by_ocsp(asked, _ANY), _ANY, asked.issuer, datetime.now(UTC))
        # what it asks, everybody may ask
        return ()

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        return None

    def inspect(
        self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None
    ) -> Sequence[TargetFinding]:
        return ()

    finds_unnamed = False
    # whoever holds a certificate can do nothing about its revocation
    resistances: Mapping[str, str] = MappingProxyType({})

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> AbstractContextManager[Resisting]:
        raise NotConfirmed(f"a certificate resists nothing, also not {step}")

    @contextmanager
    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> Iterator[_InUse]:
        """`where` has for that, as `verifiers_ca`, the PEM of the CAs that signed the verifiers' own certificates; the
        system's without it.
        """
        used = _InUse(where, issued, verifiers)
        try:
            yield used
        finally:
            used.close()


class _InUse:
    """`jitvault.engines.interface.Used`: a certificate, where it is refused later and where it is taken.

    It is in use when all that refuses it later was asked and found nothing against it: a CRL and an OCSP responder
    that are silent would let it through as well, and go on doing so. They know of no session; the servers that the
    template names do, so it is shown to those as well.
    """

    sessions: int | None = None

    def __init__(self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers) -> None:
        """Raises NotConfirmed unless the certificate is valid, on no CRL, OCSP calls it good, and servers take it."""
        from jitvault.engines.pki_verifiers import AtVerifiers
        from jitvault.engines.x509_revocation import check_good_by_ocsp, check_off_crl, check_valid

        name = str(issued.get("serial_number"))
        if not _SERIAL.fullmatch(name):
            raise NotConfirmed(f"{name!r:.80} is no serial number")
        self._where, self._serial = where, _number(name)
        asked, now = _ask(where), datetime.now(UTC)
        check_off_crl(_crl(asked), self._serial)
        check_valid(_fetched(asked, name), self._serial, asked.issuer, now)
        check_good_by_ocsp(_by_ocsp(asked, self._serial), self._serial, asked.issuer, now)
        self._at = AtVerifiers(verifiers, issued, where.get("verifiers_ca"))
        self.seen = "; ".join(filter(None, (f"{name} is valid, on no CRL, and good by OCSP", self._at.seen)))

    def still_works(self) -> After:
        from jitvault.engines.x509_revocation import on_crl

        # the sentence says more than a plain yes: which CRL does not have it
        listed = on_crl(_crl(_ask(self._where)), self._serial, datetime.now(UTC))
        return _with(listed, self._at.still_open())

    def works_anew(self) -> After:
        from jitvault.engines.x509_revocation import revoked_by_ocsp

        asked = _ask(self._where)
        answer = _by_ocsp(asked, self._serial)
        return _with(revoked_by_ocsp(answer, self._serial, asked.issuer, datetime.now(UTC)), self._at.taken_anew())

    def close(self) -> None:
        self._at.close()


def _with(said: str, after: After) -> After:
    # what is wrong goes first: a long sentence is cut
    return replace(after, seen="; ".join((after.seen, said) if after.works else (said, after.seen)))


def _ask(where: Mapping[str, Any]) -> _Asked:
    """What is the same for all certificates of one mount. Raises NotConfirmed for an issuer that is none."""
    from jitvault.engines.x509_revocation import current_crl, issuer_of

    issuer = issuer_of(where.get("issuer"))
    mount = str(where["dsn"]).rstrip("/")
    web = Web(where.get("ca"), within_s=_LONGEST_S)
    try:
        found = web.get(str(where.get("crl") or f"{mount}/crl"), at_most=_MAX_CRL)
        return _Asked(web, mount, issuer, current_crl(found, issuer, datetime.now(UTC)), "")
    except NotConfirmed as error:
        return _Asked(web, mount, issuer, None, str(error))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is the same for all certificates of one mount; without a CRL, `why` says what is wrong with it."""

    web: Web
    mount: str
    issuer: x509.Certificate
    crl: x509.CertificateRevocationList | None
    why: str


def _look(asked: _Asked, name: str) -> ProbeResult:
    """What CRL and OCSP say of one certificate; it is refused only where both say so, or where its time is over."""
    if not _SERIAL.fullmatch(name):
        return _probed(f"{name!r:.80} is no serial number", seen=False)
    serial = _number(name)
    try:
        return _probed(f"{_revoked(asked, serial)}; {_UNSEEN}", refused=True)
    except NotConfirmed as why:
        over = _expired(asked, name, serial)
        if over:
            return _probed(f"{over}; {_UNSEEN}", refused=True)
        return _probed(str(why), seen=isinstance(why, StillAccepted))


def _revoked(asked: _Asked, serial: int) -> str:
    """That both say so. Raises NotConfirmed."""
    from jitvault.engines.x509_revocation import on_crl, revoked_by_ocsp

    listed = on_crl(_crl(asked), serial, datetime.now(UTC))
    answer = _by_ocsp(asked, serial)
    return f"{listed}; {revoked_by_ocsp(answer, serial, asked.issuer, datetime.now(UTC))}"


def _expired(asked: _Asked, name: str, serial: int) -> str:
    """That its time is over, by the certificate itself, which the mount gives to anybody; empty where that is not so.

    Vault does not put a certificate on the CRL that expires within seconds, and OCSP goes on calling it good.
    """
    from jitvault.engines.x509_revocation import expired

    try:
        return expired(_fetched(asked, name), serial, asked.issuer, datetime.now(UTC))
    except NotConfirmed:
        return ""


def _crl(asked: _Asked) -> x509.CertificateRevocationList:
    if asked.crl is None:
        raise NotConfirmed(asked.why)
    return asked.crl


def _by_ocsp(asked: _Asked, serial: int) -> bytes:
    from jitvault.engines.x509_revocation import request_for

    question = request_for(serial, asked.issuer)
    return asked.web.post(f"{asked.mount}/ocsp", question, kind="application/ocsp-request", at_most=_MAX_ANSWER)


def _fetched(asked: _Asked, name: str) -> bytes:
    return asked.web.get(f"{asked.mount}/cert/{name}/raw", at_most=_MAX_ANSWER)


def _number(name: str) -> int:
    return int(name.replace(":", ""), 16)


def _probed(evidence: str, *, refused: bool = False, seen: bool = True) -> ProbeResult:
    # CRL and OCSP know of no session: those are at servers that nobody asks
    return ProbeResult(refused=refused, open_sessions=None, evidence=evidence, seen=seen)
