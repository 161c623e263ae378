"""Read facts about targets and agents' logins for `jitvault doctor`.

Nothing is written. Targets are read by the probe's login. How agents log in can be read by an administrator only, from
the auth methods of the members of `jitvault-agents`; existing tokens are not looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jitvault.doctor.check import Unknown
from jitvault.doctor.targets import AgentLogins, Target
from jitvault.engines.interface import Engine, Trial
from jitvault.errors import JitvaultError, VaultRefused
from jitvault.formats.canonical_json import digest_of
from jitvault.model.template import AccessTemplate
from jitvault.model.verifiers import SHOWN
from jitvault.policy.decision import AGENTS
from jitvault.provision.template_check.cert_logins import cert_logins
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_MEND = "Correct the probe's document or its target; `jitvault templates check NAME` shows details."
# the path of the logins of each kind of auth method; the field that is read has the same name in all of them
_LOGINS = {"userpass": "users", "ldap": "users", "approle": "role", "jwt": "role", "oidc": "role", "kubernetes": "role"}
_LOGINS |= {"cert": "certs"}
_NO_DEFAULT = "token_no_default_policy"
# auth methods in which the alias name is the name of the login
_BY_NAME = frozenset({"userpass", "ldap"})


def targets(vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> list[Target]:
    """Return what was found at each target.

    Templates that share a probe and a connection have one target. Raises VaultRefused for an identity that may not read
    the probes or the engines' roles.
    """
    users: dict[tuple[str, str], list[str]] = {}
    asked: dict[tuple[str, str], tuple[Trial, Mapping[str, Any]]] = {}
    for name, template in sorted(templates.items()):
        engine = engines.get(template.spec.engine)
        if template.spec.probe is None or engine is None or engine.trial is None:
            continue
        for snapshot in _snapshots(vault, engine, template):
            if snapshot.get("connection"):
                key = (template.spec.probe, digest_of(snapshot["connection"]))
                users.setdefault(key, [])
                users[key] += [name] if name not in users[key] else []
                asked[key] = (engine.trial, snapshot)
    return [_looked_at(vault, key[0], names, *asked[key]) for key, names in users.items()]


def _snapshots(vault: Vault, engine: Engine, template: AccessTemplate) -> Iterator[Mapping[str, Any]]:
    """Yield the engine's configuration for each path.

    A missing one is reported by the template's own check.
    """
    mount = template.spec.mount
    for choices in template.all_choices():
        try:
            yield engine.snapshot(vault.read, mount, template.resolve(choices).removeprefix(f"{mount}/"))
        except VaultRefused:
            raise
        except JitvaultError:
            continue


def _looked_at(vault: Vault, probe: str, names: list[str], trial: Trial, snapshot: Mapping[str, Any]) -> Target:
    document = Documents(vault).get(f"probes/{probe}")
    if document is None:
        return Target(names, Unknown("there is no such probe", f"Write jitvault/probes/{probe}: docs/reference.md."))
    try:
        return Target(names, trial.inspect(document, snapshot, None))
    except JitvaultError as error:
        return Target(names, Unknown(f"the target could not be asked: {error}", _MEND))
    except (KeyError, ValueError, TypeError) as error:
        # never the error's text: it may contain a part of the document
        return Target(names, Unknown(f"the probe's document is not valid ({type(error).__name__})", _MEND))


def logins_by_certificate(
    vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]
) -> dict[str, list[str]]:
    """Return the templates whose certificates may be a login to Vault.

    They are grouped by the entry that trusts their CA. Raises VaultRefused for an identity that may not read the
    entries, NotConfirmed where there are too many.
    """
    found: dict[str, list[str]] = {}
    for name, template in sorted(templates.items()):
        engine = engines.get(template.spec.engine)
        if engine is None or template.spec.engine != SHOWN:
            continue
        issuers = {digest_of(one["issuer"]): one for one in _snapshots(vault, engine, template)}
        for login in {login.path for snapshot in issuers.values() for login in cert_logins(vault, snapshot)}:
            found.setdefault(login, []).append(name)
    return found


def agent_logins(vault: Vault) -> AgentLogins:
    """Return which logins of agents give the `default` policy.

    Raises VaultRefused for an identity that may not read groups, entities or auth methods.
    """
    group = (vault.read(f"identity/group/name/{AGENTS}") or {}).get("data") or {}
    mounted: Mapping[str, Mapping[str, Any]] = (vault.read("sys/auth") or {}).get("data") or {}
    methods = {table.get("accessor"): (path.rstrip("/"), table) for path, table in mounted.items()}
    given: set[str] = set()
    unread: set[str] = set()
    looked_at: set[str] = set()
    for entity in group.get("member_entity_ids") or ():
        data = (vault.read(f"identity/entity/id/{entity}") or {}).get("data") or {}
        for alias in data.get("aliases") or ():
            path, table = methods.get(alias.get("mount_accessor"), ("", {}))
            kind = str(table.get("type"))
            if not path or kind not in _LOGINS:
                unread.add(f"auth/{path or alias.get('mount_path', '?')}")
                continue
            names = [str(alias.get("name"))] if kind in _BY_NAME else vault.list(f"auth/{path}/{_LOGINS[kind]}")
            for name in names:
                login = f"auth/{path}/{_LOGINS[kind]}/{name}"
                found = (vault.read(login) or {}).get("data")
                looked_at.add(login)
                if found is None:
                    unread.add(f"auth/{path}")
                elif not found.get(_NO_DEFAULT):
                    given.add(login)
    return AgentLogins(sorted(given), len(looked_at), sorted(unread))
