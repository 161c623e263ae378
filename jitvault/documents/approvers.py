"""Who counts as an approver: one person is one Vault entity, which an administrator has registered.

A person may have several logins; they are aliases of the one entity. What an administrator wrote into Vault by hand is
judged like everything else: of two entities of one person the later one counts for nothing.
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
    """What an administrator wrote: this entity is this person, who may decide for these Vault groups."""

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
    """Everybody who is registered, as it was read just now."""

    approvers: tuple[Registered, ...] = ()

    def of(self, entity: str) -> Registered | None:
        return next((each for each in self.approvers if each.entity == entity), None)

    def of_person(self, person: str) -> Registered | None:
        """The entity that counts for `person`: the one that was registered first."""
        same = (each for each in self.approvers if each.person == person)
        return min(same, key=lambda each: (each.since, each.entity), default=None)

    def groups_of(self, entity: str) -> tuple[str, ...]:
        """The groups for which `entity` may decide; none where it is not registered."""
        found = self.of(entity)
        return found.registration.groups if found else ()

    def why_not(self, entity: str, written_at: datetime) -> str | None:
        """Why nothing that `entity` wrote at `written_at` (Vault's time) counts; None where it does."""
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
    """The registration that lies under `entity`. Raises SecurityFinding for anything else."""
    try:
        found = Registration.model_validate_json(canonical_bytes(document))
    except (ValidationError, ValueError):
        raise SecurityFinding(f"approvers/{entity} is not a registration") from None
    if found.entity != entity:
        raise SecurityFinding(f"approvers/{entity} is the registration of {found.entity}")
    return Registered(found, since)


def check_new(registry: Registry, *, person: str, entity: str) -> str | None:
    """Why `entity` cannot be registered for `person`; None where it can, or is already."""
    first, mine = registry.of_person(person), registry.of(entity)
    if first is not None and first.entity != entity:
        return f"{person} is registered as the entity {first.entity} already; one person is one entity"
    if mine is not None and mine.person != person:
        return f"the entity {entity} is registered for {mine.person} already"
    return None


def check_person(person: str) -> str:
    """`person` in the one form in which it is compared. Raises InvalidInput."""
    try:
        return _PERSON.validate_python(person.strip().lower())
    except ValidationError:
        raise InvalidInput(
            f"--person: expected 1 to 128 of a-z 0-9 . _ @ + -, got {person!a:.80}",
            hint="Name the human being, such as by the address of their mail.",
        ) from None


def void(
    *, signed_at: datetime, written_at: datetime, withdrawals: Iterable[tuple[datetime, datetime]] = ()
) -> str | None:
    """Why an approval that was signed and written at these times is as good as none; None where it is not.

    `withdrawals` are the times at which its author signed one, and at which Vault has it. Both have to be before the
    approval: what is put back after it was withdrawn is new to Vault, and its signature is old.
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
    """Whether an approval was taken back; the times are those of `void`."""
    return any(signed_at <= signed or written_at <= written for signed, written in withdrawals)
