"""Read from Vault what a trust file has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jitvault.documents.signed import RECEIPT_KEY, signer_key
from jitvault.documents.trust import HomeNamespace, TrustedKey, TrustedSigner, TrustedWorker, TrustFile
from jitvault.errors import NotFound, VaultRefused
from jitvault.vault.client import Vault
from jitvault.vault.transit import MOUNT

_AUDITORS = "jitvault-auditors"
_INIT = "An administrator runs `jitvault init` first."


def trusted(vault: Vault, workers: Iterable[str], mounts: Iterable[str]) -> TrustFile:
    """Return what an auditor trusts, as Vault has it now.

    `workers` are the names of the worker's entities, `mounts` those of PKI engines whose issuers count. Raises NotFound
    where Vault lacks one of the things, and VaultRefused for whoever may not read them.
    """
    key = _data(vault, f"{MOUNT}/keys/{RECEIPT_KEY}", f"Vault has no key {RECEIPT_KEY}", _INIT)
    # only a group of ours says which namespace this is: Vault shows a namespace's id at what is in it
    group = _data(vault, f"identity/group/name/{_AUDITORS}", f"Vault has no group {_AUDITORS}", _INIT)
    return TrustFile(
        schema="jitvault.dev/trust/v1",
        receipt_keys=[
            TrustedKey(version, facts["public_key"], datetime.fromisoformat(facts["creation_time"]))
            for version, facts in _versions(key)
        ],
        signers=list(_signers(vault)),
        namespace=HomeNamespace(str(group["namespace_id"]), (vault.connection.namespace or "").strip("/")),
        workers=[_worker(vault, name) for name in dict.fromkeys(workers)],
        issuers=list(_issuers(vault, mounts)),
    )


def _versions(key: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    return sorted(((int(version), facts) for version, facts in key["keys"].items()), key=lambda pair: pair[0])


def _signers(vault: Vault) -> Iterator[TrustedSigner]:
    """Yield each version of each entity's signing key, as Vault lists them."""
    for name in sorted(vault.list(f"{MOUNT}/keys")):
        if name.startswith(signer_key("")):
            key = _data(vault, f"{MOUNT}/keys/{name}", f"Vault has no key {name} any more", "Run the command again.")
            for version, facts in _versions(key):
                yield TrustedSigner(name.removeprefix(signer_key("")), version, facts["public_key"])


def _worker(vault: Vault, name: str) -> TrustedWorker:
    """Return a worker's entity, which may be one of the root namespace."""
    path = f"identity/entity/name/{name}"
    found = vault.read(path) or vault.at_root().read(path)
    if found is None:
        raise NotFound(
            f"Vault has no entity named {name!r:.80}",
            hint="Name the worker's with --worker; docs/operations/worker-identity.md says how to give it one.",
        )
    return TrustedWorker(str(found["data"]["id"]), name)


def _issuers(vault: Vault, mounts: Iterable[str]) -> Iterator[str]:
    """Yield the certificate of each issuer of these mounts, which Vault gives to everybody."""
    for mount in dict.fromkeys(mounts):
        known: list[str] = []
        # everybody may list those of a PKI engine, so that a refusal is one of another engine, or of none
        with suppress(VaultRefused):
            known = vault.list(f"{mount}/issuers")
        if not known:
            raise NotFound(f"Vault has no issuer at {mount!r:.80}", hint="Name the mount of a PKI engine with --pki.")
        for issuer in known:
            missing = f"Vault has no issuer {issuer} any more"
            yield _data(vault, f"{mount}/issuer/{issuer}/json", missing, "Run the command again.")["certificate"]


def _data(vault: Vault, path: str, missing: str, hint: str) -> Mapping[str, Any]:
    try:
        answer = vault.read(path)
    except VaultRefused as error:
        raise VaultRefused(
            f"this identity may not read {path} ({error})",
            hint="`jitvault init` gives auditors that right; an administrator may run this command as well.",
        ) from None
    if answer is None:
        raise NotFound(missing, hint=hint)
    data: Mapping[str, Any] = answer["data"]
    return data
