"""The audit device's HMAC of a value.

A value is found by its HMAC in a stream that never shows the value.
"""

from __future__ import annotations

from jitvault.errors import AuditUntrusted, VaultRefused
from jitvault.vault.client import Vault


class AuditHash:
    """`sys/audit-hash/<device>`; needs `update` on that path and no sudo.

    Audit devices belong to the root namespace. A worker of another namespace still logs in with a token of the root
    namespace.
    """

    def __init__(self, vault: Vault, device: str) -> None:
        self._vault = vault.at_root()
        self.device = device

    def hash(self, value: str) -> str:
        """Return `hmac-sha256:…` of `value` with the device's current salt.

        Raises AuditUntrusted where Vault refuses.
        """
        try:
            return str(self._vault.write(f"sys/audit-hash/{self.device}", {"input": value})["data"]["hash"])
        except VaultRefused as error:
            raise AuditUntrusted(
                f"Vault does not let the worker use an audit device named {self.device} ({error})",
                hint="Check JITVAULT_AUDIT_DEVICE, and whether the worker's identity is still valid.",
            ) from None
