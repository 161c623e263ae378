"""The policy set that is in use."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.authorize.cedar import CedarAuthorizer
from jitvault.domain.current import Current
from jitvault.domain.policy import Decision
from jitvault.domain.question import Question


class CurrentPolicies(Current[CedarAuthorizer]):
    """`jitvault.ports.policy.Authorizer` with the last set that was good."""

    @property
    def digest(self) -> str:
        return self.value.digest

    @property
    def groups(self) -> frozenset[str]:
        return self.value.groups

    def decide(self, questions: Sequence[Question]) -> Decision:
        return self.value.decide(questions)
