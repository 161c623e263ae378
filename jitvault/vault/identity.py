"""Entities and groups, read from Vault for each decision."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.vault.client import Vault
from jitvault.vault.interface import Entity


class Identity:
    """Entity and group look-ups, under the identity of `vault`.

    `person_key` is the key of the entities' metadata that names the person, "" where no key does.
    """

    def __init__(self, vault: Vault, person_key: str = "") -> None:
        self._vault = vault
        self._person_key = person_key

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
        answer = self._vault.read(f"identity/group/name/{group}")
        return str(answer["data"]["id"]) if answer is not None else None

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
