"""Publish the access templates in use, for agents' hosts.

Several workers share the document. Each writes its own templates when it starts and when it reads its files again, both
an administrator's act, so the last one is right. Each write is an intent in the ledger with the document's digest.
In between, a worker only puts back what no intent explains, and never replaces what another worker published, so that
two workers with different templates do not overwrite each other.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.paths import TEMPLATES
from jitvault.formats.canonical_json import canonical_bytes, sha256_hex
from jitvault.model.kinds import OperationKind
from jitvault.operations import announce
from jitvault.vault.published_templates import published_form


class Found(Enum):
    """What a worker found published when it looked.

    OWN: its own templates. OTHERS: those of another worker, by its intent. UNEXPLAINED: something that no intent
    explains, which is left to the worker that published last. RESTORED: the same, and this worker wrote its own.
    """

    OWN = auto()
    OTHERS = auto()
    UNEXPLAINED = auto()
    RESTORED = auto()


def publish_templates(worker: WorkerContext) -> bool:
    """Write the worker's templates to Vault where others are there.

    Returns whether it did. Raises VaultRefused where the worker's policy is older than this document, and VaultRejected
    for more than Vault takes.
    """
    own = published_form(worker.templates)
    if worker.documents.get(TEMPLATES) == own:
        return False
    _write(worker, own)
    return True


class TemplateWatch:
    """Looks again and again whether the templates are a worker's."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._has_seen_unexplained = False

    def look(self) -> Found:
        """Put the templates back where no intent explains what is there.

        The worker that published last does that at once. Another one does it at its second look, since that one may be
        gone; then its own templates are those that were published last.
        """
        found = self._compare()
        if found is Found.UNEXPLAINED and self._has_seen_unexplained:
            found = Found.RESTORED
        self._has_seen_unexplained = found is Found.UNEXPLAINED
        if found is Found.RESTORED:
            _write(self._worker, published_form(self._worker.templates))
        return found

    def _compare(self) -> Found:
        """Compare what is published with this worker's and the last intent."""
        own, published = published_form(self._worker.templates), self._worker.documents.get(TEMPLATES)
        if published == own:
            return Found.OWN
        intended = self._worker.ledger.last_answer(OperationKind.PUBLISH, TEMPLATES)
        if published is not None and intended == _digest(published):
            return Found.OTHERS
        return Found.RESTORED if intended in (None, _digest(own)) else Found.UNEXPLAINED


def _write(worker: WorkerContext, document: dict[str, Any]) -> None:
    """Write the document; its digest is the recorded answer."""
    op = announce(worker, OperationKind.PUBLISH, TEMPLATES, answer=_digest(document))
    worker.documents.put(TEMPLATES, document, op=op)


def _digest(document: dict[str, Any]) -> str:
    """Return a digest of what is published; "" where it is nothing of ours."""
    try:
        return sha256_hex(canonical_bytes(document))
    except (ValueError, RecursionError):
        return ""
