"""Time, as the services see it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC: this host's own clock, right or wrong. For whoever compares it with another one."""
        ...

    def agreed(self) -> datetime:
        """The same, or Vault's where the two disagree (`jitvault.formats.clocks`).

        For windows, due times and all that is written down. The order of what happened is the stream's, not this.
        """
        ...

    def behind(self) -> timedelta:
        """By how much this host's clock is behind Vault's at least; negative where it is ahead."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def monotonic(self) -> float: ...
