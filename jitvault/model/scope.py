"""Scopes: the tasks of an agent, an owner or a template, or all tasks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.clocks import TOLERANCE
from jitvault.model.decision_input import DecisionInput
from jitvault.model.revision_content import RevisionContent
from jitvault.model.signed_document import SignedByPerson


@dataclass(frozen=True, slots=True)
class Scope:
    """The tasks of an agent, an owner or a template, or all tasks.

    Agent and owner are given by name or entity id.
    """

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
        """The last part of the path of a document about the scope.

        It is a hash, since a name can hold characters that a path cannot.
        """
        return "all" if self.is_all else sha256_hex(str(self).encode())[:32]

    def covers(self, content: RevisionContent | DecisionInput) -> bool:
        """Return whether a task is in the scope, by the content of its revision or what is asked of policy."""
        templates = [entry.template for entry in content.access]
        return (
            (not self.agent or _is_one_of(self.agent, (content.agent.name, content.agent.entity)))
            and (not self.owner or _is_one_of(self.owner, (content.owner.name, content.owner.entity)))
            and (not self.template or _is_one_of(self.template, templates))
        )

    @property
    def name(self) -> str:
        """The name of the agent or owner; empty if the scope names neither."""
        return self.agent or self.owner

    def of(self, entity: str) -> Scope:
        """Return the scope with the agent or owner by entity id, not by name."""
        return Scope(entity if self.agent else "", self.template, entity if self.owner else "")

    def is_same(self, other: Scope) -> bool:
        """Return whether both scopes are equal; Vault ignores the case of a name."""
        mine = (self.agent, self.template, self.owner)
        theirs = (other.agent, other.template, other.owner)
        return [name.casefold() for name in mine] == [name.casefold() for name in theirs]

    def as_json(self) -> dict[str, str]:
        """Return the parts that are named; empty for all tasks."""
        named = {"agent": self.agent, "template": self.template, "owner": self.owner}
        return {part: name for part, name in named.items() if name}

    @property
    def options(self) -> str:
        """Return the options by which a command names the scope, quoted for a shell."""
        return " ".join(f"--{part} {shlex.quote(name)}" for part, name in self.as_json().items()) or "--all"


def _is_one_of(name: str, names: Iterable[str]) -> bool:
    return name.casefold() in [other.casefold() for other in names]


@dataclass(frozen=True, slots=True)
class FreezeStatement:
    """The newest signed statement about a scope: a freeze or a lift of it.

    `at` is Vault's time of the document. `entity` is the entity that had the name of the scope's agent or owner
    when a worker took the document in: an administrator can rename an entity, and its tasks carry the new name
    then. `author` is the entity that signed it, and `envelope` what it signed, None where the signature does not hold.
    """

    scope: Scope
    freezes: bool
    by: str
    reason: str
    at: datetime
    entity: str = ""
    author: str = ""
    envelope: SignedByPerson | None = None

    def covers(self, content: RevisionContent | DecisionInput) -> bool:
        """Return whether a task is in the scope, by name or by entity."""
        return any(scope.covers(content) for scope in self.scopes)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scope as it was named, and the scope by the entity that was meant."""
        return (self.scope, self.scope.of(self.entity)) if self.entity else (self.scope,)


def as_dated(statement: FreezeStatement, now: datetime) -> FreezeStatement | None:
    """Return the statement as it counts at `now`, or None.

    `now` is the time by Vault's clock. None means that the statement does not count. A statement that is dated
    later was written before that clock was set back. Such a freeze counts from now on. Such a lift does not count,
    since a freeze that is dated earlier may have followed it.
    """
    if statement.at <= now + TOLERANCE:
        return statement
    return replace(statement, at=now) if statement.freezes else None


def freezes_in_force(statements: Iterable[FreezeStatement]) -> list[FreezeStatement]:
    """Return the freezes that were not lifted afterwards, the oldest first.

    A lift names the scope of the freeze, or all tasks.
    """
    statements = sorted(statements, key=lambda statement: statement.at)
    found = [statement for statement in statements if not statement.freezes]
    return [each for each in statements if each.freezes and not any(lifts(lift, each) for lift in found)]


def lifts(lift: FreezeStatement, freeze: FreezeStatement) -> bool:
    """Return whether a lift ends a freeze: later, of its scope or of all."""
    return lift.at > freeze.at and (lift.scope.is_all or lift.scope.is_same(freeze.scope))
