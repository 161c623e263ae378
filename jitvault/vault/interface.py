"""What the services need of Vault. `jitvault.vault` implements it with hvac; there is no other implementation.

Every method can raise VaultUnavailable, OutcomeUnknown, VaultRefused or VaultRejected (jitvault.errors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jitvault.formats.secret import Secret


@dataclass(frozen=True, slots=True)
class WrappedToken:
    """The answer to a wrapped create: what unwraps, and the accessor of what is inside."""

    wrapping_token: Secret
    wrapping_accessor: str
    wrapped_accessor: str
    creation_path: str
    wrap_ttl_s: int


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What Vault says of a living token. `expires_at` is Vault's own time, None for a token without end."""

    accessor: str
    entity_id: str
    display_name: str
    policies: tuple[str, ...]
    path: str
    meta: Mapping[str, str]
    ttl_s: int
    explicit_max_ttl_s: int
    orphan: bool
    renewable: bool
    issued_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What Vault says of a lease that it still holds. `revoke_error` is set on one that it has given up on revoking, as
    far as it says so: HashiCorp Vault does not in a look-up.

    With a `ttl_s` of 0 or less Vault is to end it by itself: it has not begun, is trying, or has given up.
    Tokens are leases too; of those only a task token is `renewable`, a wrapping token is not.
    """

    lease_id: str
    issued_at: datetime | None
    expires_at: datetime | None
    ttl_s: int
    renewable: bool
    revoke_error: str | None


@dataclass(frozen=True, slots=True)
class Entity:
    """A person or an agent. One person should be one entity, also with several logins.

    `person` is who it is by the metadata that an administrator gave it, in small letters; "" where nobody said so.
    """

    id: str
    name: str
    disabled: bool
    group_ids: frozenset[str]
    person: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document in Vault, when it was written by Vault's own clock, and which version of it this is.

    `unread` says why it could not be read: then it is empty, and nothing is known of when it was written.
    """

    document: dict[str, Any]
    written_at: datetime
    version: int = 0
    unread: str = ""


class Tokens(Protocol):
    def create_wrapped(
        self,
        role: str,
        *,
        policies: Sequence[str],
        meta: Mapping[str, str],
        ttl_s: int,
        wrap_ttl_s: int,
        op: str,
    ) -> WrappedToken: ...

    def lookup_self(self) -> TokenFacts: ...

    def lookup_accessor(self, accessor: str, *, op: str | None = None) -> TokenFacts | None: ...

    def revoke_accessor(self, accessor: str, *, op: str) -> bool: ...

    def renew_accessor(self, accessor: str, seconds: int, *, op: str) -> None: ...

    def role(self, name: str) -> dict[str, Any] | None: ...

    def roles(self) -> list[str]: ...


class Leases(Protocol):
    def lookup(self, lease_id: str, *, op: str | None = None) -> LeaseRecord | None: ...

    def given_up(self) -> Mapping[str, str]: ...

    def revoke(self, lease_id: str, *, op: str) -> None: ...

    def renew(self, lease_id: str, seconds: int, *, op: str) -> int | None: ...

    def queue(self, lease_id: str, *, op: str) -> None: ...

    def revoke_prefix(self, prefix: str, *, op: str) -> None: ...

    def revoke_force(self, lease_id: str, *, op: str) -> None: ...

    def list(self, prefix: str, *, op: str | None = None) -> list[str]: ...


class Hasher(Protocol):
    device: str

    def hash(self, value: str) -> str: ...


class Signer(Protocol):
    def sign(
        self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None
    ) -> dict[str, Any]: ...

    def public_keys(self, key: str) -> dict[int, str]: ...


class Documents(Protocol):
    def read(self, path: str) -> Stored | None: ...

    def earlier(self, path: str, version: int) -> Stored | None: ...

    def get(self, path: str) -> dict[str, Any] | None: ...

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> None: ...

    def names(self, path: str) -> list[str]: ...

    def deliver(self, path: str, document: Mapping[str, Any], *, op: str) -> None: ...

    def destroy(self, path: str, *, op: str | None = None) -> None: ...


class Identity(Protocol):
    def by_id(self, entity_id: str) -> Entity | None: ...

    def by_name(self, name: str) -> Entity | None: ...

    def groups_of(self, entity: Entity, among: Sequence[str]) -> tuple[str, ...]: ...

    def has_group(self, group: str) -> bool: ...

    def members_of(self, group: str) -> list[str]:
        """The members of a group, but for those who are so by another group."""
        ...


class Reader(Protocol):
    """Plain reads of what an administrator configured: ACL policies and engine roles."""

    def read(self, path: str) -> dict[str, Any] | None: ...
