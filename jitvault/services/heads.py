"""Whether a ledger holds what Vault says that it held: the last event of each task that was published."""

from __future__ import annotations

from collections.abc import Mapping

from jitvault.vault.interface import Documents


def published_heads(documents: Documents) -> Mapping[str, tuple[int, str]]:
    """Number and hash of the last published event of each task. Raises VaultRefused, VaultUnavailable."""
    found = {}
    for name in documents.names("tasks/"):
        chain = (documents.get(f"tasks/{name}") or {}).get("chain") or {}
        if chain:
            found[name] = (int(chain["seq"]), str(chain["head"]))
    return found
