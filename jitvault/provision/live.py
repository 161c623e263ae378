"""The present state of Vault, normalised for comparison.

It is read with the administrator's identity. Vault returns a network of one address without its `/32`, durations as
seconds, and absent lists as null.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from jitvault.errors import VaultUnavailable
from jitvault.model.read_limit import name_of
from jitvault.provision.names import GROUPS, INSTALLATION, KV_MOUNT, TRANSIT_MOUNT
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_ROLE_LISTS = (
    "allowed_entity_aliases",
    "allowed_policies",
    "allowed_policies_glob",
    "disallowed_policies",
    "disallowed_policies_glob",
)
_ROLE_NUMBERS = ("token_explicit_max_ttl", "token_num_uses", "token_period", "explicit_max_ttl", "period")
_ROLE_FLAGS = ("orphan", "renewable", "token_no_default_policy", "token_strictly_bind_ip")


class Live:
    """A reader of Vault's present state.

    Mounts, audit devices, quotas and the list of token roles are read once, so use a new reader after a change. Every
    method raises VaultRefused for an identity that may not read, and VaultUnavailable.
    """

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    @cached_property
    def mounts(self) -> dict[str, dict[str, Any]]:
        """The secrets engines by path, without a slash at the end."""
        return _table(self.vault, "sys/mounts")

    @cached_property
    def audit_devices(self) -> dict[str, dict[str, Any]]:
        # audit devices belong to the root namespace, as the audited headers do
        return _table(self.vault.at_root(), "sys/audit")

    @cached_property
    def quotas(self) -> dict[str, dict[str, Any]]:
        """The rate-limit quotas by name. They belong to the root namespace."""
        root = self.vault.at_root()
        names = root.list("sys/quotas/rate-limit")
        found = {name: root.read(f"sys/quotas/rate-limit/{name}") for name in names}
        return {name: dict(answer["data"]) for name, answer in found.items() if answer}

    def is_mount(self, mount: str, type: str) -> bool:
        """Return whether a mount exists and is of that type."""
        return bool(self.mounts.get(mount, {}).get("type") == type)

    def full_path(self, path: str) -> str:
        """Return a path as a quota names it, with its namespace in front."""
        namespace = (self.vault.connection.namespace or "").strip("/")
        return f"{namespace}/{path}" if namespace else path

    def limited_by_others(self, path: str) -> str:
        """Return the name of a quota that is not jitvault's and limits the path.

        Empty where there is none.
        """
        names = (name for name, found in sorted(self.quotas.items()) if found.get("path") == path)
        return next((name for name in names if name != name_of(path)), "")

    @cached_property
    def token_roles(self) -> frozenset[str]:
        return frozenset(self.vault.list("auth/token/roles"))

    def installation(self) -> tuple[bool, object]:
        """Return whether the installation's document ever existed, and its id.

        The id is None where there is none now.
        """
        if KV_MOUNT not in self.mounts:
            return False, None
        answer = self.vault.read(INSTALLATION)
        document = ((answer or {}).get("data") or {}).get("data") or {}
        existed = answer is not None or self.vault.read(f"{KV_MOUNT}/metadata/installation") is not None
        return existed, document.get("id")

    def document(self, path: str) -> dict[str, Any] | None:
        """Return the document at `path`, None where there is none.

        The path is below jitvault's mount.
        """
        return Documents(self.vault).get(path) if KV_MOUNT in self.mounts else None

    def policy(self, name: str) -> str | None:
        answer = self.vault.read(f"sys/policies/acl/{name}")
        return None if answer is None else str(answer["data"]["policy"])

    def role(self, name: str) -> dict[str, Any] | None:
        answer = self.vault.read(f"auth/token/roles/{name}") if name in self.token_roles else None
        return None if answer is None else normal_role(answer["data"])

    def group(self, name: str) -> dict[str, Any] | None:
        return self.data(f"identity/group/name/{name}")

    def key(self, name: str) -> dict[str, Any] | None:
        return self.data(f"{TRANSIT_MOUNT}/keys/{name}") if TRANSIT_MOUNT in self.mounts else None

    def plain_response_keys(self, mount: str) -> tuple[str, ...]:
        answer = self.vault.read(f"sys/mounts/{mount}/tune") or {}
        return tuple(answer["data"].get("audit_non_hmac_response_keys") or ())

    def data(self, path: str) -> dict[str, Any] | None:
        """Return the data that Vault has at `path`, None where there is none."""
        answer = self.vault.read(path)
        return None if answer is None else dict(answer.get("data") or {})

    def signers(self) -> frozenset[str]:
        """Return the entity ids of all members of jitvault's groups.

        Members of nested groups are included.
        """
        found: set[str] = set()
        seen: set[str] = set()
        waiting = [group for name in GROUPS if (group := self.group(name)) is not None]
        while waiting:
            group = waiting.pop()
            if group["id"] in seen:
                continue
            seen.add(group["id"])
            found.update(group.get("member_entity_ids") or ())
            waiting.extend(self._groups(group.get("member_group_ids") or ()))
        return frozenset(found)

    def _groups(self, group_ids: Iterable[str]) -> Iterable[dict[str, Any]]:
        for group_id in group_ids:
            answer = self.vault.read(f"identity/group/id/{group_id}")
            if answer is not None:
                yield answer["data"]


def _table(vault: Vault, path: str) -> dict[str, dict[str, Any]]:
    answer = vault.read(path)
    if answer is None:
        raise VaultUnavailable(f"Vault at {vault.connection.address} has no {path}")
    return {str(key).rstrip("/"): value for key, value in answer["data"].items()}


def normal_role(data: dict[str, Any]) -> dict[str, Any]:
    """Return a token role in normal form, with absent fields empty.

    `data` is what Vault returns, or what is written.
    """
    role: dict[str, Any] = {name: sorted(data.get(name) or ()) for name in _ROLE_LISTS}
    role |= {name: int(data.get(name) or 0) for name in _ROLE_NUMBERS}
    role |= {name: bool(data.get(name)) for name in _ROLE_FLAGS}
    role["token_type"] = str(data.get("token_type") or "")
    role["path_suffix"] = str(data.get("path_suffix") or "")
    role["token_bound_cidrs"] = sorted(_cidr(str(cidr)) for cidr in data.get("token_bound_cidrs") or ())
    return role


def _cidr(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return text  # not a network, so it is not what jitvault needs, and the difference will show it
