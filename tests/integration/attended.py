"""A worker in threads of the test's own process, for what does not need a process: `with Attended(rig) as worker`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from rig import Rig

from jitvault.settings import load
from jitvault.worker.loop_base import Pace
from jitvault.worker.process import Plan, start
from jitvault.worker.supervisor import Supervisor


@dataclass
class Kept:
    """A log that is kept: `(event, values)`."""

    entries: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    _lock: Any = field(default_factory=Lock)

    def info(self, event: str, **values: object) -> None:
        with self._lock:
            self.entries.append((event, values))

    warning = error = info

    def states(self, task: str) -> list[str]:
        """The states that a task was seen in, with the reason of its end."""
        found = [values for event, values in list(self.entries) if event == "task" and values["task"] == task]
        return [f"{v['state']} ({v['end_reason']})" if "end_reason" in v else str(v["state"]) for v in found]

    def all_of(self, event: str) -> list[dict[str, object]]:
        return [values for name, values in list(self.entries) if name == event]


class Attended:
    """Works until the block is left; a loop that dies fails the test there, unless `may_die`."""

    def __init__(self, rig: Rig, plan: Plan | None = None, *, may_die: bool = False, **pace: float) -> None:
        self._rig, self._may_die = rig, may_die
        plan = plan or Plan()
        self.plan = replace(plan, pace=Pace(**{"sweep_s": 0, **pace}))
        self.supervisor, self.log = Supervisor(), Kept()

    def __enter__(self) -> Attended:
        with self._rig.environment(None):
            self.started = start(load(), self.supervisor, self.plan, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stopping.set()
        left = self.supervisor.join(15)
        self.started.close()
        assert not left, left
        assert self._may_die or self.supervisor.death is None, self.supervisor.death


def wait_for(what: Callable[[], Any], seconds: float = 20) -> Any:
    """What it gives as soon as that is something."""
    begun = time.monotonic()
    while not (found := what()):
        waited_s = time.monotonic() - begun
        assert waited_s < seconds, what
        # each look is work for the servers that it waits for
        time.sleep(min(0.1, 0.02 + waited_s / 20))
    return found
