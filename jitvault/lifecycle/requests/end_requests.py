"""List requests to end a task that no worker has acted on yet.

The list is for a person who looks at the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from jitvault.documents.paths import REQUESTS, request_path
from jitvault.documents.signed import EndDocument, parse_signed, payload_of
from jitvault.errors import SecurityFinding, VaultRefused
from jitvault.formats.rfc3339 import rfc3339
from jitvault.vault.interface import Documents


def pending_end_requests(
    documents: Documents, task_id: str, *, own: str, names: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the signed requests to end the task that the caller may see.

    These are the caller's own, and for an auditor everyone's. `own` is the caller's entity, and `names` maps entity ids
    to names. Each request is `{by, at, reason, note}`, with `at` by Vault's clock. Only its author can have written it;
    whether the author may end the task is for the worker to decide.
    """
    try:
        authors = sorted(name.rstrip("/") for name in documents.names(REQUESTS))
    except VaultRefused:
        authors = [own]
    found = []
    for entity in authors:
        asked = _asked(documents, entity, task_id)
        if asked is not None:
            found.append({"by": "you" if entity == own else names.get(entity, entity), **asked})
    return found


def _asked(documents: Documents, entity: str, task_id: str) -> dict[str, str] | None:
    with suppress(SecurityFinding, VaultRefused):
        stored = documents.read(request_path(entity, task_id, "end"))
        if stored is not None:
            document = parse_signed(EndDocument, payload_of(stored.document), task=task_id, entity=entity)
            return {"at": rfc3339(stored.written_at), "reason": document.reason, "note": document.note}
    return None
