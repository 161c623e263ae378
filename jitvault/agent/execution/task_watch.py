"""Notice that the task is over, in a thread beside the program.

Nothing is probed: a request that Vault denies is noted against the task. What is asked is the published task, under the
agent's own login, and the task token's own look-up, which also is the heartbeat that the spec may demand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from threading import Event, Thread

from jitvault.errors import JitvaultError, VaultRefused

POLL_S = 1.0
# without a heartbeat in the spec
_BEAT_S = 5.0


class Cause(Enum):
    """Why an access is over, as far as anything is decided by it."""

    OVER = auto()
    """The task is over."""
    REFUSED = auto()
    """Vault refuses the token, and nothing was published that says why."""
    CHANGED = auto()
    """The task goes on with another token, which this process can take."""
    REPLACED = auto()
    """The task goes on with another token, which this process does not have."""


@dataclass(frozen=True, slots=True)
class AccessEnd:
    """Why an access is over; `why` says it to people."""

    cause: Cause
    why: str


REFUSED = AccessEnd(Cause.REFUSED, "Vault does not accept its token any more")


class TaskWatch:
    """Watches until the task is over.

    `line` becomes readable then, and `end` says why. `published_end` returns why the published task is over, or None;
    it is None for an agent without a login. `beat` looks the task's token up with the token itself. A token that
    Vault refuses is waited for `patience_s`: what is published may say meanwhile that another one replaces it.
    `ends_at` is the deadline, which `move_end` changes.
    """

    def __init__(
        self,
        *,
        published_end: Callable[[], AccessEnd | None] | None,
        beat: Callable[[], object],
        heartbeat_s: float | None,
        ends_at: datetime | None,
        patience_s: float = 0.0,
    ) -> None:
        self.line, self._told = os.pipe()
        self.end: AccessEnd | None = None
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
            end = self._by_publication() or self._deadline()
            if end is None and time.monotonic() >= beat_at:
                end = self._by_token()
                # a token that was refused is looked at again when what is published was waited for
                again_s = self._beat_s if self._refused_at is None else min(self._beat_s, self._patience_s)
                beat_at = time.monotonic() + again_s
            if end is not None:
                self.end = end
                with suppress(OSError):
                    os.write(self._told, b"x")
                return

    def _deadline(self) -> AccessEnd | None:
        ends_at = self._ends_at
        if ends_at is not None and datetime.now(UTC) >= ends_at:
            return AccessEnd(Cause.OVER, "its deadline has passed")
        return None

    def _by_publication(self) -> AccessEnd | None:
        # while Vault does not answer nothing is known, and the credentials end by themselves
        with suppress(JitvaultError):
            return self._published_end() if self._published_end else None
        return None

    def _by_token(self) -> AccessEnd | None:
        try:
            self._beat()
        except VaultRefused:
            # what was published meanwhile says why
            return self._by_publication() or self._by_refusal()
        except JitvaultError:
            return None
        self._refused_at = None
        return None

    def _by_refusal(self) -> AccessEnd | None:
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        return None if now < self._refused_at + self._patience_s else REFUSED
