"""What is due is done by a worker, without anybody asking for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from attended import Attended, wait_for
from rig import Rig

from jitvault.services.revoke import LATEST

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]


def test_what_could_not_be_revoked_is_tried_again_until_it_is_proven_and_then_sealed(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{held.login["user"]}"'.encode())
        rig("operator", "revoke", file.stem, code=6)
        ending = rig.file(file.stem).task
        assert ending.due_at is not None
        assert ending.ending_at is not None
        # soon after the first failures, later and later afterwards, and never later than that
        assert ending.ending_at < ending.due_at < ending.ending_at + LATEST
        target.execute(f'DROP SCHEMA "{file.stem}"'.encode())
    with Attended(rig) as worker:
        wait_for(lambda: rig.file(file.stem).task.state == "sealed", 30)
    assert worker.log.states(file.stem) == ["confirmed (operator)", "sealed (operator)"]
    assert rig.file(file.stem).task.due_at is None
    assert not rig.database_roles()


def test_a_task_whose_time_is_over_ends_by_itself(rig: Rig, spec: Spec) -> None:
    file = spec(window="11s")
    held = rig.active(file)
    with Attended(rig) as worker:
        wait_for(lambda: rig.file(file.stem).task.state == "confirmed", 30)
    assert "confirmed (deadline)" in worker.log.states(file.stem)
    assert not rig.is_live(held.token)
