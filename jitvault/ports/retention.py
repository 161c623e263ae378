"""What the ledger says of tasks whose published document is to be removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jitvault.ledger.model import OperationRow


class Retention(Protocol):
    """Raises LedgerUnavailable as the rest of the ledger does."""

    def sealed_before(self, names: Sequence[str], at: datetime) -> dict[str, str]:
        """Those of these tasks that are sealed, and were it earlier than `at`, each with its requester's entity."""
        ...

    def open_acts(self, kind: str) -> list[OperationRow]:
        """The acts of this kind that belong to no task and whose outcome is not known, the oldest first."""
        ...
