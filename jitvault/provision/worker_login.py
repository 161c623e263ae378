"""The worker's AppRole, which `init --worker-approle` creates.

It consists of the auth method, a role, and an entity with a known name. Other auth methods need what only the
administrator knows (an issuer's keys, a CA): docs/operations/worker-identity.md has the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from jitvault.errors import InvalidInput, WrongState
from jitvault.provision.item import Action, Item, Step
from jitvault.provision.live import Live
from jitvault.vault.client import Vault

MOUNT = "approle"
NAME = "jitvault-worker"
_ROLE = f"auth/{MOUNT}/role/{NAME}"
_ENTITY = f"identity/entity/name/{NAME}"
_CIDRS = ("secret_id_bound_cidrs", "token_bound_cidrs")


@dataclass(frozen=True, slots=True)
class WorkerLogin(Item):
    """The AppRole by which the worker logs in, bound to `cidrs`.

    Without any it may act from anywhere.
    """

    kind = "worker's AppRole"
    cidrs: tuple[str, ...]

    label = NAME

    def step(self, live: Live) -> Step:
        lines = _changes(live.vault, self)
        if lines is None:
            return self.create(f"from {', '.join(self.cidrs) or 'anywhere'}")
        return self.update(lines)

    def carry_out(self, vault: Vault, action: Action) -> None:
        """Create or correct the auth method, the role and the entity."""
        methods = (vault.read("sys/auth") or {})["data"]
        if f"{MOUNT}/" not in methods:
            vault.write(f"sys/auth/{MOUNT}", {"type": "approle"}, method="post")
            methods = (vault.read("sys/auth") or {})["data"]
        vault.write(_ROLE, role_body(self), method="post")
        if any(_entity_missing(vault, methods[f"{MOUNT}/"])):
            vault.write(_ENTITY)
            entity = (vault.read(_ENTITY) or {})["data"]["id"]
            alias = {
                "name": _role_id(vault),
                "mount_accessor": methods[f"{MOUNT}/"]["accessor"],
                "canonical_id": entity,
            }
            vault.write("identity/entity-alias", alias)


def worker_login(cidrs: tuple[str, ...]) -> WorkerLogin:
    """Return the AppRole bound to `cidrs`.

    Raises InvalidInput for text that is not a network.
    """
    try:
        return WorkerLogin(tuple(sorted({str(ip_network(cidr)) for cidr in cidrs})))
    except ValueError as error:
        raise InvalidInput(f"--worker-cidr: {error}; expected a CIDR such as 10.0.0.5/32") from None


def role_body(item: WorkerLogin) -> dict[str, Any]:
    """Return the role as it is written.

    A token lives for an hour and can be renewed for up to a day; a secret id lives for 90 days.
    """
    return {
        "bind_secret_id": True,
        "secret_id_bound_cidrs": list(item.cidrs),
        "secret_id_num_uses": 0,
        "secret_id_ttl": 90 * 86400,
        "token_bound_cidrs": list(item.cidrs),
        "token_explicit_max_ttl": 0,
        "token_max_ttl": 86400,
        "token_no_default_policy": True,
        "token_num_uses": 0,
        "token_period": 0,
        "token_policies": ["jitvault-worker"],
        "token_ttl": 3600,
        "token_type": "service",
    }


def _changes(vault: Vault, item: WorkerLogin) -> tuple[str, ...] | None:
    """Return what has to change, as lines; None where the role does not exist.

    Raises WrongState where the path has another auth method.
    """
    method = ((vault.read("sys/auth") or {})["data"]).get(f"{MOUNT}/")
    if method is None:
        return None
    if method.get("type") != "approle":
        raise WrongState(f"the auth method at auth/{MOUNT}/ is {method.get('type')}, expected approle")
    found = vault.read(_ROLE)
    if found is None:
        return None
    return (*_changed(found["data"], role_body(item)), *_entity_missing(vault, method))


def _changed(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        present = sorted(map(_network, found.get(name) or ())) if name in _CIDRS else found.get(name)
        if present != value:
            yield f"{name}: {present} → {value}"


def _entity_missing(vault: Vault, method: dict[str, Any]) -> Iterator[str]:
    """Yield a line where the worker's entity lacks the role's alias.

    Without the alias, the first login creates an entity with a random name, which is hard to find when it has to be
    disabled.
    """
    entity = (vault.read(_ENTITY) or {}).get("data") or {}
    aliases = {(alias["name"], alias["mount_accessor"]) for alias in entity.get("aliases") or ()}
    if (_role_id(vault), method["accessor"]) not in aliases:
        yield f"its entity {NAME}"


def _role_id(vault: Vault) -> str:
    return str((vault.read(f"{_ROLE}/role-id") or {})["data"]["role_id"])


def _network(text: str) -> str:
    """Return the network in normal form.

    Vault omits the `/32` of a single address.
    """
    return str(ip_network(text, strict=False))
