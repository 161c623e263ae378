"""What jitvault needs of Vault, as protocols and values.

`jitvault.vault` implements it with hvac; a read cache is the only other implementation of a part. Every method can
raise VaultUnavailable, OutcomeUnknown, VaultRefused or VaultRejected (jitvault.errors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jitvault.formats.secret import Secret

INVALID_LEASE = "invalid lease"
"""What Vault answers to the look-up of a lease that does not exist."""

LEASE_NOT_FOUND = "lease not found"
"""What Vault answers to the renewal of a lease that is not in its storage."""


@dataclass(frozen=True, slots=True)
class WrappedToken:
    """The answer to a wrapped create.

    The wrapping token, and the accessor of the token inside.
    """

    wrapping_token: Secret
    wrapped_accessor: str
    creation_path: str
    wrap_ttl_s: int


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What Vault says of a live token.

    `expires_at` is Vault's own time, None for a token that does not expire.
    """

    accessor: str
    entity_id: str
    display_name: str
    policies: tuple[str, ...]
    path: str
    meta: Mapping[str, str]
    ttl_s: int
    orphan: bool
    renewable: bool
    issued_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What Vault says of a lease that it still holds.

    `revoke_error` is set on a lease whose revocation Vault has given up, where Vault says so: HashiCorp Vault does not
    in a look-up. With a `ttl_s` of 0 or less, Vault is to revoke the lease by itself: it has not begun, is trying, or
    has given up. Tokens are leases too; of those only a task token is `renewable`, a wrapping token is not.
    """

    lease_id: str
    issued_at: datetime | None
    expires_at: datetime | None
    ttl_s: int
    renewable: bool
    revoke_error: str | None


@dataclass(frozen=True, slots=True)
class Entity:
    """A person or an agent in Vault. One person should be one entity.

    `person` names the person by the metadata that an administrator gave the entity, in lower case; "" where there is
    none.
    """

    id: str
    name: str
    disabled: bool
    group_ids: frozenset[str]
    person: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document in Vault, with its version and when Vault wrote it.

    `unread` says why the document could not be read; then `document` is empty, and the time of its write is unknown.
    """

    document: dict[str, Any]
    written_at: datetime
    version: int = 0
    unread: str = ""


class Tokens(Protocol):
    """Task tokens: created wrapped, looked up, renewed and revoked."""

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

    def renew_accessor(self, accessor: str, seconds: int, *, op: str) -> int: ...

    def role(self, name: str) -> dict[str, Any] | None: ...

    def roles(self) -> list[str]: ...


class Leases(Protocol):
    """Leases: looked up, listed, renewed and revoked."""

    def lookup(self, lease_id: str, *, op: str | None = None, revoked: bool = False) -> LeaseRecord | None: ...

    def given_up(self) -> Mapping[str, str]: ...

    def revoke(self, lease_id: str, *, op: str) -> None: ...

    def renew(self, lease_id: str, seconds: int, *, op: str) -> int | None: ...

    def queue(self, lease_id: str, *, op: str) -> None: ...

    def revoke_prefix(self, prefix: str, *, op: str) -> None: ...

    def revoke_force(self, lease_id: str, *, op: str) -> None: ...

    def list(self, prefix: str, *, op: str | None = None) -> list[str]: ...


class Hasher(Protocol):
    """The audit device's HMAC of values."""

    device: str

    def hash(self, value: str) -> str: ...

    def remembered(self, value: str) -> str:
        """Return the HMAC of a value that is no secret.

        It is of the salt of the segment that `forget_at` named last, or of a later one.
        """
        ...

    def forget_at(self, source: str, segment: int) -> None: ...


class Signer(Protocol):
    """Signatures by Transit keys."""

    def sign(
        self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None
    ) -> dict[str, Any]: ...

    def public_keys(self, key: str) -> dict[int, str]: ...


class Documents(Protocol):
    """Documents in the KV mounts `jitvault/` and `jitvault-inbox/`."""

    def read(self, path: str) -> Stored | None: ...

    def earlier(self, path: str, version: int) -> Stored | None: ...

    def get(self, path: str) -> dict[str, Any] | None: ...

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> int: ...

    def names(self, path: str) -> list[str]: ...

    def destroy(self, path: str, *, op: str | None = None) -> None: ...


class Identity(Protocol):
    """Entities and groups."""

    def by_id(self, entity_id: str) -> Entity | None: ...

    def by_name(self, name: str) -> Entity | None: ...

    def groups_of(self, entity: Entity, among: Sequence[str]) -> tuple[str, ...]: ...

    def has_group(self, group: str) -> bool: ...

    def members_of(self, group: str) -> list[str]:
        """Return the direct members of a group.

        Members through another group are left out.
        """
        ...


class Reader(Protocol):
    """Plain reads of what an administrator configured.

    ACL policies and engine roles.
    """

    def read(self, path: str) -> dict[str, Any] | None: ...

    def list(self, path: str) -> list[str]: ...

    def capabilities(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return what this client's own token may do at each path.

        Raises VaultRefused for a token that may not ask.
        """
        ...
