"""Which rights the worker's work needs, and which of them its token lacks.

The policy in Vault may be an older one, may have been edited, or may not be on the worker's token. A revocation that is
refused tells that too late. So the worker asks Vault beforehand what its own token may do at each path of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jitvault import shipped_files as shipped
from jitvault.engines.interface import Engine
from jitvault.errors import VaultRefused, VaultRejected
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import CAPS, ROLE_PREFIX
from jitvault.provision.desired import accesses, token_roles, worker_policy
from jitvault.provision.items import TokenRole
from jitvault.provision.networks import network_of
from jitvault.provision.who_may import stanzas
from jitvault.vault.interface import Reader

_ANY = "jitvault-any"
"""Stands for whatever a pattern allows."""
ASKING = "sys/capabilities-self"


def needed_rights(
    policies: Mapping[str, str],
    templates: Mapping[str, AccessTemplate],
    engines: Mapping[str, Engine],
    of_networks: Iterable[str] = (),
) -> dict[str, frozenset[str]]:
    """Return the capabilities that the worker needs at each path.

    They are those of the policy that `init` makes. `of_networks` are the token roles of networks. Raises InvalidInput.
    """
    roles = (*token_roles({}), *(TokenRole(name, 0, ()) for name in of_networks))
    text = worker_policy(policies, roles, accesses(templates, engines))
    found: dict[str, frozenset[str]] = {}
    for pattern, capabilities in stanzas(text):
        path = pattern.replace("*", _ANY).replace("+", _ANY)
        found[path] = found.get(path, frozenset()) | capabilities
    return found


def lacking(needed: Mapping[str, frozenset[str]], given: Mapping[str, Iterable[str]]) -> list[str]:
    """Return each capability that is needed and not given, as `update PATH`."""
    return [
        f"{capability} {path.replace(_ANY, '*')}"
        for path, wanted in sorted(needed.items())
        for capability in sorted(wanted - _all_of(given.get(path, ())))
    ]


def _all_of(given: Iterable[str]) -> frozenset[str]:
    found = frozenset(given)
    return found | {"create", "read", "update", "delete", "list", "sudo"} if "root" in found else found


def lacking_rights(reader: Reader, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> list[str]:
    """Return the rights that the token of `reader` lacks for a worker's work.

    Raises InvalidInput, VaultUnavailable.
    """
    needed = needed_rights(shipped.vault_policies(), templates, engines, _roles_of_networks(reader))
    try:
        given = reader.capabilities(sorted(needed))
    except VaultRejected:
        raise
    except VaultRefused:
        # whoever may not even ask has another policy than this one
        return [f"update {ASKING}"]
    return lacking(needed, given)


def _roles_of_networks(reader: Reader) -> list[str]:
    """Return the token roles of networks.

    None where they may not be listed: that right is then among those that are lacking.
    """
    try:
        listed = reader.list("auth/token/roles")
    except VaultRejected:
        raise
    except VaultRefused:
        return []
    return [role for role in listed if network_of(role) and role.removeprefix(ROLE_PREFIX).partition("-")[0] in CAPS]
