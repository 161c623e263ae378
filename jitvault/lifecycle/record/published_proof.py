"""Check what vouches for a task's published document.

The check is for a reader without the ledger. Anyone with the worker's token can write a published document. The
document of a closed task has a receipt, which Vault's own key signed. Who overwrites the document leaves the version
with the receipt behind: Vault keeps the last ten versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from jitvault.documents.paths import published_path
from jitvault.documents.published_task import PublishedDocument, PublishedTask, read_published
from jitvault.documents.receipt import CLOSED, Receipt, verified
from jitvault.documents.signed import RECEIPT_KEY
from jitvault.errors import VaultRefused, VaultRejected
from jitvault.vault.interface import Documents, Signer, Stored

_VERSIONS = 10
"""How many versions of a document Vault keeps, unless an administrator configures another number."""


@dataclass(frozen=True, slots=True)
class PublishedProof:
    """The document to show of a task, and what vouches for it.

    `by` is `receipt` or `nobody`, and `why` explains that to a person. `problem` says why the published document cannot
    be the worker's; empty where nothing speaks against it.
    """

    document: PublishedDocument
    by: str
    why: str
    problem: str = ""


def published_proof(documents: Documents, signer: Signer, task_id: str, newest: Stored) -> PublishedProof:
    """Return the newest version with a valid receipt.

    Where no version has one, this is the newest version.
    """
    shown = _as_published(task_id, newest)
    try:
        keys = signer.public_keys(RECEIPT_KEY)
    except VaultRejected:
        raise
    except VaultRefused:
        why = "nobody checked its receipt: Vault does not let you read the key of receipts; `jitvault init` allows that"
        return PublishedProof(shown, "nobody", why)
    if (told := _receipt(shown, keys)) is not None:
        return PublishedProof(shown, "receipt", _signed(told))
    for version in range(newest.version - 1, max(newest.version - _VERSIONS, 0), -1):
        stored = documents.earlier(published_path(task_id), version)
        before = _as_published(task_id, stored) if stored is not None else None
        told = _receipt(before, keys) if before is not None else None
        if before is not None and told is not None:
            problem = (
                f"what is published now says that it is {shown.state}, and version {version} has a receipt: "
                "somebody overwrote the document"
            )
            return PublishedProof(before, "receipt", _signed(told), problem)
    if shown.state in CLOSED:
        problem = f"it is published as {shown.state} without a receipt that Vault's key signed about it"
        return PublishedProof(shown, "nobody", "anybody with a worker's token can write this", problem)
    return PublishedProof(shown, "nobody", "a receipt comes with the seal")


def _as_published(task_id: str, stored: Stored) -> PublishedDocument:
    return read_published(task_id, stored.document, stored.written_at)


def _receipt(said: PublishedDocument, keys: Mapping[int, str]) -> Receipt | None:
    """Return the document's receipt if its signature holds.

    The key belongs to one Vault, and so to one installation.
    """
    if not isinstance(said, PublishedTask):
        return None
    return verified(
        said.receipt,
        keys,
        task_id=said.task_id,
        digest=said.digest,
        installation=said.installation,
        state=said.state,
    )


def _signed(receipt: Receipt) -> str:
    return f"a receipt that Vault's key signed, sealed at {receipt.sealed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
