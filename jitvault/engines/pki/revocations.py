"""What a PKI mount publishes about its certificates: CRL, OCSP answers, and each certificate itself.

Why these are asked, and not Vault: docs/vault-facts.md, "Certificates". With its CRL switched off, with an issuer that
is gone, or for a certificate that is about to expire, Vault revokes the lease with 204 and every verifier goes on
trusting the certificate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from jitvault.engines.pki.bounded_fetch import Web
from jitvault.engines.pki.x509_revocation import current_crl, issuer_of, request_for
from jitvault.errors import NotConfirmed

_SERIAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,31}")
# A CRL of a million certificates has about 40 MB; a mount with more of them needs another proof.
_MAX_CRL = 48 * 1024 * 1024
_MAX_ANSWER = 64 * 1024
# For all requests of one probe together, below the ledger's claim of 30 s.
_LONGEST_S = 15


@dataclass(frozen=True, slots=True)
class Revocations:
    """What all certificates of one mount share."""

    web: Web
    mount: str
    issuer: x509.Certificate
    current: x509.CertificateRevocationList | NotConfirmed
    """The CRL, or why there is none."""

    @classmethod
    def of(cls, where: Mapping[str, Any]) -> Revocations:
        """Fetch what a probe's document names.

        It has the mount's URL (`dsn`), the issuer's certificate (`issuer`, PEM), for private HTTPS the CA (`ca`, PEM),
        and for an issuer that is not the mount's default the URL of its CRL (`crl`). Raises NotConfirmed.
        """
        issuer = issuer_of(where.get("issuer"))
        mount = str(where["dsn"]).rstrip("/")
        web = Web(where.get("ca"), within_s=_LONGEST_S)
        try:
            found = web.get(str(where.get("crl") or f"{mount}/crl"), at_most=_MAX_CRL)
            return cls(web, mount, issuer, current_crl(found, issuer, datetime.now(UTC)))
        except NotConfirmed as error:
            return cls(web, mount, issuer, error)

    @property
    def crl(self) -> x509.CertificateRevocationList:
        """The CRL. Raises NotConfirmed if there is none."""
        if isinstance(self.current, NotConfirmed):
            # each use raises it, and a traceback grows
            raise self.current.with_traceback(None)
        return self.current

    def by_ocsp(self, serial: int) -> bytes:
        """Return the responder's answer. Raises NotConfirmed."""
        question = request_for(serial, self.issuer)
        return self.web.post(f"{self.mount}/ocsp", question, kind="application/ocsp-request", at_most=_MAX_ANSWER)

    def certificate(self, name: str) -> bytes:
        """Return the certificate itself, which the mount gives to everyone. Raises NotConfirmed."""
        return self.web.get(f"{self.mount}/cert/{name}/raw", at_most=_MAX_ANSWER)


def serial_of(name: str) -> int:
    """Return the number that Vault's name of a certificate stands for. Raises NotConfirmed."""
    if not _SERIAL.fullmatch(name):
        raise NotConfirmed(f"{name!r:.80} is not a serial number")
    return int(name.replace(":", ""), 16)
