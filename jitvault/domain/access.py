"""What a task token may do, as Vault sees it: content-addressed ACL policies and token roles by cap.

A policy's name is the hash of its text, so a policy that an approver saw by name cannot become another.
On renewal only a role's cap counts, and CIDRs exist only on roles (docs/vault-facts.md, "Tokens and wrapping"), so
there is one role for each cap and each network.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from jitvault.domain.canonical import sha256_hex
from jitvault.errors import InvalidInput

ACCESS_POLICY = "jitvault-access-"
ROLE_PREFIX = "jitvault-"
CAPS = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "8h": timedelta(hours=8)}


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """One ACL policy: exactly one readable path, and the token's own two endpoints."""

    name: str
    text: str
    sha256: str


def access_policy(path: str) -> AccessPolicy:
    """The policy that lets a task token read the Vault path `path`, and nothing else."""
    text = (
        f'path "{path}" {{\n  capabilities = ["read"]\n}}\n\n'
        'path "auth/token/lookup-self" {\n  capabilities = ["read"]\n}\n\n'
        'path "auth/token/revoke-self" {\n  capabilities = ["update"]\n}\n'
    )
    sha256 = sha256_hex(text.encode())
    return AccessPolicy(ACCESS_POLICY + sha256[:16], text, sha256)


def role_name(cap: str, network: str | None) -> str:
    """The token role of a cap (`15m`, `1h`, `8h`) and a named network."""
    return f"{ROLE_PREFIX}{cap}" + (f"-{network}" if network else "")


def cap_of(role: str) -> timedelta:
    """The longest life of a token of a role that `role_name` names."""
    return CAPS[role.removeprefix(ROLE_PREFIX).partition("-")[0]]


def smallest_cap(window: timedelta) -> str:
    """The smallest cap that covers `window`. Raises InvalidInput when none does."""
    for cap, length in CAPS.items():
        if window <= length:
            return cap
    raise InvalidInput(f"expected a window of at most {max(CAPS.values())}")
