"""Workers under a steady load for long: nothing stays unsealed, nothing is left in Vault, and they do not grow.

`make soak` lasts SOAK_SECONDS; the suite has a short one, which is too short to say much of memory.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread

import pytest
from attended import wait_for
from commands import EXAMPLE
from crowd import PATIENCE_S, WAYS, Crowd
from fleet import Fleet
from ledgers import address, new_place
from lives import live_now
from rig import Rig, own_rig

from jitvault.sandbox.world import World, env

SOAK_S = float(os.environ.get("SOAK_SECONDS", "8"))
IS_LONG = SOAK_S >= 120
TASKS_PER_S = float(os.environ.get("SOAK_RATE", "2"))
GROWTH_MB, GROWTH_FDS = 24.0, 8
"""How much more a worker may have in the last fifth of a long run than in its second fifth, when all was used once.

What a worker keeps by design is bounded: the lines of a minute, and what it knows of tasks that it looked after lately.
"""


@dataclass
class Meter:
    """What a process has in memory (MB) and open, at every half second of the block."""

    pid: int
    memory: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    _over: Event = field(default_factory=Event)

    def __enter__(self) -> Meter:
        self._thread = Thread(target=self._measure, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _measure(self) -> None:
        page_mb = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._over.wait(0.5):
            self.memory.append(int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * page_mb)
            self.descriptors.append(len(list(Path(f"/proc/{self.pid}/fd").iterdir())))

    def growth(self) -> tuple[float, int]:
        """How much more MB and descriptors it has in the last fifth than in the second."""
        fifth = len(self.memory) // 5
        early, late = slice(fifth, 2 * fifth), slice(-fifth, None)
        memory = median(self.memory[late]) - median(self.memory[early])
        return memory, max(self.descriptors[late]) - max(self.descriptors[early])

    def told(self) -> str:
        tenth = max(1, len(self.memory) // 10)
        means = [f"{median(self.memory[n : n + tenth]):.0f}" for n in range(0, len(self.memory) - tenth + 1, tenth)]
        return f"MB {' '.join(means)}; descriptors {min(self.descriptors)} to {max(self.descriptors)}"


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    ledger = address(new_place(lab.servers.postgres, tmp_path / "soak.db", os.environ.get("SOAK_LEDGER", "postgresql")))
    return own_rig(lab, env(lab, ledger, EXAMPLE), tmp_path)


def load(names: list[str]) -> Iterator[tuple[str, str]]:
    """Tasks at a steady pace; each second one in five is abandoned."""
    begun = time.monotonic()
    for n, way in enumerate(itertools.cycle(WAYS)):
        due = begun + n / TASKS_PER_S
        if due > begun + SOAK_S:
            return
        time.sleep(max(0.0, due - time.monotonic()))
        names.append(f"s{n:05}-{secrets.token_hex(3)}")
        yield names[-1], way


@pytest.mark.timeout(SOAK_S + 600)
def test_a_steady_load_leaves_nothing_behind_and_no_worker_grows(rig: Rig) -> None:
    names: list[str] = []
    size = 2 if rig.cli.variables["JITVAULT_LEDGER"].startswith("postgresql:") else 1
    with Fleet(rig, size) as fleet:
        meters = [Meter(worker.process.pid) for worker in fleet.workers]
        for meter in meters:
            meter.__enter__()
        failed = Crowd(rig, 12).see_through(load(names))
        for meter in meters:
            meter.__exit__()
        unsealed = "SELECT count(*) FROM tasks WHERE state <> 'sealed'"
        wait_for(lambda: rig.rows(unsealed) == [(0,)] and not live_now(rig, set(names)), PATIENCE_S)
        ended = dict(rig.rows("SELECT end_reason, count(*) FROM tasks GROUP BY end_reason"))
        ends = [worker.end() for worker in fleet.workers]
    for n, meter in enumerate(meters):
        print(f"\nworker {n + 1} of {size}: {meter.told()}; ended in {ends[n]:.1f} s")  # noqa: T201
    print(f"{len(names)} tasks in {SOAK_S:.0f} s: {ended}")  # noqa: T201
    assert not failed, failed[:5]
    assert sum(ended.values()) == len(names)
    assert not rig.database_roles()
    rig("operator", "sweep")
    for meter in meters:
        memory, descriptors = meter.growth()
        assert descriptors <= GROWTH_FDS, meter.told()
        assert not IS_LONG or memory <= GROWTH_MB, meter.told()
