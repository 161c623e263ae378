"""What is to be told outside: where it waits, and how it gets there."""

from __future__ import annotations

from typing import Protocol


class Messenger(Protocol):
    """One way out. It never raises: what is not taken is told again."""

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        """Hand over the JSON in `body`; gives why it was not taken, None where it was. Never with a secret."""
        ...
