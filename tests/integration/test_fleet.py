"""Workers share the tasks of one ledger on PostgreSQL, also while they die: never two live tokens, nothing twice.

What must hold is read from the audit log and from Vault. `make fleet` does it with 1,000 tasks on two workers of two
processes each, of which one process is killed every 5 s.
"""

from __future__ import annotations

import os
import secrets
import time
from math import inf
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE
from crowd import PATIENCE_S, Crowd
from fleet import Fleet
from invariants import check
from ledgers import address, new_place
from lives import Watched, live_now, lives
from rig import Rig, own_rig

from jitvault.ledger.claim_clock import LIFE_S
from jitvault.sandbox.world import World, env

TASKS = int(os.environ.get("FLEET_TASKS", "20"))
IS_LARGE = TASKS > 100
KILL_EVERY_S = float(os.environ.get("FLEET_KILL_SECONDS", "3"))
# what one of them had in hand is free after 30 s alone: a few are enough to be seen to
KILLS = inf if IS_LARGE else 4


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    ledger = address(new_place(lab.servers.postgres, Path(), "postgresql"))
    return own_rig(lab, env(lab, ledger, EXAMPLE), tmp_path)


def states(rig: Rig) -> dict[str, int]:
    """How many tasks are in each state; it tells how far it is, and proves nothing."""
    return {str(state): int(n) for state, n in rig.rows("SELECT state, count(*) FROM tasks GROUP BY state")}


@pytest.mark.timeout(3600 if IS_LARGE else 240)
def test_two_workers_of_two_processes_share_tasks_while_one_after_the_other_is_killed(rig: Rig) -> None:
    tasks = [f"f{n:04}-{secrets.token_hex(3)}" for n in range(TASKS)]
    # each death keeps what was in hand for 30 s: few people would all wait for that
    crowd, begun = Crowd(rig, 100, 900) if IS_LARGE else Crowd(rig, 10), time.monotonic()
    with Fleet(rig, processes=2) as fleet, Watched(rig, set(tasks), 5.0 if IS_LARGE else 0.5) as watched:
        with fleet.dying(KILL_EVERY_S, KILLS):
            failed = crowd.see_through([(task, "completed") for task in tasks])
            asked_s = time.monotonic() - begun
        # while people wait for something, what only has to be sealed is put off
        wait_for(lambda: states(rig) == {"sealed": TASKS}, LIFE_S + PATIENCE_S + TASKS)
        sealed_s = time.monotonic() - begun
        troubles = fleet.said("task could not be advanced") + fleet.said("trouble")
        shares, kills = fleet.transitions(), fleet.killed
    assert not failed, failed[:5]
    assert not watched.wrong and watched.looks > 1, watched.wrong
    found = lives(rig, set(tasks))
    assert not found.wrong, found.wrong[:5]
    assert sorted(found.tokens) == sorted(tasks) and found.delivered() >= TASKS
    assert not live_now(rig, set(tasks)) and not rig.database_roles()
    # a share of it was everybody's
    assert all(share["sealed"] and share["issued"] for share in shares), shares
    # and each move was told by the one who made it; what a killed one had not told is missing
    assert sum(share["sealed"] for share in shares) <= TASKS, shares
    assert kills.total() >= 2, kills
    print(  # noqa: T201 - the figures of a long run
        f"\n{TASKS} tasks, killed {dict(kills)}: asked and ended in {asked_s:.0f} s, sealed in {sealed_s:.0f} s; "
        f"{found.made()} tokens made, {found.expired} of them over before anybody came, {found.delivered()} delivered, "
        f"{watched.looks} looks\nshares {shares}\n"
        f"troubles {troubles.most_common(5)}"
    )
    if not IS_LARGE:
        check(rig)


def test_what_one_worker_has_done_no_other_does_again(rig: Rig) -> None:
    def rounds(*workers: Attended) -> int:
        """How often tasks were looked after while six were seen through."""
        tasks = [f"d{secrets.token_hex(5)}" for _ in range(6)]
        before = sum(looked_after(worker) for worker in workers)
        assert not Crowd(rig, 5).see_through([(task, "completed") for task in tasks])
        wait_for(lambda: all(rig.state(task) == "sealed" for task in tasks), 60)
        return sum(looked_after(worker) for worker in workers) - before

    with Attended(rig) as first:
        alone = rounds(first)
        with Attended(rig) as second:
            together = rounds(first, second)
            assert looked_after(second)
    # not quite as few: both take in what is new, and see some things a little sooner
    assert together <= 1.3 * alone, (together, alone)


def looked_after(worker: Attended) -> int:
    return worker.started.pool._health._counted["advanced", ()]
