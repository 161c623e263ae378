"""Remove documents of old requests and finished tasks from Vault.

This needs the administrator's identity. found = survey(vault, older_than=timedelta(days=30)) remove(vault, found)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from jitvault.documents.paths import PUBLISHED, REQUESTS, published_path
from jitvault.documents.published_task import read_published
from jitvault.documents.tidy import Remains, is_removable
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents


def survey(vault: Vault, *, older_than: timedelta) -> list[Remains]:
    """Return what can be removed, by Vault's clock, ordered by task id."""
    documents = Documents(vault)
    now = datetime.fromtimestamp(int(vault.health()["server_time_utc"]), UTC)
    requests: dict[str, dict[str, datetime]] = defaultdict(dict)
    for author in documents.names(REQUESTS):
        for task in documents.names(f"{REQUESTS}{author}"):
            requests[task.rstrip("/")] |= _written(documents, f"{REQUESTS}{author}{task}")
    names = {*requests, *documents.names(PUBLISHED)}
    found = (_remains(documents, name, requests.get(name, {})) for name in sorted(names))
    return [remains for remains in found if is_removable(remains, now, older_than)]


def remove(vault: Vault, found: Sequence[Remains]) -> int:
    """Remove the documents with all versions; return how many there were.

    A task is left alone from the first document on that was written since `survey`.
    """
    documents = Documents(vault)
    removed = 0
    for remains in found:
        for path in remains.paths:
            stored = documents.read(path)
            if stored is None:
                # its author removed it meanwhile
                continue
            if stored.written_at not in (*remains.requests.values(), remains.published_at):
                # the task was requested again
                break
            documents.destroy(path)
            removed += 1
    return removed


def _written(documents: Documents, folder: str) -> dict[str, datetime]:
    """Return when each document directly in a folder was written, by path."""
    found = {}
    for name in documents.names(folder):
        stored = documents.read(f"{folder}{name}")
        if stored is not None:
            found[f"{folder}{name}"] = stored.written_at
    return found


def _remains(documents: Documents, task_id: str, requests: dict[str, datetime]) -> Remains:
    published = documents.read(published_path(task_id))
    if published is None:
        return Remains(task_id, requests)
    said = read_published(task_id, published.document, published.written_at)
    return Remains(task_id, requests, str(said.state), said.written_at)
