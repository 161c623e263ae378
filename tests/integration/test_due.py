"""What is due is done by whoever reads the stream, without anybody asking for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from rig import Rig

from jitvault.services import follow as following
from jitvault.services.answers import LATEST
from jitvault.services.follow import follow

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]


@pytest.fixture
def rig(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(following, "_TRY_AGAIN_S", 0.5)
    return rig


def _follow_until(rig: Rig, task: str, state: str) -> list[str]:
    """Follow until the task is there, and give what was told on the way."""
    told: list[str] = []
    deadline = time.monotonic() + 30
    with rig.environment("operator"):
        worker = rig.wiring().worker
        follow(
            worker,
            stopped=lambda: rig.file(task).task.state == state or time.monotonic() > deadline,
            tell=told.append,
        )
    assert rig.file(task).task.state == state, told
    return told


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
    told = _follow_until(rig, file.stem, "sealed")
    assert f"{file.stem} is confirmed (operator)" in told
    assert f"{file.stem} is sealed (operator)" in told
    assert rig.file(file.stem).task.due_at is None
    assert not rig.database_roles()


def test_a_task_whose_time_is_over_ends_by_itself(rig: Rig, spec: Spec) -> None:
    file = spec(window="11s")
    held = rig.active(file)
    told = _follow_until(rig, file.stem, "confirmed")
    assert f"{file.stem} is confirmed (deadline)" in told
    assert not rig.is_live(held.token)
