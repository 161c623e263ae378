"""What of the ledger policy looks at before more is granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jitvault.policy.question import HeldLeases


@dataclass(frozen=True, slots=True)
class GrantAdmission:
    """What a grant has been decided on and has to be so still in the very transaction that begins it.

    `judge` gets the loads as `Admission.load` gives them and the revisions of those of the parent's children, besides
    this task, of which something may be alive. It raises to refuse, and does nothing else that takes time.
    """

    task_id: str
    agent: str
    owner: str
    templates: Sequence[str]
    since: datetime
    parent: str | None
    judge: Callable[[Mapping[str, HeldLeases], Sequence[bytes]], None]


class Admission(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def load(
        self, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
    ) -> Mapping[str, HeldLeases]:
        """What is held now, for each of `templates`, without the task `besides`.

        `agent` and `owner` are entities. Findings are those of `OF_AGENT`, since `since`,
        that nobody has closed.
        """
        ...

    def close_findings(self, agent: str, why: str, at: datetime) -> int:
        """Have the agent's open findings count no more for policy; gives how many there were. They stay to be seen."""
        ...
