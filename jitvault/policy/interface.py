"""Who may have what: whoever answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jitvault.policy.decision import Decision
from jitvault.policy.question import Question


class Authorizer(Protocol):
    @property
    def digest(self) -> str:
        """SHA-256 of the policy set and its schema."""
        ...

    @property
    def groups(self) -> frozenset[str]:
        """The Vault groups that the policies speak of: of whom it is asked has to be looked up in these."""
        ...

    def decide(self, questions: Sequence[Question]) -> Decision:
        """One decision for all of them. Never raises for a denial; no question is a denial."""
        ...
