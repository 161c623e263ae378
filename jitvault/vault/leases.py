"""The lease endpoints.

Leases are revoked synchronously and by path, so that each act has an audit line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jitvault.errors import OutcomeUnknown, VaultBusy, VaultRefused, VaultRejected
from jitvault.vault.client import Vault
from jitvault.vault.interface import INVALID_LEASE, LEASE_NOT_FOUND, LeaseRecord
from jitvault.vault.tokens import checked

_NOT_RENEWED = ("lease is not renewable", LEASE_NOT_FOUND, "lease expired")


class Leases:
    """The lease endpoints, under the identity of `vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._may_list_irrevocable = True

    def lookup(self, lease_id: str, *, op: str | None = None, revoked: bool = False) -> LeaseRecord | None:
        """Return the lease, None when Vault says `invalid lease`.

        That answer alone proves nothing.

        `revoked` says that Vault acknowledged the lease's revocation. Then a lease whose time is over may exist in
        Vault's memory alone, and until Vault restarts every look-up finds it there. So Vault's storage is asked as
        well, and None is returned when the lease is not in it (docs/vault-facts.md, "Revocation").
        """
        try:
            found = self._vault.ask(
                "sys/leases/lookup", {"lease_id": lease_id}, op=op, is_lookup=True, about={"id": lease_id}
            )
        except VaultRejected as error:
            if any(INVALID_LEASE in reason for reason in error.reasons):
                return None
            raise
        record = _record(found)
        # a lease with a TTL of 0 may live for a part of a second, and could then be renewed
        if revoked and record.ttl_s < 0 and not record.revoke_error and not self._is_stored(lease_id, op=op):
            return None
        return record

    def _is_stored(self, lease_id: str, *, op: str | None) -> bool:
        """Return whether Vault's storage has a lease whose time is over.

        A renewal reads the storage. Vault refuses to renew such a lease, and the reason tells whether it exists. What
        is refused is no act, so the renewal has the look-up's operation id. Where Vault gives no reason, the look-up
        that found the lease stands.
        """
        try:
            self._vault.write(f"sys/leases/renew/{lease_id}", {"increment": 1}, op=op)
        except VaultRejected as error:
            return not any(LEASE_NOT_FOUND in reason for reason in error.reasons)
        except (OutcomeUnknown, VaultBusy, VaultRefused):
            return True
        return True

    def given_up(self) -> Mapping[str, str]:
        """Return the leases whose revocation Vault has given up, with its reasons.

        Needs sudo; empty where the worker may not read the list, and after a refusal Vault is not asked again.
        HashiCorp Vault says it only in this list, OpenBao from 2.6 on also in each look-up.
        """
        if not self._may_list_irrevocable:
            return {}
        try:
            answer = self._vault.read("sys/leases", query="?type=irrevocable") or {}
        except (VaultRefused, VaultRejected):
            self._may_list_irrevocable = False
            return {}
        listed = answer.get("data", {}).get("leases") or []
        return {str(lease["lease_id"]): str(lease.get("error") or "no reason given") for lease in listed}

    def revoke(self, lease_id: str, *, op: str) -> None:
        """Revoke one lease and wait for the backend.

        Raises VaultRejected when the backend failed. `sync` is always sent, because the API's default is not the
        documented one. The lease id is in the path, where the audit device shows it in plain text.
        """
        self._vault.write(f"sys/leases/revoke/{lease_id}", {"sync": True}, op=op)

    def renew(self, lease_id: str, seconds: int, *, op: str) -> int | None:
        """Set the lease's remaining life to `seconds`, longer or shorter.

        Returns the life in seconds that Vault granted; None where there is no such lease, or its kind cannot be
        renewed. The lease id is in the path, as for a revocation. Raises VaultRejected when the backend failed.
        """
        try:
            answer = self._vault.write(f"sys/leases/renew/{lease_id}", {"increment": checked(seconds)}, op=op)
        except VaultRejected as error:
            if any(words in reason for reason in error.reasons for words in _NOT_RENEWED):
                return None
            raise
        return int(answer.get("lease_duration") or 0)

    def queue(self, lease_id: str, *, op: str) -> None:
        """Have Vault revoke one lease by itself.

        Vault tries six times in about nine minutes, and writes no line about it.
        """
        self._vault.write(f"sys/leases/revoke/{lease_id}", {"sync": False}, op=op)

    def revoke_prefix(self, prefix: str, *, op: str) -> None:
        """Revoke everything below `prefix` (needs sudo).

        Tokens are dead at once; their leases are queued.
        """
        self._vault.write(f"sys/leases/revoke-prefix/{prefix}", op=op)

    def revoke_force(self, lease_id: str, *, op: str) -> None:
        """Make Vault forget one lease, whatever its backend says (needs sudo).

        The credential may stay valid at the backend.
        """
        self._vault.write(f"sys/leases/revoke-force/{lease_id}", op=op)

    def list(self, prefix: str, *, op: str | None = None) -> list[str]:
        """Return the lease ids below `prefix`, one level deep (needs sudo)."""
        return [f"{prefix}/{key}" for key in self._vault.list(f"sys/leases/lookup/{prefix}/", op=op)]


def _record(data: dict[str, Any]) -> LeaseRecord:
    def when(name: str) -> datetime | None:
        return datetime.fromisoformat(data[name]) if data.get(name) else None

    return LeaseRecord(
        lease_id=data["id"],
        issued_at=when("issue_time"),
        expires_at=when("expire_time"),
        ttl_s=int(data.get("ttl") or 0),
        renewable=bool(data.get("renewable")),
        revoke_error=data.get("revoke_error") or None,
    )
