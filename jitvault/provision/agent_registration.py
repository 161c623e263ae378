"""Register agents with the administrator's identity.

    add(vault, {"churn-bot": login}, keeps_networks=False)

The agents' membership in their group is written last, of all of them at once, so that an interrupted run leaves no
agent who may act without the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from jitvault.documents.signed import signer_key
from jitvault.errors import Denied, JitvaultError, VaultUnavailable, WrongState
from jitvault.policy.decision import AGENTS
from jitvault.provision.agent_login import AgentLogin, check_name, impostors
from jitvault.provision.agents import OURS, Agent, Roles, entity_of, is_ours, login_of, members_of, networks_of, shown
from jitvault.provision.items import SigningKey
from jitvault.provision.live import Live
from jitvault.provision.plan import carry_out, difference
from jitvault.vault.client import Vault


@dataclass(slots=True)
class Registered:
    """What became of the agents: those that are registered, and by name why the others are not."""

    agents: list[Agent] = field(default_factory=list)
    failed: dict[str, JitvaultError] = field(default_factory=dict)


def add(vault: Vault, logins: Mapping[str, AgentLogin], *, keeps_networks: bool) -> Registered:
    """Register an agent with each of these names, or correct the one that there is.

    All logins are at one auth method. With `keeps_networks` an agent goes on to log in from where it could until now.
    A name fails for itself alone: InvalidInput for one that cannot be used, WrongState where Vault has an entity of
    this name that is not jitvault's, Denied where somebody else has or could have its identity. Raises WrongState where
    Vault lacks the auth method or the group. Where Vault stops answering, the names that are left fail with that.
    """
    members_of(vault)
    registration = _Registration(vault, next(iter(logins.values())))
    registered = Registered()
    entities: dict[str, str] = {}
    away: VaultUnavailable | None = None
    for name, login in logins.items():
        if away is not None:
            registered.failed[name] = away
            continue
        try:
            entities[name] = registration.register(name, login, keeps_networks=keeps_networks)
        except JitvaultError as error:
            registered.failed[name] = error
            away = error if isinstance(error, VaultUnavailable) else None
    _join(vault, {*entities.values()})
    # as Vault has them now: somebody may have written a role meanwhile
    roles = Roles(vault)
    for name, entity_id in entities.items():
        entity = (vault.read(f"identity/entity/id/{entity_id}") or {"data": {"id": entity_id, "name": name}})["data"]
        registered.agents.append(shown(vault, entity, roles, added=logins[name]))
    return registered


def _join(vault: Vault, entities: set[str]) -> None:
    """Add the entities to the agents' group, with one write."""
    members = members_of(vault)
    if not entities <= members:
        vault.write(f"identity/group/name/{AGENTS}", {"member_entity_ids": sorted(members | entities)})


class _Registration:
    """Writes what an agent is made of, besides its membership. What all of them share is read once."""

    def __init__(self, vault: Vault, login: AgentLogin) -> None:
        self._vault = vault
        self._accessor = _accessor(vault, login)
        self._roles = Roles(vault)

    def register(self, name: str, login: AgentLogin, *, keeps_networks: bool) -> str:
        """Write one agent; return the id of its entity."""
        vault = self._vault
        check_name(name)
        before = entity_of(vault, name)
        if before is not None and not is_ours(before):
            raise WrongState(
                f"there is an entity {name} that `agents add` did not make",
                hint="Choose another name. The logins of that entity would otherwise be this agent's, too.",
            )
        known = login_of(before) if before is not None else None
        if keeps_networks and known is not None:
            kept = networks_of(self._roles.one(known, name))
            login = replace(login, cidrs=tuple(str(ip_network(each)) for each in kept))
        self._check(name, login, before, known)
        # the entity first: it says that the role is ours, also where this run ends before the next line
        metadata = OURS | {"login": login.kind, "mount": login.mount}
        vault.write(f"identity/entity/name/{name}", {"metadata": metadata})
        vault.write(login.role_path(name), login.role(), method="post")
        entity = entity_of(vault, name) or {}
        _set_alias(vault, entity, login.subject or _role_id(vault, login, name), self._accessor)
        for step in difference([SigningKey(signer_key(entity["id"]))], Live(vault)).changes:
            carry_out(vault, step)
        return str(entity["id"])

    def _check(self, name: str, login: AgentLogin, before: Mapping[str, Any] | None, known: AgentLogin | None) -> None:
        """Raise Denied where somebody else has or could have the agent's identity. Nothing was written yet."""
        has_role = known is not None and (known.kind, known.mount) == (login.kind, login.mount)
        if not has_role and self._roles.one(login, name) is not None:
            raise Denied(
                f"nothing was written: there is a role {name} at auth/{login.mount}/ that `agents add` did not make",
                hint="Whoever logs in by it now would be this agent. Choose another name, or remove that role first.",
            )
        if login.subject:
            _check_free(self._vault, login, self._accessor, own=before)
        if why := [*impostors(login, name, self._roles.of(login))]:
            raise Denied(
                f"nothing was written: at auth/{login.mount}/ {why[0]}",
                hint="Give agents an auth method of their own, enabled at another path, and name it with --mount.",
            )


