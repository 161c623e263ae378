"""Whose tasks something is about: those of an agent, an owner or a template, or all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.domain.canonical import sha256_hex


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
        return (
            (not self.agent or self.agent in (agent["name"], agent["entity"]))
            and (not self.owner or self.owner in (owner["name"], owner["entity"]))
            and (not self.template or self.template in {entry["template"] for entry in content["access"]})
        )

    def as_json(self) -> dict[str, str]:
        """The parts that are named; empty for everything."""
        named = {"agent": self.agent, "template": self.template, "owner": self.owner}
        return {part: name for part, name in named.items() if name}


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody signed last about a scope: freeze it, or lift that. `at` is Vault's time of it."""

    scope: Scope
    freezes: bool
    by: str
    reason: str
    at: datetime


def in_force(words: Iterable[Word]) -> list[Word]:
    """The freezes that nobody lifted afterwards, by name or with all others; the oldest first."""
    words = sorted(words, key=lambda word: word.at)
    lifts = [word for word in words if not word.freezes]
    return [
        word
        for word in words
        if word.freezes and not any(lift.at > word.at and (lift.scope in (word.scope, Scope())) for lift in lifts)
    ]
