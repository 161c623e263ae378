"""The policy set that is in use, and how another takes its place while the process runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jitvault.authorize.cedar import CedarAuthorizer
from jitvault.domain.policy import Decision
from jitvault.domain.question import Question
from jitvault.errors import InvalidInput


class CurrentPolicies:
    """`jitvault.ports.policy.Authorizer` with the last set that was good."""

    def __init__(self, load: Callable[[], CedarAuthorizer]) -> None:
        """`load` reads the set from where it lies. Raises InvalidInput when the first one does not validate."""
        self._load = load
        self._current = load()
        self.refused = ""

    def reload(self) -> bool:
        """Take what lies there now; False when it does not validate: nothing is changed, and `refused` says why."""
        try:
            self._current = self._load()
        except InvalidInput as error:
            self.refused = str(error)
            return False
        self.refused = ""
        return True

    @property
    def digest(self) -> str:
        return self._current.digest

    @property
    def groups(self) -> frozenset[str]:
        return self._current.groups

    def decide(self, questions: Sequence[Question]) -> Decision:
        return self._current.decide(questions)
