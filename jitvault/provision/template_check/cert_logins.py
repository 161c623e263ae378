"""Check whether a template's certificates are a login to Vault.

They are where a cert auth method trusts their issuer. The token of such a login outlives the certificate, and ending
the task does not revoke it. The check needs an administrator, because the worker cannot read auth methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.engines.pki.logins import takes, trusts
from jitvault.errors import JitvaultError, NotConfirmed
from jitvault.provision.template_check.steps import Found
from jitvault.vault.client import Vault

MOST_ENTRIES = 1_000
_MEND = "Issue agents' certificates from a CA that nothing else trusts for a login, or remove that entry."
_NEEDS = "Let the administrator's token read sys/auth, and auth/<method>/certs/ of each cert auth method."


@dataclass(frozen=True, slots=True)
class CertLogin:
    """An entry of a cert auth method that trusts an issuer.

    `path` is the entry's path in Vault.
    """

    path: str
    entry: Mapping[str, Any]

    def takes(self, certificate: str) -> bool:
        """Return whether the entry accepts this certificate (PEM), by its names."""
        return takes(self.entry, certificate)


def cert_logins(vault: Vault, snapshot: Mapping[str, Any]) -> list[CertLogin]:
    """Return the entries that trust the issuer in an engine's `snapshot`.

    Other namespaces are not searched. Raises VaultRefused for an identity that may not read the entries, NotConfirmed
    where there are more than MOST_ENTRIES or Vault does not show the issuer.
    """
    issuer = snapshot.get("issuer") or {}
    chain = [str(pem) for pem in (issuer.get("certificate"), *(issuer.get("ca_chain") or ())) if pem]
    if not chain:
        raise NotConfirmed("Vault does not show the issuer's certificate")
    return [login for login in _entries(vault) if trusts(login.entry, chain)]


def vault_logins(vault: Vault, snapshot: Callable[[], Mapping[str, Any]], certificate: object) -> Found:
    """Return whether Vault accepts a certificate (PEM) as a login.

    `snapshot` gives the engine's configuration.
    """
    if not isinstance(certificate, str):
        return Found(True, "the credential is no certificate that Vault could accept as a login")
    try:
        found = cert_logins(vault, snapshot())
    except JitvaultError as error:
        return Found(False, str(error), _NEEDS)
    if taken := [login.path for login in found if login.takes(certificate)]:
        evidence = f"{', '.join(taken)} takes it as a login to Vault, whose token outlives the certificate"
        return Found(False, evidence, _MEND)
    if found:
        evidence = f"{', '.join(login.path for login in found)} trusts its CA, and takes certificates of other names"
        return Found(True, evidence, is_remark=True)
    return Found(True, "no cert auth method of this namespace trusts its CA")


def _entries(vault: Vault) -> Iterator[CertLogin]:
    methods: Mapping[str, Mapping[str, Any]] = (vault.read("sys/auth") or {}).get("data") or {}
    seen = 0
    for method in sorted(path.rstrip("/") for path, table in methods.items() if table.get("type") == "cert"):
        for name in vault.list(f"auth/{method}/certs"):
            seen += 1
            if seen > MOST_ENTRIES:
                raise NotConfirmed(f"Vault's cert auth methods have more than {MOST_ENTRIES} entries")
            path = f"auth/{method}/certs/{name}"
            yield CertLogin(path, (vault.read(path) or {}).get("data") or {})
