"""A process may die anywhere while a token is put in another one's place: one of them lives, and never both.

Every point is tried with JITVAULT_TEST_ALL_POINTS=1, otherwise those after the acts.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLE
from invariants import Seen, check, check_over, files, live_tokens, second_deliveries
from mortal import Mortal, new_rig, points_of, time_passes, until_done
from rig import Rig

from jitvault.model.event_bodies import Extended, said
from jitvault.model.states import State
from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("lab")
ACTS = (
    "/v1/auth/token/create/",
    "/v1/auth/token/revoke-accessor",
    "/v1/sys/leases/revoke/",
    "/v1/jitvault-inbox/data/",
)
WITHIN = "jitvault.lifecycle.advance:_renew_or_end"


@pytest.fixture
def start(lab: World, tmp_path: Path) -> Any:
    """`start(name)`: a ledger of its own, and a spec whose stem is the task."""
    return lambda name: new_rig(lab, env(lab, "", EXAMPLE), tmp_path, str(name))


def more(file: Path) -> tuple[str, ...]:
    return "extend", file.stem, "--for", "20m", "--reason", "slow"


def check_one_lives(rig: Rig, task: str) -> None:
    assert not second_deliveries(rig, Seen(files(rig), live_tokens(rig)))
    record = rig.record(task)
    if not list(said(record.events, Extended)):
        assert len(rig.task_tokens(task)) == 1


def goes_on(rig: Rig, task: str) -> None:
    """Look at the task until there is nothing more to do; on a busy machine one look may be cut short."""
    for _ in range(6):
        result = rig("operator", "status", task, code=None)
        assert result.code in (0, 5, 6, 13), result
        if result.code == 0 and rig.record(task).task.state is not State.ISSUING:
            return
        time.sleep(3.1 if "is known in" in result.stderr else 0)
    raise AssertionError(result)


def test_an_extension_past_the_tokens_cap_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    rig, file = start("dry")
    rig.active(file)
    dry = mortal(rig, *more(file), point=0, within=WITHIN)
    assert dry["code"] == 0, dry
    assert set(ACTS) <= {act for act in ACTS for name in dry["points"] if name.startswith(act)}
    rig("operator", "complete", file.stem)
    for point in points_of(dry["points"], ACTS, sample=4):
        rig, file = start(point)
        held = rig.active(file)
        died = mortal(rig, *more(file), point=point, within=WITHIN)
        # a run that is quick has fewer points: what takes longer than 5 s extends its claim once more
        assert died["signal"] == signal.SIGKILL or len(died["points"]) < point, (point, died)
        check_one_lives(rig, file.stem)
        time_passes(rig)
        if point % 3 == 0:
            # whatever was begun, it can be ended at once
            assert until_done(rig, "complete", file.stem)["confirmed"], point
            check_over(rig, file.stem)
            continue
        # the next command goes on by what is written, whatever it was asked for
        goes_on(rig, file.stem)
        check(rig)
        (token,) = rig.task_tokens(file.stem)
        task = rig.record(file.stem)
        assert task.task.state in (State.ISSUED, State.ACTIVE), point
        assert len(list(said(task.events, Extended))) == 1, point
        assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id), point
        assert token["meta"]["jitvault_grant"] == task.grants[-1].grant_id, point
        assert rig("operator", "complete", file.stem).json["confirmed"], point
        check_over(rig, file.stem)
