"""How long a command waits for a worker, and how often it looks at what the worker published."""

from __future__ import annotations

from jitvault.wiring import Wiring

_FIRST_POLL_S = 0.02


class Wait:
    """The wait of one command, from now on, for so many `seconds`; in the end it looks every `poll_s`."""

    def __init__(self, wiring: Wiring, seconds: float, *, poll_s: float = 0.2) -> None:
        self.wiring = wiring
        self.until = wiring.clock.monotonic() + seconds
        """By the monotonic clock."""
        self._poll_s = poll_s
        self._pause_s = _FIRST_POLL_S

    @property
    def left_s(self) -> float:
        """How many seconds are left, 0 once the wait is over."""
        return max(0.0, self.until - self.wiring.clock.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left_s == 0.0

    def rest(self) -> None:
        """Wait until it is worth looking again: a worker answers soon, or takes longer."""
        self.wiring.clock.sleep(min(self._pause_s, self.left_s))
        self._pause_s = min(1.5 * self._pause_s, self._poll_s)
