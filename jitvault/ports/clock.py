"""Time, as the services see it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC. For windows and due times; the order of what happened is the stream's, not this."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def monotonic(self) -> float: ...
