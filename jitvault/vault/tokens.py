"""The token endpoints.

Task tokens are created wrapped through a token role, and looked up, renewed and revoked by accessor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jitvault.audit.create_intent import ttl_word
from jitvault.errors import OutcomeUnknown, VaultRejected
from jitvault.formats.secret import Secret
from jitvault.model.vault_access import REVOCATION_BEGUN, ROLE_PREFIX
from jitvault.vault.client import Vault
from jitvault.vault.interface import TokenFacts, WrappedToken


class Tokens:
    """The token endpoints, under the identity of `vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def create_wrapped(
        self,
        role: str,
        *,
        policies: Sequence[str],
        meta: Mapping[str, str],
        ttl_s: int,
        wrap_ttl_s: int,
        op: str,
    ) -> WrappedToken:
        """Create an orphan service token of `role`, wrapped.

        The token is returned only as a wrapping token. Vault hides its warnings in a wrapped answer, so the caller
        looks the token up afterwards.
        """
        answer = self._vault.write(
            f"auth/token/create/{role}",
            {"policies": list(policies), "meta": dict(meta), "ttl": ttl_word(ttl_s)},
            op=op,
            wrap_ttl_s=wrap_ttl_s,
        )
        wrap = answer["wrap_info"]
        return WrappedToken(
            wrapping_token=Secret(wrap["token"]),
            wrapped_accessor=wrap["wrapped_accessor"],
            creation_path=wrap["creation_path"],
            wrap_ttl_s=int(wrap["ttl"]),
        )

    def lookup_self(self) -> TokenFacts:
        """Return what Vault says of the token of this identity."""
        answer = self._vault.read("auth/token/lookup-self") or {}
        return _facts(answer["data"])

    def lookup_accessor(self, accessor: str, *, op: str | None = None) -> TokenFacts | None:
        """Return the token behind `accessor`, None where Vault accepts none.

        Vault marks a token whose revocation begins, and does not accept it from then on. Where the server died before
        it was done, the marked token stays, and `revoke_accessor` does not find it (docs/vault-facts.md, "Revocation").
        """
        try:
            asked = {"accessor": accessor}
            found = self._vault.ask("auth/token/lookup-accessor", asked, op=op, is_lookup=True, about=asked)
        except VaultRejected as error:
            if any("invalid accessor" in reason for reason in error.reasons):
                return None
            raise
        return None if found.get("num_uses") == REVOCATION_BEGUN else _facts(found)

    def revoke_accessor(self, accessor: str, *, op: str) -> bool:
        """Revoke the token; Vault queues its leases.

        Returns False when Vault knew no such token: for an unknown accessor it answers 200 with a warning, not an
        error.
        """
        return not self._vault.write("auth/token/revoke-accessor", {"accessor": accessor}, op=op).get("warnings")

    def renew_accessor(self, accessor: str, seconds: int, *, op: str) -> int:
        """Set the token's remaining life to `seconds`, longer or shorter.

        Returns the life in seconds that Vault granted, which its role's maximum bounds. The increment is a number,
        which the audit device shows in plain text. Raises VaultRejected where there is no such token, and
        OutcomeUnknown for an answer about another one.
        """
        path = "auth/token/renew-accessor"
        auth = self._vault.write(path, {"accessor": accessor, "increment": checked(seconds)}, op=op)["auth"]
        if auth["accessor"] != accessor:
            raise OutcomeUnknown(f"what answered {path} answered about another token")
        return int(auth["lease_duration"])

    def role(self, name: str) -> dict[str, Any] | None:
        """Return the token role `name`, None where there is none."""
        answer = self._vault.read(f"auth/token/roles/{name}")
        return answer["data"] if answer else None

    def roles(self) -> list[str]:
        """Return the names of jitvault's token roles."""
        return [role for role in self._vault.list("auth/token/roles") if role.startswith(ROLE_PREFIX)]


def checked(seconds: int) -> int:
    """Return an increment. Raises ValueError for less than a second.

    Vault reads an increment of 0 as the longest life that it may give.
    """
    if seconds < 1:
        raise ValueError("a renewal is for a second at least")
    return seconds


def _facts(data: Mapping[str, Any]) -> TokenFacts:
    expires = data.get("expire_time")
    issued = data.get("issue_time")
    return TokenFacts(
        accessor=data.get("accessor") or "",
        entity_id=data.get("entity_id") or "",
        display_name=data.get("display_name") or "",
        policies=tuple(data.get("policies") or ()),
        path=data.get("path") or "",
        meta=data.get("meta") or {},
        ttl_s=int(data.get("ttl") or 0),
        orphan=bool(data.get("orphan")),
        renewable=bool(data.get("renewable")),
        issued_at=datetime.fromisoformat(issued) if issued else None,
        expires_at=datetime.fromisoformat(expires) if expires else None,
    )
