"""Documents in the KV mounts `jitvault/` and `jitvault-inbox/`, where all parties meet.

Their paths, and who writes what, are in `jitvault.documents.paths`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from jitvault.documents.paths import DECISIONS, FREEZES, INBOX, REQUESTS, vault_path
from jitvault.errors import VaultRejected
from jitvault.vault.client import Vault
from jitvault.vault.interface import Stored

MOST_READ = 256 * 1024
"""How many bytes of a person's or an agent's document are read, and of one in an inbox.

A spec has at most 64 KiB, and its envelope at most twice that. Vault takes 32 MiB by default, and a decoded document
needs many times its size in memory.
"""
_BOUNDED = (REQUESTS, DECISIONS, FREEZES, INBOX)
_NEVER = datetime.fromtimestamp(0, UTC)


class Documents:
    """Reads and writes of KV version 2, under the identity of `vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def read(self, path: str) -> Stored | None:
        """Return the newest version of the document at `path`.

        None where there is none, or where it was deleted. A document that nests too deeply or is too large to be read
        is returned empty, with the reason in `unread`: it exists, but counts as signed by no one.
        """
        return self._read(path)

    def earlier(self, path: str, version: int) -> Stored | None:
        """Return an older version of a document, as long as Vault keeps it.

        Vault keeps ten versions by default.
        """
        return self._read(path, query=f"?version={version}")

    def _read(self, path: str, query: str = "") -> Stored | None:
        if path.endswith("/"):
            # a folder, as `names` gives it: Vault answers with the document of its name, or with a 500
            return None
        try:
            most = MOST_READ if path.startswith(_BOUNDED) else None
            answer = self._vault.read(vault_path("data", path), most=most, query=query)
        except VaultRejected as error:
            if error.status != HTTPStatus.OK:
                raise
            return Stored({}, _NEVER, unread=error.reasons[0])
        data = (answer or {}).get("data") or {}
        if not isinstance(data.get("data"), dict):
            return None
        metadata = data["metadata"]
        return Stored(data["data"], datetime.fromisoformat(metadata["created_time"]), int(metadata["version"]))

    def get(self, path: str) -> dict[str, Any] | None:
        """Return the document at `path` alone, None where there is none."""
        stored = self.read(path)
        return stored.document if stored else None

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> int:
        """Write a new version of the document, and return which one it is.

        Raises OutcomeUnknown for an answer that does not say which: Vault did not give it.
        """
        return int(self._vault.ask(vault_path("data", path), {"data": dict(document)}, op=op)["version"])

    def names(self, path: str) -> list[str]:
        """Return the names directly below `path`; folders end in `/`."""
        return self._vault.list(vault_path("metadata", path))

    def destroy(self, path: str, *, op: str | None = None) -> None:
        """Remove the document with all its versions."""
        self._vault.delete(vault_path("metadata", path), op=op)
