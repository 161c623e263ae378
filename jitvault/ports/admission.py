"""What of the ledger policy looks at before more is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from jitvault.domain.question import Load


class Admission(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def load(
        self, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
    ) -> Mapping[str, Load]:
        """What is held now, for each of `templates`, without the task `besides`.

        `agent` and `owner` are entities. Findings are those that `jitvault.domain.trip.OF_AGENT` has, since `since`,
        that nobody has closed.
        """
        ...

    def close_findings(self, agent: str, why: str, at: datetime) -> int:
        """Have the agent's open findings count no more for policy; gives how many there were. They stay to be seen."""
        ...
