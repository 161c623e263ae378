"""Who is who: entities and groups, read from Vault for each decision."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jitvault.vault.client import Vault
from jitvault.vault.interface import Entity

KEPT_S = 10.0
"""How long it is believed which group has a name: an administrator can give the name to another one."""


class Identity:
    """Entity and group look-ups, under the identity of `vault`.

    `person_key` is the key of the entities' metadata that names the person; "" where none does.
    """

    def __init__(self, vault: Vault, person_key: str = "") -> None:
        self._vault = vault
        self._person_key = person_key
        self._group_ids: dict[str, tuple[str, float]] = {}

    def by_id(self, entity_id: str) -> Entity | None:
        return self._entity(f"identity/entity/id/{entity_id}")

    def by_name(self, name: str) -> Entity | None:
        return self._entity(f"identity/entity/name/{name}")

    def in_group(self, entity: Entity, group: str) -> bool:
        """Whether `entity` is enabled and a member of the group `group`, also through another group."""
        return not entity.disabled and self._group_id(group) in entity.group_ids

    def groups_of(self, entity: Entity, among: Sequence[str]) -> tuple[str, ...]:
        return tuple(group for group in among if self.in_group(entity, group))

    def has_group(self, group: str) -> bool:
        """Whether there is a group of this name."""
        return self._group_id(group) is not None

    def members_of(self, group: str) -> list[str]:
        """The entities that an administrator put into a group, but for those who are in it by another group."""
        answer = self._vault.read(f"identity/group/name/{group}")
        return sorted((answer or {"data": {}})["data"].get("member_entity_ids") or ())

    def _group_id(self, group: str) -> str | None:
        found, since = self._group_ids.get(group, (None, 0.0))
        if found is not None and time.monotonic() - since < KEPT_S:
            return found
        self._group_ids.pop(group, None)
        if (answer := self._vault.read(f"identity/group/name/{group}")) is None:
            # one that is not there is asked for again: an administrator may make it
            return None
        self._group_ids[group] = (str(answer["data"]["id"]), time.monotonic())
        return self._group_ids[group][0]

    def _entity(self, path: str) -> Entity | None:
        answer = self._vault.read(path)
        if answer is None:
            return None
        data = answer["data"]
        return Entity(
            id=str(data["id"]),
            name=str(data["name"]),
            disabled=bool(data.get("disabled")),
            group_ids=frozenset(data.get("group_ids") or ()),
            person=str((data.get("metadata") or {}).get(self._person_key, "")).strip().lower(),
        )
