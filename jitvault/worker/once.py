"""`jitvault worker --once`: a worker that ends when everything due is done.

It is the whole worker, with all of its loops, so what is done and in which order is the same as in one that stays.
Everything due is done once a whole round of the loops found nothing: the stream was read up to a canary that was sent
in the round, requests and freezes were looked at, no task is due, and no job waits or runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from jitvault.errors import AuditUntrusted, JitvaultError, NotConfirmed, WaitTimedOut
from jitvault.formats.plural import counted
from jitvault.model.states import State
from jitvault.worker.loop_base import Pace
from jitvault.worker.process import Started

PACE = Pace(canary_s=0.5, sweep_s=0)
"""How often the loops run: a round needs a canary of its own, and sweeps are commands of their own."""
_ROUND = ("canary", "intake", "backlog", "due", "tripwires", "notices")
"""The loops that find work; all of them have to come round."""
_PASSES = 2
"""How often each loop has to come round: the first time may have begun before the round."""
_NAMED = 5
"""How many tasks an error names."""


@dataclass
class Once:
    """Sees when everything due is done, and why it is not."""

    wait_s: float
    failure: JitvaultError | None = field(
        default_factory=lambda: WaitTimedOut("stopped before everything due was done")
    )
    _begun: float = field(default_factory=time.monotonic)
    _passes: Mapping[str, int] = field(default_factory=dict)
    _placed: int = -1

    def goes_on(self, started: Started) -> bool:
        """Return whether the worker has to go on; note in `failure` what is left where it ends."""
        passes = started.loops.supervisor.passes()
        if all(passes.get(name, 0) >= self._passes.get(name, 0) + _PASSES for name in _ROUND):
            placed = started.pool.placed()
            if placed == self._placed and not started.left() and started.loops.health.why_not_trusted is None:
                self.failure = _unproven(started)
                return False
            self._passes = passes
            self._placed = placed
        if time.monotonic() - self._begun < self.wait_s:
            return True
        self.failure = self._too_late(started)
        return False

    def check(self) -> None:
        """Raise why not everything due was done, if so."""
        if self.failure is not None:
            raise self.failure

    def _too_late(self, started: Started) -> JitvaultError:
        """Return why not everything due was done in time."""
        late = f"not everything due was done within {self.wait_s:g} s"
        why = started.loops.health.why_not_trusted
        if why is not None:
            return AuditUntrusted(f"{late}: {why}")
        return _unproven(started) or WaitTimedOut(
            f"{late}: {counted(started.left(), 'task')} left",
            hint="The next `jitvault worker --once` continues. The log says what was tried.",
        )


def _unproven(started: Started) -> JitvaultError | None:
    """Return that the ends of tasks are not proven, None where all are."""
    ending = started.worker.ledger.task_ids({State.ENDING})
    if not ending:
        return None
    named = ", ".join(ending[:_NAMED]) + (f" and {len(ending) - _NAMED} more" if len(ending) > _NAMED else "")
    return NotConfirmed(
        f"{counted(len(ending), 'task')} ended without proof so far: {named}",
        hint="`jitvault status TASK` says why. The next `jitvault worker --once` tries again.",
    )
