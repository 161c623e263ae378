"""Entities and groups, read from Vault for each decision."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jitvault.vault.client import Vault
from jitvault.vault.interface import Entity

KEPT_S = 10.0
"""How long a group's id is remembered by its name, in seconds: an administrator can move the name to another group."""


class Identity:
    """Entity and group look-ups, under the identity of `vault`.

    `person_key` is the key of the entities' metadata that names the person, "" where no key does.
    """

    def __init__(self, vault: Vault, person_key: str = "") -> None:
        self._vault = vault
        self._person_key = person_key
        self._group_ids: dict[str, tuple[str, float]] = {}

    def by_id(self, entity_id: str) -> Entity | None:
        """Return the entity with this id, None where there is none."""
        return self._entity(f"identity/entity/id/{entity_id}")

    def by_name(self, name: str) -> Entity | None:
        """Return the entity with this name, None where there is none."""
        return self._entity(f"identity/entity/name/{name}")

    def in_group(self, entity: Entity, group: str) -> bool:
        """Return whether an entity is enabled and a member of a group.

        Also where it is a member through another group.
        """
        return not entity.disabled and self._group_id(group) in entity.group_ids

    def groups_of(self, entity: Entity, among: Sequence[str]) -> tuple[str, ...]:
        """Return those groups of `among` that the entity is in."""
        return tuple(group for group in among if self.in_group(entity, group))

    def has_group(self, group: str) -> bool:
        """Return whether there is a group of this name."""
        return self._group_id(group) is not None

    def members_of(self, group: str) -> list[str]:
        """Return the entities that an administrator put into a group.

        Members through another group are left out.
        """
        answer = self._vault.read(f"identity/group/name/{group}")
        return sorted((answer or {"data": {}})["data"].get("member_entity_ids") or ())

    def _group_id(self, group: str) -> str | None:
        found, since = self._group_ids.get(group, (None, 0.0))
        if found is not None and time.monotonic() - since < KEPT_S:
            return found
        self._group_ids.pop(group, None)
        answer = self._vault.read(f"identity/group/name/{group}")
        if answer is None:
            # a missing group is not remembered: an administrator may make it
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
