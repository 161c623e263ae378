"""The interface of an authorizer, which decides who may have what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jitvault.policy.decision import Decision
from jitvault.policy.question import Question


class Authorizer(Protocol):
    @property
    def digest(self) -> str:
        """The SHA-256 of the policy set and its schema."""
        ...

    @property
    def groups(self) -> frozenset[str]:
        """The Vault groups that the policies name.

        The memberships of the people in a question are looked up in these.
        """
        ...

    def decide(self, questions: Sequence[Question]) -> Decision:
        """Return one decision for all questions.

        A denial is a result and raises nothing; no question is a denial.
        """
        ...
