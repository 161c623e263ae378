"""The interface of a messenger, which delivers notices to people outside."""

from __future__ import annotations

from typing import Protocol


class Messenger(Protocol):
    """Delivers notices by one channel.

    A messenger never raises: a notice that it did not deliver is sent again later.
    """

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        """Deliver the JSON in `body`; return why that failed, None if it did not.

        The reason never contains a secret.
        """
        ...
