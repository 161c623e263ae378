"""Notice that the task is over, in a thread beside the program.

Nothing is probed: a request that Vault denies is noted against the task. What is asked is the published task, under the
agent's own login, and the task token's own look-up, which also is the heartbeat that the spec may demand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Thread

from jitvault.errors import JitvaultError, VaultRefused

POLL_S = 1.0
CHANGED = "its access has changed"
"""The reason where the task goes on with another token, which this process can take."""
REFUSED = "Vault does not accept its token any more"
"""The reason where nothing was published that says another one."""
# without a heartbeat in the spec
_BEAT_S = 5.0


class TaskWatch:
    """Watches until the task is over.

    `line` becomes readable then, and `reason` says why. `published_end` returns why the published task is over, or
    None; it is None for an agent without a login. `beat` looks the task's token up with the token itself. A token that
    Vault refuses is waited for `patience_s`: what is published may say meanwhile that another one replaces it.
    `ends_at` is the deadline, which `move_end` changes.
    """

    def __init__(
        self,
        *,
        published_end: Callable[[], str | None] | None,
        beat: Callable[[], object],
        heartbeat_s: float | None,
        ends_at: datetime | None,
        patience_s: float = 0.0,
    ) -> None:
        self.line, self._told = os.pipe()
        self.reason = ""
        self._published_end = published_end
        self._beat = beat
        self._beat_s = min(_BEAT_S, heartbeat_s / 3) if heartbeat_s else _BEAT_S
        self._ends_at = ends_at
        self._patience_s = patience_s
        self._refused_at: float | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="task watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. A request that is under way is not waited for."""
        self._stopping.set()

    def move_end(self, ends_at: datetime) -> None:
        """Watch for a later deadline, or an earlier one."""
        self._ends_at = ends_at

    def _run(self) -> None:
        beat_at = time.monotonic() + self._beat_s
        while not self._stopping.wait(POLL_S):
            # what is published may have moved the deadline
            reason = self._by_publication() or self._deadline()
            if not reason and time.monotonic() >= beat_at:
                reason = self._by_token()
                # a token that was refused is looked at again when what is published was waited for
                again_s = self._beat_s if self._refused_at is None else min(self._beat_s, self._patience_s)
                beat_at = time.monotonic() + again_s
            if reason:
                self.reason = reason
                with suppress(OSError):
                    os.write(self._told, b"x")
                return

    def _deadline(self) -> str:
        ends_at = self._ends_at
        if ends_at is not None and datetime.now(UTC) >= ends_at:
            return "its deadline has passed"
        return ""

    def _by_publication(self) -> str:
        # while Vault does not answer nothing is known, and the credentials end by themselves
        with suppress(JitvaultError):
            return (self._published_end() if self._published_end else None) or ""
        return ""

    def _by_token(self) -> str:
        try:
            self._beat()
        except VaultRefused:
            # what was published meanwhile says why
            return self._by_publication() or self._by_refusal()
        except JitvaultError:
            return ""
        self._refused_at = None
        return ""

    def _by_refusal(self) -> str:
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        return "" if now < self._refused_at + self._patience_s else REFUSED
