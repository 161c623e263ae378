"""Who asked for the end of a task, as long as no worker has taken that up: for whoever looks at it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jitvault.documents.dsse import payload_of
from jitvault.documents.signed import EndDocument, parse_signed
from jitvault.errors import SecurityFinding, VaultRefused
from jitvault.vault.interface import Documents


def ends_asked_for(documents: Documents, task_id: str, *, own: str, names: Mapping[str, str]) -> list[dict[str, str]]:
    """The signed requests to end the task that the caller may see: one's own, and everybody's for an auditor.

    `own` is the caller's entity, `names` maps entity ids to names. Each is `{by, at, reason, note}`, `at` by Vault's
    clock. Only their author can write there; whether the author may end the task the worker decides.
    """
    try:
        authors = sorted(name.rstrip("/") for name in documents.names("requests/"))
    except VaultRefused:
        authors = [own]
    found = []
    for entity in authors:
        asked = _asked(documents, entity, task_id)
        if asked is not None:
            found.append({"by": "you" if entity == own else names.get(entity, entity), **asked})
    return found


def names_in(content: Mapping[str, Any]) -> dict[str, str]:
    """The names of the people that a revision names, by entity."""
    return {content[part]["entity"]: content[part]["name"] for part in ("requester", "agent", "owner")}


def _asked(documents: Documents, entity: str, task_id: str) -> dict[str, str] | None:
    with suppress(SecurityFinding, VaultRefused):
        stored = documents.read(f"requests/{entity}/{task_id}/end")
        if stored is not None:
            paper = parse_signed(EndDocument, payload_of(stored.document), task=task_id, entity=entity)
            return {"at": stored.written_at.isoformat(), "reason": paper.reason, "note": paper.note}
    return None
