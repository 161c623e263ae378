"""Register and remove approvers with the administrator's identity.

One person is one Vault entity. register(vault, "alice", person="alice@example.com", groups=["jitvault-approvers"])
remove(vault, "alice")

The registration is written last and removed first, so that an interrupted run leaves no approver who counts without
their groups and their key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.documents.approvers import Registered, Registry, check_new, check_person, registered
from jitvault.documents.paths import APPROVERS
from jitvault.documents.signed import signer_key
from jitvault.errors import Denied, InvalidInput, NotFound
from jitvault.provision.items import SigningKey
from jitvault.provision.live import Live
from jitvault.provision.plan import carry_out, difference
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents
from jitvault.vault.identity import Identity
from jitvault.vault.interface import Entity

APPROVER_POLICY = "jitvault-approver"


@dataclass(frozen=True, slots=True)
class Approver:
    """One registration.

    `name` is the entity's, None where it is gone; `problems` say why they cannot approve.
    """

    entity: str
    name: str | None
    person: str
    groups: tuple[str, ...]
    since: datetime
    problems: tuple[str, ...]


def register(vault: Vault, who: str, *, person: str, groups: Sequence[str]) -> Approver:
    """Register the entity `who` (name or id) as an approver in `groups`.

    Its signing key is registered with it.

    Raises NotFound for an unknown entity, InvalidInput for a group that cannot approve, Denied when the person has
    another entity, or the entity is another person's.
    """
    person = check_person(person)
    entity = _entity(vault, who)
    found = read(vault)
    wanted = sorted({*groups})
    if entity.disabled:
        raise InvalidInput(f"the entity {entity.name} is disabled", hint="Enable it, or name another entity.")
    if why := check_new(found, person=person, entity=entity.id):
        first = found.of_person(person)
        kept = first.entity if first else entity.id
        raise Denied(
            why,
            hint=f"Make their second login an alias of the same entity: `bao write identity/entity-alias name=LOGIN "
            f"canonical_id={kept} mount_accessor=ACCESSOR`.",
        )
    tables = {group: _approving_group(vault, group) for group in wanted}
    for step in difference([SigningKey(signer_key(entity.id))], Live(vault)).changes:
        carry_out(vault, step)
    for group, table in tables.items():
        _set_member(vault, group, table, entity.id, member=True)
    mine = found.of(entity.id)
    if mine is None or {*mine.registration.groups} != {*wanted}:
        document = {"person": person, "entity": entity.id, "groups": wanted}
        Documents(vault).put(f"{APPROVERS}{entity.id}", document)
    return _registered_now(vault, entity.id)


def remove(vault: Vault, who: str) -> Approver:
    """Remove an approver's registration and the memberships that it gave.

    `who` is an entity's name or id, or a person. Their approvals no longer count, even when they are registered again.
    Returns the removed registration. Raises NotFound.
    """
    found = read(vault)
    mine = _find(vault, found, who)
    before = _shown(vault, found, mine)
    Documents(vault).destroy(f"{APPROVERS}{mine.entity}")
    for group in mine.registration.groups:
        answer = vault.read(f"identity/group/name/{group}")
        if answer is not None:
            _set_member(vault, group, answer["data"], mine.entity, member=False)
    return before


def listed(vault: Vault) -> list[Approver]:
    """Return all registrations, sorted by person.

    Each has what keeps the approver from approving.
    """
    found = read(vault)
    return [_shown(vault, found, each) for each in sorted(found.approvers, key=lambda a: (a.person, a.since))]


def read(vault: Vault) -> Registry:
    """Return all registrations.

    Raises SecurityFinding for a document that is not a registration.
    """
    documents = Documents(vault)
    stored = {entity: documents.read(f"{APPROVERS}{entity}") for entity in documents.names(APPROVERS)}
    found = (registered(s.document, entity=entity, since=s.written_at) for entity, s in stored.items() if s)
    return Registry(tuple(found))


def _registered_now(vault: Vault, entity: str) -> Approver:
    found = read(vault)
    mine = found.of(entity)
    if mine is None:
        raise NotFound(f"the registration of {entity} was removed meanwhile", hint="Another administrator removed it.")
    return _shown(vault, found, mine)


def _entity(vault: Vault, who: str) -> Entity:
    identity = Identity(vault)
    entity = identity.by_name(who) or identity.by_id(who)
    if entity is None:
        raise NotFound(
            f"there is no Vault entity {who}",
            hint="Vault creates an entity at the first login; `bao list identity/entity/name` shows them.",
        )
    return entity


def _find(vault: Vault, found: Registry, who: str) -> Registered:
    entity = Identity(vault).by_name(who)
    ids = {who, *([entity.id] if entity else [])}
    for each in found.approvers:
        if each.entity in ids or each.person == who.lower():
            return each
    raise NotFound(
        f"{who} is not registered as an approver", hint="`jitvault approvers list` shows the registered approvers."
    )


def _approving_group(vault: Vault, group: str) -> dict[str, Any]:
    """Return the group if its Vault policy lets its members approve.

    Raises InvalidInput.
    """
    answer = vault.read(f"identity/group/name/{group}")
    table: dict[str, Any] = answer["data"] if answer else {}
    if APPROVER_POLICY not in (table.get("policies") or ()):
        what = "has not the policy" if table else "does not exist; it needs the policy"
        raise InvalidInput(
            f"the Vault group {group} {what} {APPROVER_POLICY}",
            hint="Name a group of approvers. `jitvault init` creates jitvault-approvers and jitvault-security.",
        )
    return table


def _set_member(vault: Vault, group: str, table: dict[str, Any], entity: str, *, member: bool) -> None:
    now = set(table.get("member_entity_ids") or ())
    wanted = now | {entity} if member else now - {entity}
    # the members of an external group are set by its auth method alone
    if wanted != now and table.get("type") == "internal":
        vault.write(f"identity/group/name/{group}", {"member_entity_ids": sorted(wanted)})


def _shown(vault: Vault, found: Registry, each: Registered) -> Approver:
    entity = Identity(vault).by_id(each.entity)
    return Approver(
        entity=each.entity,
        name=entity.name if entity else None,
        person=each.person,
        groups=each.registration.groups,
        since=each.since,
        problems=tuple(_problems(vault, found, each, entity)),
    )


def _problems(vault: Vault, found: Registry, each: Registered, entity: Entity | None) -> Iterator[str]:
    first = found.of_person(each.person)
    if first is not None and first.entity != each.entity:
        yield f"a second entity of {each.person}, it does not count"
    if entity is None:
        yield "the entity is gone"
        return
    if entity.disabled:
        yield "the entity is disabled"
    member_of = Identity(vault).groups_of(entity, each.registration.groups)
    for group in each.registration.groups:
        if not entity.disabled and group not in member_of:
            yield f"not in {group}"
    if Live(vault).key(signer_key(each.entity)) is None:
        yield "there is no signing key"
