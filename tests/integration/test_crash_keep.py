"""A process may die anywhere while it renews: the next run goes on, and where there is none all is gone in a step.

Every point is tried with JITVAULT_TEST_ALL_POINTS=1, otherwise those after the acts.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLE
from invariants import check, check_over, verdicts
from mortal import Mortal, new_rig, points_of, time_passes
from rig import Held, Rig

from jitvault.model.states import EndReason, State
from jitvault.sandbox.world import World, env

# half of it is what a busy machine has for the status that renews
STEP_S = 10
ACTS = ("/v1/auth/token/renew-accessor", "/v1/sys/leases/renew/")


@pytest.fixture
def start(lab: World, tmp_path: Path) -> Any:
    """`start(name)`: a ledger of its own, and a spec whose stem is the task."""
    variables = {**env(lab, "", EXAMPLE), "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}
    return lambda name: new_rig(lab, variables, tmp_path, str(name))


def due(rig: Rig, file: Path) -> Held:
    """The task's token and its lease are both to be renewed."""
    held = rig.active(file)
    time.sleep(STEP_S / 2)
    return held


def test_a_renewal_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    rig, file = start("dry")
    due(rig, file)
    dry = mortal(rig, "status", file.stem, point=0)
    assert dry["code"] == 0, dry
    rig("operator", "complete", file.stem)
    for point in points_of(dry["points"], ACTS):
        rig, file = start(point)
        held = due(rig, file)
        assert mortal(rig, "status", file.stem, point=point)["signal"] == signal.SIGKILL, point
        time_passes(rig)
        check(rig, rig("operator", "status", file.stem, code=None))
        task = rig.record(file.stem).task
        if task.state is State.ACTIVE:
            # renewed, whichever of the two did it
            assert rig.is_live(held.token), point
            record = rig.admin.write("sys/leases/lookup", {"lease_id": held.lease_id})["data"]
            assert 0 < record["ttl"] <= STEP_S, point
        else:
            # it was too late for it
            assert task.end_reason is EndReason.EXPIRED, point
        assert rig("operator", "complete", file.stem).json["confirmed"], point
        check_over(rig, file.stem)


def test_where_nobody_comes_after_a_death_all_is_gone_and_that_is_proven(start: Any, mortal: Mortal) -> None:
    """Nobody saw the answer: it is proven once the renewal cannot have given the token longer, by any clock."""
    rig, file = start("dry")
    due(rig, file)
    dry = mortal(rig, "status", file.stem, point=0)
    rig("operator", "complete", file.stem)
    answered = max(n for n, name in enumerate(dry["points"], 1) if name == ACTS[0])
    rig, file = start(answered)
    held = due(rig, file)
    assert mortal(rig, "status", file.stem, point=answered)["signal"] == signal.SIGKILL
    time.sleep(STEP_S + 1)
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    time_passes(rig)
    deadline = time.monotonic() + 120
    while rig("operator", "status", file.stem, code=None).json["state"] != "confirmed":
        assert time.monotonic() < deadline
        time.sleep(3)
    assert rig.record(file.stem).task.end_reason is EndReason.EXPIRED
    assert verdicts(rig, file.stem) == ["expired", "target_confirmed"]
    check_over(rig, file.stem)
