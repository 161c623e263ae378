"""Who may have what: the question, and who answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jitvault.domain.policy import Decision


@dataclass(frozen=True, slots=True)
class Question:
    """May `requester` have `template` granted to `agent`? `risk` is the higher of tier and criticality."""

    requester: str
    requester_groups: tuple[str, ...]
    agent: str
    owner: str
    template: str
    tier: str
    data_domains: tuple[str, ...]
    criticality: str
    risk: str
    intent: str
    tools: tuple[str, ...]
    window_s: int
    network: str


class Authorizer(Protocol):
    digest: str
    """SHA-256 of the policy set and its schema."""

    def decide(self, questions: Sequence[Question]) -> Decision:
        """One decision for all of a task's accesses. Never raises for a denial; no question is a denial."""
        ...