def _accessor(vault: Vault, login: AgentLogin) -> str:
    """Return the accessor of the auth method.

    Raises WrongState where the method is not there, or cannot check a JWT yet.
    """
    method = ((vault.read("sys/auth") or {})["data"]).get(f"{login.mount}/")
    if method is None or method.get("type") not in _types(login):
        found = f"it is of type {method['type']}" if method else "nothing is there"
        raise WrongState(
            f"auth/{login.mount}/ is no auth method of type {login.method}: {found}",
            hint=f"Enable it first (`bao auth enable -path={login.mount} {login.method}`), or name another with "
            "--mount. docs/agents.md has the commands for each kind.",
        )
    if login.method == "jwt":
        config = (vault.read(f"auth/{login.mount}/config") or {}).get("data") or {}
        if not any(config.get(key) for key in ("jwt_validation_pubkeys", "jwks_url", "oidc_discovery_url")):
            raise WrongState(
                f"auth/{login.mount}/ knows no issuer's keys, so it can check no JWT",
                hint=f"Write them to auth/{login.mount}/config first: docs/agents.md has the command for each kind.",
            )
    return str(method["accessor"])


def _types(login: AgentLogin) -> tuple[str, ...]:
    return ("jwt", "oidc") if login.method == "jwt" else (login.method,)


def _role_id(vault: Vault, login: AgentLogin, name: str) -> str:
    return str((vault.read(f"{login.role_path(name)}/role-id") or {})["data"]["role_id"])


def _check_free(vault: Vault, login: AgentLogin, accessor: str, *, own: Mapping[str, Any] | None) -> None:
    """Raise Denied where the alias belongs to another entity.

    The two agents would be one.
    """
    wanted = {"alias_name": login.subject, "alias_mount_accessor": accessor}
    answer = vault.write("identity/lookup/entity", wanted, method="post")
    found = answer.get("data") or {}
    if not found or (own is not None and found.get("id") == own["id"]):
        return
    what = "common name" if login.method == "cert" else "subject"
    raise Denied(
        f"nothing was written: the {what} {login.subject} at auth/{login.mount}/ is the entity {found.get('name')}",
        hint="Vault tells entities of one auth method apart by that name alone, so both agents would be one. Give this "
        f"one another {what}, or an auth method of its own (--mount).",
    )


def _set_alias(vault: Vault, entity: Mapping[str, Any], name: str, accessor: str) -> None:
    """Give the entity this one alias.

    Another one, of a login that was changed, is removed.
    """
    present = {(alias["name"], alias["mount_accessor"]): alias["id"] for alias in entity.get("aliases") or ()}
    for key, alias_id in present.items():
        if key != (name, accessor):
            vault.delete(f"identity/entity-alias/id/{alias_id}")
    if (name, accessor) not in present:
        alias = {"name": name, "mount_accessor": accessor, "canonical_id": entity["id"]}
        vault.write("identity/entity-alias", alias)
