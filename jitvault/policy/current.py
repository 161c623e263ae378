"""The policy set that is in use."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.formats.reloadable import Reloadable
from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.decision import Decision
from jitvault.policy.question import Question


class CurrentPolicies(Reloadable[CedarAuthorizer]):
    """An authorizer with the last policy set that was valid.

    Implements `jitvault.policy.interface.Authorizer`.
    """

    @property
    def digest(self) -> str:
        return self.value.digest

    @property
    def groups(self) -> frozenset[str]:
        return self.value.groups

    def decide(self, questions: Sequence[Question]) -> Decision:
        return self.value.decide(questions)
