"""Who counts as an approver: a person with one registered Vault entity.

An administrator registers the entity. A person may have several logins; those are entity aliases of that one
entity. What an administrator wrote into Vault by hand is judged like everything else: of two entities of one
person, the one that was registered later does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.fields import Strict
from jitvault.policy.rule import GROUP

MAX_SKEW = timedelta(minutes=5)
"""How far the time that an approver signed may be from Vault's time of the document."""

Person = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@+-]{0,127}$")]
_PERSON: TypeAdapter[str] = TypeAdapter(Person)


class Registration(Strict):
    """An administrator's statement: this entity is this person.

    The person may decide for the Vault groups `groups`.
    """

    person: Person
    entity: str = Field(min_length=1, max_length=64)
    groups: tuple[Annotated[str, Field(pattern=f"^{GROUP}$")], ...] = Field(min_length=1, max_length=32)


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration, and since when it holds by Vault's clock."""

    registration: Registration
    since: datetime

    @property
    def entity(self) -> str:
        return self.registration.entity

    @property
    def person(self) -> str:
        return self.registration.person


@dataclass(frozen=True)
class Registry:
    """All registrations, as they were just read."""

    approvers: tuple[Registered, ...] = ()

    def of(self, entity: str) -> Registered | None:
        return next((each for each in self.approvers if each.entity == entity), None)

    def of_person(self, person: str) -> Registered | None:
        """Return the entity that counts for `person`: the one registered first."""
        entities = (each for each in self.approvers if each.person == person)
        return min(entities, key=lambda each: (each.since, each.entity), default=None)

    def groups_of(self, entity: str) -> tuple[str, ...]:
        """Return the groups for which `entity` may decide; none if not registered."""
        found = self.of(entity)
        return found.registration.groups if found else ()

    def why_not(self, entity: str, written_at: datetime) -> str | None:
        """Return why nothing that `entity` wrote at `written_at` counts, or None.

        `written_at` is Vault's time of the document.
        """
        found = self.of(entity)
        if found is None:
            return "is not a registered approver"
        first = self.of_person(found.person)
        if first is not None and first.entity != entity:
            return f"is a second entity of {found.person}, who is registered as {first.entity}"
        if written_at <= found.since:
            return "decided before being registered as an approver"
        return None


def registered(document: Mapping[str, Any], *, entity: str, since: datetime) -> Registered:
    """Return the registration of `entity`.

    Raises SecurityFinding if the document is anything else.
    """
    try:
        found = Registration.model_validate_json(canonical_bytes(document))
    except (ValidationError, ValueError):
        raise SecurityFinding(f"approvers/{entity} is not a registration") from None
    if found.entity != entity:
        raise SecurityFinding(f"approvers/{entity} has the registration of another entity, {found.entity}")
    return Registered(found, since)


def check_new(registry: Registry, *, person: str, entity: str) -> str | None:
    """Return why `entity` cannot be registered for `person`, or None.

    It is None as well if `entity` is registered for `person` already.
    """
    first = registry.of_person(person)
    mine = registry.of(entity)
    if first is not None and first.entity != entity:
        return f"{person} is registered as the entity {first.entity} already; one person is one entity"
    if mine is not None and mine.person != person:
        return f"the entity {entity} is registered for {mine.person} already"
    return None


def check_person(person: str) -> str:
    """Return `person` in the form for comparison. Raises InvalidInput."""
    try:
        return _PERSON.validate_python(person.strip().lower())
    except ValidationError:
        raise InvalidInput(
            f"--person: expected 1 to 128 of a-z 0-9 . _ @ + -, got {person!a:.80}",
            hint="Name the person, for example by their mail address.",
        ) from None


def void(
    *, signed_at: datetime, written_at: datetime, withdrawals: Iterable[tuple[datetime, datetime]] = ()
) -> str | None:
    """Return why an approval with these times counts as absent, or None.

    `withdrawals` has, for each withdrawal, when its author signed it and when Vault stored it. Both times have to
    be before those of the approval: an approval that is put back after it was withdrawn is new to Vault, but its
    signature is old.
    """
    if is_withdrawn(signed_at=signed_at, written_at=written_at, withdrawals=withdrawals):
        return "withdrew the approval"
    off = signed_at - written_at
    if abs(off) > MAX_SKEW:
        minutes = abs(off) // timedelta(minutes=1)
        return f"signed the approval {minutes} min {'after' if off > timedelta() else 'before'} Vault's time of it"
    return None


def is_withdrawn(
    *, signed_at: datetime, written_at: datetime, withdrawals: Iterable[tuple[datetime, datetime]]
) -> bool:
    """Return whether an approval was withdrawn; the times are those of `void`."""
    return any(signed_at <= signed or written_at <= written for signed, written in withdrawals)
