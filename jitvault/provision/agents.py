"""Register and remove agents with the administrator's identity.

    add(vault, "churn-bot", login)
    remove(vault, "churn-bot")

One agent is one Vault entity with one alias and one role. The membership in the agents' group is written last and
removed first, so that an interrupted run leaves no agent who may act without the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.documents.signed import signer_key
from jitvault.errors import Denied, NotFound, WrongState
from jitvault.policy.decision import AGENTS
from jitvault.provision.agent_login import KINDS, AgentLogin, Kind, check_name, impostors, roles_path
from jitvault.provision.items import SigningKey
from jitvault.provision.live import Live
from jitvault.provision.plan import carry_out, difference
from jitvault.vault.client import Vault

_OURS = {"managed_by": "jitvault"}


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


def bound_networks(vault: Vault, name: str) -> tuple[str, ...]:
    """Return the networks from which an agent of `agents add` may log in.

    None where there is no such agent, and where it may log in from everywhere.
    """
    entity = _entity(vault, name)
    return _shown(vault, entity).cidrs if entity is not None and _is_ours(entity) else ()


def add(vault: Vault, name: str, login: AgentLogin) -> Agent:
    """Register an agent, or correct the one of this name.

    Raises InvalidInput for a name that cannot be used, WrongState where Vault lacks the auth method or the group, or
    has an entity of this name that is not jitvault's, Denied where somebody else has or could have its identity.
    """
    check_name(name)
    group = _group(vault)
    accessor = _accessor(vault, login)
    before = _entity(vault, name)
    if before is not None and not _is_ours(before):
        raise WrongState(
            f"there is an entity {name} that `agents add` did not make",
            hint="Choose another name. The logins of that entity would otherwise be this agent's, too.",
        )
    if not _has_role(before, login) and vault.read(login.role_path(name)) is not None:
        raise Denied(
            f"nothing was written: there is a role {name} at auth/{login.mount}/ that `agents add` did not make",
            hint="Whoever logs in by it now would be this agent. Choose another name, or remove that role first.",
        )
    if login.subject:
        _check_free(vault, login, accessor, own=before)
    if why := [*impostors(login, name, _roles(vault, login))]:
        raise Denied(
            f"nothing was written: at auth/{login.mount}/ {why[0]}",
            hint="Give agents an auth method of their own, enabled at another path, and name it with --mount.",
        )
    # the entity first: it says that the role is ours, also where this run ends before the next line
    metadata = _OURS | {"login": login.kind, "mount": login.mount}
    vault.write(f"identity/entity/name/{name}", {"metadata": metadata})
    vault.write(login.role_path(name), login.role(), method="post")
    entity = _entity(vault, name) or {}
    _set_alias(vault, entity, login.subject or _role_id(vault, login, name), accessor)
    for step in difference([SigningKey(signer_key(entity["id"]))], Live(vault)).changes:
        carry_out(vault, step)
    members = {*(group.get("member_entity_ids") or ())}
    if entity["id"] not in members:
        vault.write(f"identity/group/name/{AGENTS}", {"member_entity_ids": sorted({*members, entity["id"]})})
    return _shown(vault, _entity(vault, name) or entity, login=login)


def remove(vault: Vault, name: str) -> Agent:
    """Remove an agent.

    Its membership goes first, then its role, then its entity with the alias. The worker ends what it holds, since its
    agent is gone. Returns what it was. Raises NotFound, WrongState for an entity that `agents add` did not make.
    """
    entity = _entity(vault, name)
    if entity is None:
        raise NotFound(f"there is no agent {name}", hint="`jitvault agents list` shows the agents.")
    if not _is_ours(entity):
        raise WrongState(
            f"the entity {name} was not made by `jitvault agents add`",
            hint=f"Take it out of the group {AGENTS} yourself, and remove its login where you made it.",
        )
    found = _shown(vault, entity)
    group = _group(vault)
    members = {*(group.get("member_entity_ids") or ())}
    if entity["id"] in members:
        vault.write(f"identity/group/name/{AGENTS}", {"member_entity_ids": sorted(members - {entity["id"]})})
    if found.kind is not None:
        vault.delete(AgentLogin(found.kind, found.mount).role_path(name))
    vault.delete(f"identity/entity/id/{entity['id']}")
    return found


def listed(vault: Vault) -> list[Agent]:
    """Return all members of the agents' group, sorted by name."""
    ids = _group(vault).get("member_entity_ids") or ()
    found = (vault.read(f"identity/entity/id/{each}") for each in ids)
    return sorted((_shown(vault, dict(answer["data"])) for answer in found if answer), key=lambda agent: agent.name)


