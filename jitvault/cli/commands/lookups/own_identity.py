"""Who the caller is, as far as the caller's own token shows it.

Vault lets nobody but the worker read entities and groups. A token shows its policies, and each group of `init` gives
its members one; tasks name those who had a part in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitvault.wiring import Wiring

_MOST_TASKS = 20


@dataclass(frozen=True, slots=True)
class OwnIdentity:
    """The caller's name, "" where nothing shows it, and known groups.

    An approver's groups are not among them, since they share one policy.
    """

    name: str
    groups: tuple[str, ...]


def own_identity(wiring: Wiring, *, by_tasks: bool) -> OwnIdentity | None:
    """Return who the caller is.

    None without a login, and where Vault does not answer or refuses it. With `by_tasks` the name is looked for in the
    caller's own tasks first, since only a worker's word is the name of the entity; else it is that of the login.
    """
    from jitvault.errors import JitvaultError

    if wiring.person_token is None:
        return None
    try:
        me = wiring.person.me
        found = (wiring.vault(wiring.person_token).read("auth/token/lookup-self") or {}).get("data") or {}
        name = (by_tasks and _named_in_tasks(wiring)) or _name_of_login(me.meta)
    except JitvaultError:
        return None
    return OwnIdentity(name, _groups({*me.policies, *(found.get("identity_policies") or ())}))


def _name_of_login(meta: Mapping[str, str]) -> str:
    """Return the name by which the caller logged in, "" for none.

    `agents add` names the role like the entity.
    """
    return meta.get("role_name") or meta.get("username") or ""


def _groups(policies: set[str]) -> tuple[str, ...]:
    """Return the groups that alone give one of the policies."""
    from jitvault.provision.desired import GROUPS

    given = list(GROUPS.values())
    return tuple(group for group, policy in GROUPS.items() if policy in policies and given.count(policy) == 1)


def _named_in_tasks(wiring: Wiring) -> str:
    """Return the caller's name in a task that it has a part in, or ""."""
    from jitvault.cli import session
    from jitvault.documents.published_task import PublishedTask
    from jitvault.errors import JitvaultError

    person = wiring.person
    # agents may not list tasks, only what is their own
    own: list[str] = []
    for place in ("requests", "inbox"):
        with suppress(JitvaultError):
            own += person.documents.names(f"{place}/{person.entity}/")[:_MOST_TASKS]
    for task in own:
        with suppress(JitvaultError):
            document = session.published(wiring, task.removesuffix("/"))
            if not isinstance(document, PublishedTask):
                continue
            content = document.full_revision.content
            for part in ("agent", "requester"):
                if content[part]["entity"] == person.entity:
                    return str(content[part]["name"])
    return ""
