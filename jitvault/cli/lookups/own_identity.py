"""Who the caller is, as far as Vault shows it to the caller's own token.

Operators and agents may read their own entity, which has the name that specs and policies use, and nobody but the
worker those of others and the groups. A token shows its policies, and each group of `init` gives its members one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from jitvault.errors import JitvaultError
from jitvault.provision.names import GROUPS
from jitvault.vault.identity import Identity
from jitvault.wiring import Wiring


@dataclass(frozen=True, slots=True)
class OwnIdentity:
    """The caller's name, "" where nothing shows it, and known groups.

    An approver's groups are not among them, since they share one policy.
    """

    name: str
    groups: tuple[str, ...]


def own_identity(wiring: Wiring) -> OwnIdentity | None:
    """Return who the caller is.

    None without a login, and where Vault does not answer or refuses it.
    """
    if wiring.person_token is None:
        return None
    try:
        me = wiring.person.me
        found = (wiring.vault(wiring.person_token).read("auth/token/lookup-self") or {}).get("data") or {}
    except JitvaultError:
        return None
    return OwnIdentity(own_name(wiring), _groups({*me.policies, *(found.get("identity_policies") or ())}))


def own_name(wiring: Wiring) -> str:
    """Return the name of the caller's entity.

    It is "" where Vault does not show it, such as for an entity of another namespace. Raises what a login raises.
    """
    entity = wiring.person.entity
    with suppress(JitvaultError):
        found = Identity(wiring.vault(wiring.person_token)).by_id(entity)
        return found.name if found is not None else ""
    return ""


def _groups(policies: set[str]) -> tuple[str, ...]:
    """Return the groups that alone give one of the policies."""
    given = list(GROUPS.values())
    return tuple(group for group, policy in GROUPS.items() if policy in policies and given.count(policy) == 1)
