"""Removing what is left in Vault of requests and tasks that are over, with the administrator's identity.

found = survey(vault, older_than=timedelta(days=30))
remove(vault, found)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from jitvault.documents.tidy import Remains, is_removable
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_REQUESTS, _PUBLISHED = "requests/", "tasks/"


def survey(vault: Vault, *, older_than: timedelta) -> list[Remains]:
    """What can be removed, by Vault's clock, in the order of the task ids."""
    documents, now = Documents(vault), datetime.fromtimestamp(int(vault.health()["server_time_utc"]), UTC)
    requests: dict[str, dict[str, datetime]] = defaultdict(dict)
    for author in documents.names(_REQUESTS):
        for task in documents.names(f"{_REQUESTS}{author}"):
            requests[task.rstrip("/")] |= _written(documents, f"{_REQUESTS}{author}{task}")
    names = {*requests, *documents.names(_PUBLISHED)}
    found = (_remains(documents, name, requests.get(name, {})) for name in sorted(names))
    return [one for one in found if is_removable(one, now, older_than)]


def remove(vault: Vault, found: Sequence[Remains]) -> int:
    """Remove all of it, with all versions, but for what was written since it was found; gives how many documents."""
    documents, removed = Documents(vault), 0
    for one in found:
        for path in one.paths:
            stored = documents.read(path)
            if stored is None:
                # its author was first
                continue
            if stored.written_at not in (*one.requests.values(), one.published_at):
                # somebody asks for it again
                break
            documents.destroy(path)
            removed += 1
    return removed


def _written(documents: Documents, folder: str) -> dict[str, datetime]:
    """The documents directly in a folder, each with when it was written."""
    found = {}
    for name in documents.names(folder):
        stored = documents.read(f"{folder}{name}")
        if stored is not None:
            found[f"{folder}{name}"] = stored.written_at
    return found


def _remains(documents: Documents, task_id: str, requests: dict[str, datetime]) -> Remains:
    published = documents.read(f"{_PUBLISHED}{task_id}")
    if published is None:
        return Remains(task_id, requests)
    return Remains(task_id, requests, str(published.document.get("state", "")), published.written_at)
