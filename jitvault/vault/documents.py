"""Documents in the KV mount `jitvault/`: where operators, approvers, agents and the worker meet.

requests/<entity id>/<task>/<submit|grant|end>   written by that entity, signed
decisions/<entity id>/<task>[/withdraw]          written by that entity, signed
inbox/<entity id>/<task>                         written by the worker, read and removed by that entity
tasks/<task>                                     written by the worker
probes/<name>                                    written by the administrator, read by the worker
approvers/<entity id>                            written by the administrator, read by the worker and that entity
checks/<template>                                written by the administrator, read by the worker
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from jitvault.errors import VaultRejected
from jitvault.vault.client import Vault
from jitvault.vault.interface import Stored

MOUNT = "jitvault"
INBOX_LIFE = "600s"
MOST_READ = 256 * 1024
"""So many bytes of what a person or an agent wrote are read: a spec has 64 KiB at most, and its envelope twice that.

Vault takes 32 MiB where nobody says otherwise, and what they become here is many times that.
"""
_OF_PEOPLE = ("requests/", "decisions/", "freezes/")
_NEVER = datetime.fromtimestamp(0, UTC)


class Documents:
    """KV version 2 reads and writes, under the identity of `vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def read(self, path: str) -> Stored | None:
        """The newest version of the document at `path`, or None where there is none or it was deleted.

        One that nests too deeply or is too large to be read is given as an empty one that says so: it is there, and it
        is nobody's word.
        """
        return self._read(path)

    def earlier(self, path: str, version: int) -> Stored | None:
        """An older version of a document, as long as Vault keeps it: ten by default."""
        return self._read(path, query=f"?version={version}")

    def _read(self, path: str, query: str = "") -> Stored | None:
        try:
            most = MOST_READ if path.startswith(_OF_PEOPLE) else None
            answer = self._vault.read(f"{MOUNT}/data/{path}", most=most, query=query)
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
        """The document alone."""
        stored = self.read(path)
        return stored.document if stored else None

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> None:
        self._vault.write(f"{MOUNT}/data/{path}", {"data": dict(document)}, op=op)

    def names(self, path: str) -> list[str]:
        """The names directly below `path`; folders end in `/`."""
        return self._vault.list(f"{MOUNT}/metadata/{path}")

    def deliver(self, path: str, document: Mapping[str, Any], *, op: str) -> None:
        """Leave a document that keeps one version and vanishes by itself after ten minutes.

        It takes back what whoever stole a worker's token set there, so that nothing can be delivered.
        """
        kept = {"max_versions": 1, "delete_version_after": INBOX_LIFE, "cas_required": False}
        self._vault.write(f"{MOUNT}/metadata/{path}", kept, op=op)
        self._vault.write(f"{MOUNT}/data/{path}", {"data": dict(document)}, op=op)

    def destroy(self, path: str, *, op: str | None = None) -> None:
        """Remove the document with all its versions."""
        self._vault.delete(f"{MOUNT}/metadata/{path}", op=op)
