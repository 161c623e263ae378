"""What Vault computes with keys that never leave it.

That is signatures, and the audit device's HMACs. A value is found by its HMAC in a stream that never shows the value.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from jitvault.documents.signed import input_of, signed, unsigned
from jitvault.errors import AuditUntrusted, VaultRefused, VaultRejected
from jitvault.vault.client import Vault

MOUNT = "jitvault-transit"
_MOST_KNOWN = 4096
_NO_KEY = "signing key not found"
_NO_KEY_HINT = (
    "An administrator runs `jitvault init` again: it makes a key for each member that jitvault's groups have then. For "
    "an approver, `jitvault approvers add` makes it."
)


class Transit:
    """The Transit mount that `init` provisions, used as `vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def sign(self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None) -> dict[str, Any]:
        """Return `payload` as a DSSE envelope signed by the Transit key `key`.

        In its JSON form.
        """
        envelope = unsigned(payload, payload_type)
        body = {"input": input_of(envelope)}
        try:
            made = self._vault.ask(f"{MOUNT}/sign/{key}", body, op=op)
        except VaultRejected as error:
            if not any(_NO_KEY in reason for reason in error.reasons):
                raise
            raise VaultRejected(
                f"there is no signing key {key} in Vault", status=error.status, reasons=error.reasons, hint=_NO_KEY_HINT
            ) from None
        # vault:v<version>:<base64 signature>
        _, version, signature = made["signature"].split(":")
        return signed(envelope, key=key, version=int(version[1:]), signature=base64.b64decode(signature))

    def public_keys(self, key: str) -> dict[int, str]:
        """Return the base64 Ed25519 public key of each usable version of a key.

        Empty where there is no such key.
        """
        answer = self._vault.read(f"{MOUNT}/keys/{key}")
        if answer is None:
            return {}
        usable = int(answer["data"].get("min_decryption_version") or 1)
        keys = answer["data"]["keys"]
        return {int(v): str(k["public_key"]) for v, k in keys.items() if int(v) >= usable}


class KnownHashes:
    """HMACs of the audit device's present salt, shared by the threads of a process."""

    def __init__(self) -> None:
        self.by_value: dict[str, str] = {}
        self._segments: dict[str, int] = {}

    def forget(self) -> None:
        """Have every HMAC made anew, also those that are being made at this moment."""
        self.by_value = {}

    def forget_at(self, source: str, segment: int) -> None:
        """Forget all where another segment of a source is read than before.

        Another process with the same token may have noticed that the device was made anew.
        """
        if self._segments.get(source, segment) != segment:
            self.forget()
        self._segments[source] = segment


class AuditHash:
    """`sys/audit-hash/<device>`; needs `update` on that path and no sudo.

    Audit devices belong to the root namespace. A worker of another namespace still logs in with a token of the root
    namespace.
    """

    def __init__(self, vault: Vault, device: str, known: KnownHashes | None = None) -> None:
        self._vault = vault.at_root()
        self.device = device
        self._known = known or KnownHashes()

    def remembered(self, value: str) -> str:
        """Return the HMAC of a value that is no secret, without a request where it is known.

        Raises AuditUntrusted like `hash`.
        """
        # those that are known now: an HMAC that was asked for before `forget` is not kept after it
        known = self._known.by_value
        found = known.get(value)
        if found is None:
            found = self.hash(value)
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[value] = found
        return found

    def forget_at(self, source: str, segment: int) -> None:
        """Forget what is remembered where another segment of a source is read than before."""
        self._known.forget_at(source, segment)

    def hash(self, value: str) -> str:
        """Return `hmac-sha256:…` of `value` with the device's current salt.

        Raises AuditUntrusted where Vault refuses.
        """
        try:
            return str(self._vault.ask(f"sys/audit-hash/{self.device}", {"input": value})["hash"])
        except VaultRefused as error:
            raise AuditUntrusted(
                f"Vault does not let the worker use an audit device named {self.device} ({error})",
                hint="Check JITVAULT_AUDIT_DEVICE, and whether the worker's identity is still valid.",
            ) from None
