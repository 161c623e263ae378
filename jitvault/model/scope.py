"""Whose tasks something is about: those of an agent, an owner or a template, or all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.clocks import TOLERANCE


@dataclass(frozen=True, slots=True)
class Scope:
    """Tasks of an agent or an owner (by name or entity id), of a template, or all."""

    agent: str = ""
    template: str = ""
    owner: str = ""

    def __str__(self) -> str:
        named = (("agent", self.agent), ("template", self.template), ("owner", self.owner))
        return " and ".join(f"{part} {name}" for part, name in named if name) or "everything"

    @property
    def is_all(self) -> bool:
        return self == Scope()

    @property
    def key(self) -> str:
        """What a document about it is called in Vault: a name can hold what a path cannot."""
        return "all" if self.is_all else sha256_hex(str(self).encode())[:32]

    def covers(self, content: Mapping[str, Any]) -> bool:
        """Whether a task is in the scope, by the content of its revision."""
        agent, owner = content["agent"], content["owner"]
        templates = [entry["template"] for entry in content["access"]]
        return (
            (not self.agent or _is_one_of(self.agent, (agent["name"], agent["entity"])))
            and (not self.owner or _is_one_of(self.owner, (owner["name"], owner["entity"])))
            and (not self.template or _is_one_of(self.template, templates))
        )

    @property
    def name(self) -> str:
        """The name of the agent or owner; empty where it is about neither."""
        return self.agent or self.owner

    def of(self, entity: str) -> Scope:
        """The same scope, with the agent or owner by entity id in place of the name."""
        return Scope(entity if self.agent else "", self.template, entity if self.owner else "")

    def is_same(self, other: Scope) -> bool:
        """Whether both name the same; Vault makes no difference between the cases of a name."""
        mine, theirs = (self.agent, self.template, self.owner), (other.agent, other.template, other.owner)
        return [name.casefold() for name in mine] == [name.casefold() for name in theirs]

    def as_json(self) -> dict[str, str]:
        """The parts that are named; empty for everything."""
        named = {"agent": self.agent, "template": self.template, "owner": self.owner}
        return {part: name for part, name in named.items() if name}


def _is_one_of(name: str, names: Iterable[str]) -> bool:
    return name.casefold() in [one.casefold() for one in names]


@dataclass(frozen=True, slots=True)
class FreezeStatement:
    """What somebody signed last about a scope: freeze it, or lift that. `at` is Vault's time of it.

    `entity` is who had the name of the scope's agent or owner when a worker took the document in: an administrator can
    rename an entity, and its tasks have the new name then.
    """

    scope: Scope
    freezes: bool
    by: str
    reason: str
    at: datetime
    entity: str = ""

    def covers(self, content: Mapping[str, Any]) -> bool:
        """Whether a task is in the scope, by the names in its revision or by the entity that was meant."""
        return any(scope.covers(content) for scope in self.scopes)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scope as it was named, and by the entity that was meant."""
        return (self.scope, self.scope.of(self.entity)) if self.entity else (self.scope,)


def as_dated(word: FreezeStatement, now: datetime) -> FreezeStatement | None:
    """The word as it counts at `now`, by Vault's clock; None where it counts for nothing.

    One that is dated later was written before that clock was set back. A freeze then counts from now on. A lift counts
    for nothing, since a freeze that is dated earlier may have followed it.
    """
    if word.at <= now + TOLERANCE:
        return word
    return replace(word, at=now) if word.freezes else None


def in_force(words: Iterable[FreezeStatement]) -> list[FreezeStatement]:
    """The freezes that nobody lifted afterwards, by name or with all others; the oldest first."""
    words = sorted(words, key=lambda word: word.at)
    lifts = [word for word in words if not word.freezes]
    return [word for word in words if word.freezes and not any(_ends(lift, word) for lift in lifts)]


def _ends(lift: FreezeStatement, word: FreezeStatement) -> bool:
    return lift.at > word.at and (lift.scope.is_all or lift.scope.is_same(word.scope))