def _group(vault: Vault) -> dict[str, Any]:
    answer = vault.read(f"identity/group/name/{AGENTS}")
    if answer is None:
        raise WrongState(f"Vault has no group {AGENTS}", hint="Run `jitvault init` first.")
    return dict(answer["data"])


def _entity(vault: Vault, name: str) -> dict[str, Any] | None:
    answer = vault.read(f"identity/entity/name/{name}")
    return None if answer is None else dict(answer["data"])


def _is_ours(entity: Mapping[str, Any]) -> bool:
    return (entity.get("metadata") or {}).get("managed_by") == _OURS["managed_by"]


def _has_role(entity: Mapping[str, Any] | None, login: AgentLogin) -> bool:
    """Return whether `agents add` made the agent's role of this auth method."""
    metadata = (entity or {}).get("metadata") or {}
    return (metadata.get("login"), metadata.get("mount")) == (login.kind, login.mount)


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


def _roles(vault: Vault, login: AgentLogin) -> dict[str, Mapping[str, Any]]:
    """Return the roles of the auth method by name.

    None for AppRole, where it does not matter: a role id is one role's alone.
    """
    if login.method == "approle":
        return {}
    path = roles_path(login.method, login.mount)
    found = {name: vault.read(f"{path}/{name}") for name in vault.list(path)}
    return {name: answer["data"] for name, answer in found.items() if answer}


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


def _shown(vault: Vault, entity: Mapping[str, Any], *, login: AgentLogin | None = None) -> Agent:
    metadata = entity.get("metadata") or {}
    aliases = entity.get("aliases") or ()
    kind = next((each for each in KINDS if _is_ours(entity) and metadata.get("login") == each), None)
    mount = str(metadata.get("mount") or "") if kind else mounts_of(aliases)
    return Agent(
        name=str(entity["name"]),
        entity=str(entity["id"]),
        kind=kind,
        mount=mount,
        subject=", ".join(sorted(str(alias["name"]) for alias in aliases)),
        cidrs=_networks(vault, kind, mount, str(entity["name"])),
        environment=login.environment(entity["name"], aliases[0]["name"] if aliases else "") if login else {},
        problems=tuple(_problems(vault, entity, kind, mount)),
    )


def mounts_of(aliases: Iterable[Mapping[str, Any]]) -> str:
    """Return where an entity logs in, as --mount names it."""
    return ", ".join(sorted(str(alias["mount_path"]).removeprefix("auth/").strip("/") for alias in aliases))


def _networks(vault: Vault, kind: Kind | None, mount: str, name: str) -> tuple[str, ...]:
    answer = vault.read(AgentLogin(kind, mount).role_path(name)) if kind else None
    return tuple(sorted(map(str, (answer or {"data": {}})["data"].get("token_bound_cidrs") or ())))


def _problems(vault: Vault, entity: Mapping[str, Any], kind: Kind | None, mount: str) -> Iterator[str]:
    name, aliases = str(entity["name"]), entity.get("aliases") or ()
    if entity.get("disabled"):
        yield "the entity is disabled"
    if Live(vault).key(signer_key(str(entity["id"]))) is None:
        yield "there is no signing key"
    if kind is None:
        return
    if len(aliases) != 1:
        yield f"it has {len(aliases)} aliases; expected one"
    known = AgentLogin(kind, mount, subject=str(aliases[0]["name"]) if aliases else "")
    answer = vault.read(known.role_path(name))
    if answer is None:
        yield "its role is gone"
        return
    role = answer["data"]
    yield from _drift(role)
    known = AgentLogin(kind, mount, subject=known.subject, authority=str(role.get("certificate") or ""))
    yield from impostors(known, name, _roles(vault, known))


def _drift(role: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a role gives more than `agents add` writes."""
    if role.get("token_type") != "batch":
        yield f"its role gives {role.get('token_type')} tokens; expected batch"
    if role.get("token_policies"):
        yield f"its role gives policies of its own ({', '.join(role['token_policies'])})"
    if not role.get("token_no_default_policy"):
        yield "its role gives Vault's `default` policy, which lets it renew any lease whose id it knows"
