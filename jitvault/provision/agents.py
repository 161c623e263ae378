"""Show and remove agents with the administrator's identity.

One agent is one Vault entity with one alias and one role (`agent_registration.py` makes them). Its membership in the
agents' group is removed first, so that an interrupted run leaves no agent who may act without the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jitvault.documents.signed import signer_key
from jitvault.errors import NotFound, WrongState
from jitvault.policy.decision import AGENTS
from jitvault.provision.agent_login import KINDS, AgentLogin, Kind, impostors, roles_path
from jitvault.provision.live import Live
from jitvault.vault.client import Vault

OURS = {"managed_by": "jitvault"}
"""What the metadata of an entity has that `agents add` made."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as Vault knows it.

    `kind` is None for a member of the group that `agents add` did not make. `subject` is the name of its alias.
    `cidrs` are the networks that its role accepts, and none is any. `problems` say what keeps it from acting, or lets
    somebody else act for it.
    """

    name: str
    entity: str
    kind: Kind | None
    mount: str
    subject: str
    cidrs: tuple[str, ...]
    environment: Mapping[str, str]
    problems: tuple[str, ...]


class Roles:
    """The roles of auth methods. Each method's are read once, so use a new reader after a change."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._found: dict[str, dict[str, Mapping[str, Any]]] = {}

    def of(self, login: AgentLogin) -> dict[str, Mapping[str, Any]]:
        """Return the roles of the login's auth method by name.

        None for AppRole, where it does not matter: a role id is one role's alone.
        """
        if login.method == "approle":
            return {}
        path = roles_path(login.method, login.mount)
        if path not in self._found:
            found = {name: self._vault.read(f"{path}/{name}") for name in self._vault.list(path)}
            self._found[path] = {name: answer["data"] for name, answer in found.items() if answer}
        return self._found[path]

    def one(self, login: AgentLogin, name: str) -> Mapping[str, Any] | None:
        """Return the agent's own role."""
        if login.method != "approle":
            return self.of(login).get(name)
        answer = self._vault.read(login.role_path(name))
        return None if answer is None else dict(answer["data"])


def remove(vault: Vault, name: str) -> Agent:
    """Remove an agent.

    Its membership goes first, then its role, then its entity with the alias. The worker ends what it holds, since its
    agent is gone. Returns what it was. Raises NotFound, WrongState for an entity that `agents add` did not make.
    """
    entity = entity_of(vault, name)
    if entity is None:
        raise NotFound(f"there is no agent {name}", hint="`jitvault agents list` shows the agents.")
    if not is_ours(entity):
        raise WrongState(
            f"the entity {name} was not made by `jitvault agents add`",
            hint=f"Take it out of the group {AGENTS} yourself, and remove its login where you made it.",
        )
    found = shown(vault, entity, Roles(vault))
    members = members_of(vault)
    if entity["id"] in members:
        vault.write(f"identity/group/name/{AGENTS}", {"member_entity_ids": sorted(members - {entity["id"]})})
    if (login := login_of(entity)) is not None:
        vault.delete(login.role_path(name))
    vault.delete(f"identity/entity/id/{entity['id']}")
    return found


def listed(vault: Vault) -> list[Agent]:
    """Return all members of the agents' group, sorted by name."""
    found = [vault.read(f"identity/entity/id/{each}") for each in sorted(members_of(vault))]
    roles = Roles(vault)
    agents = [shown(vault, answer["data"], roles) for answer in found if answer]
    return sorted(agents, key=lambda agent: agent.name)


def members_of(vault: Vault) -> set[str]:
    """Return the entities in the agents' group. Raises WrongState where there is no such group."""
    answer = vault.read(f"identity/group/name/{AGENTS}")
    if answer is None:
        raise WrongState(f"Vault has no group {AGENTS}", hint="Run `jitvault init` first.")
    return {*(answer["data"].get("member_entity_ids") or ())}


def entity_of(vault: Vault, name: str) -> dict[str, Any] | None:
    """Return the entity of this name."""
    answer = vault.read(f"identity/entity/name/{name}")
    return None if answer is None else dict(answer["data"])


def is_ours(entity: Mapping[str, Any]) -> bool:
    """Return whether `agents add` made an entity."""
    return (entity.get("metadata") or {}).get("managed_by") == OURS["managed_by"]


def login_of(entity: Mapping[str, Any]) -> AgentLogin | None:
    """Return by what an agent of `agents add` logs in: kind, mount and subject. None for others."""
    metadata = entity.get("metadata") or {}
    kind = next((each for each in KINDS if is_ours(entity) and metadata.get("login") == each), None)
    aliases = entity.get("aliases") or ()
    subject = str(aliases[0]["name"]) if aliases else ""
    return AgentLogin(kind, str(metadata.get("mount") or ""), subject=subject) if kind else None


def shown(vault: Vault, entity: Mapping[str, Any], roles: Roles, *, added: AgentLogin | None = None) -> Agent:
    """Return an agent as Vault has it, and what has to be set on its host where it was `added` just now."""
    aliases = entity.get("aliases") or ()
    login = login_of(entity)
    name = str(entity["name"])
    role = roles.one(login, name) if login else None
    return Agent(
        name=name,
        entity=str(entity["id"]),
        kind=login.kind if login else None,
        mount=login.mount if login else mounts_of(aliases),
        subject=", ".join(sorted(str(alias["name"]) for alias in aliases)),
        cidrs=networks_of(role),
        environment=added.environment(name, aliases[0]["name"] if aliases else "") if added else {},
        problems=tuple(_problems(vault, entity, login, role, roles)),
    )


def mounts_of(aliases: Iterable[Mapping[str, Any]]) -> str:
    """Return where an entity logs in, as --mount names it."""
    return ", ".join(sorted(str(alias["mount_path"]).removeprefix("auth/").strip("/") for alias in aliases))


def networks_of(role: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the networks from which a role lets an agent log in; none for any."""
    return tuple(sorted(map(str, (role or {}).get("token_bound_cidrs") or ())))


def _problems(
    vault: Vault, entity: Mapping[str, Any], login: AgentLogin | None, role: Mapping[str, Any] | None, roles: Roles
) -> Iterator[str]:
    aliases = entity.get("aliases") or ()
    if entity.get("disabled"):
        yield "the entity is disabled"
    if Live(vault).key(signer_key(str(entity["id"]))) is None:
        yield "there is no signing key"
    if login is None:
        return
    if len(aliases) != 1:
        yield f"it has {len(aliases)} aliases; expected one"
    if role is None:
        yield "its role is gone"
        return
    yield from _drift(role)
    known = replace(login, authority=str(role.get("certificate") or ""))
    yield from impostors(known, str(entity["name"]), roles.of(known))


def _drift(role: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a role gives more than `agents add` writes."""
    if role.get("token_type") != "batch":
        yield f"its role gives {role.get('token_type')} tokens; expected batch"
    if role.get("token_policies"):
        yield f"its role gives policies of its own ({', '.join(role['token_policies'])})"
    if not role.get("token_no_default_policy"):
        yield "its role gives Vault's `default` policy, which lets it renew any lease whose id it knows"
