"""The named networks of an installation.

They lie in Vault beside the installation's id, in a document that names the installation and that only `init` writes. A
run of `init` that names no network therefore keeps all of them, and one that names some adds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from jitvault.documents.paths import NETWORKS
from jitvault.errors import InvalidInput, NotFound, WrongState
from jitvault.model.vault_access import CAPS, ROLE_PREFIX, role_name
from jitvault.provision.live import Live
from jitvault.provision.names import KV_MOUNT, is_installation_id

CidrsByName = Mapping[str, Sequence[str]]


def known_networks(live: Live) -> CidrsByName:
    """Return the networks of this installation with their CIDRs.

    Where the document was deleted they are those that token roles exist for. Raises WrongState for a document that this
    installation's `init` did not write.
    """
    document = live.document(NETWORKS)
    _, installation = live.installation()
    if document is None or not is_installation_id(installation):
        # what is wrong with the installation itself is found by the plan
        return networks_of_roles(live)
    found = document.get("networks")
    if document.get("installation") != installation or not isinstance(found, dict) or not _is_networks(found):
        raise WrongState(
            f"{KV_MOUNT}/{NETWORKS} was changed: it does not hold the networks of this installation",
            hint=f"The audit log shows who changed it. Restore an earlier version: `bao kv rollback -version=N "
            f"{KV_MOUNT}/{NETWORKS}`.",
        )
    return {str(name): list(cidrs) for name, cidrs in found.items()}


def networks_of_roles(live: Live) -> CidrsByName:
    """Return the named networks that token roles exist for, with CIDRs.

    The CIDRs are those of a network's first role. The other roles of a network have to agree with the first.
    """
    found: dict[str, Sequence[str]] = {}
    for name in sorted(live.token_roles):
        network = network_of(name)
        if network and network not in found:
            found[network] = (live.role(name) or {})["token_bound_cidrs"]
    return {network: cidrs for network, cidrs in found.items() if cidrs}


def network_of(role: str) -> str:
    """Return the network that a token role's name states.

    The result is empty for a role of no network.
    """
    if not role.startswith(ROLE_PREFIX):
        return ""
    return role.removeprefix(ROLE_PREFIX).partition("-")[2]


def merged(known: CidrsByName, named: CidrsByName, removed: Collection[str]) -> CidrsByName:
    """Return the networks that are wanted.

    These are the known ones and the named ones, without the removed ones.

    Raises InvalidInput for a network that is named and removed.
    """
    both = sorted(set(named) & set(removed))
    if both:
        raise InvalidInput(f"network {both[0]} is named by --network and by --remove-network")
    return {name: cidrs for name, cidrs in {**known, **named}.items() if name not in removed}


def roles_to_remove(live: Live, known: CidrsByName, removed: Iterable[str]) -> tuple[str, ...]:
    """Return the existing token roles of the networks that are removed.

    Raises NotFound for a network of which there is nothing.
    """
    found: list[str] = []
    for network in removed:
        roles = [role_name(cap, network) for cap in CAPS]
        existing = [role for role in roles if role in live.token_roles]
        if network not in known and not existing:
            there_are = ", ".join(sorted(known)) or "none"
            raise NotFound(f"there is no network {network!r:.80}", hint=f"The networks are: {there_are}.")
        found += existing
    return tuple(found)


def _is_networks(found: Mapping[str, Any]) -> bool:
    return all(
        isinstance(cidrs, list) and cidrs and all(isinstance(cidr, str) for cidr in cidrs) for cidrs in found.values()
    )
