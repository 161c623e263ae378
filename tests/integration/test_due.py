"""What is due is done by a worker, without anybody asking for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from attended import Attended, wait_for
from rig import Rig

from jitvault.documents.paths import REQUEST_LIFE
from jitvault.model.ttl import LONGEST_PAUSE

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]


def test_what_could_not_be_revoked_is_tried_again_until_it_is_proven_and_then_sealed(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{held.login["user"]}"'.encode())
        rig("operator", "revoke", file.stem, code=6)
        ending = rig.record(file.stem).task
        assert ending.due_at is not None
        assert ending.ending_at is not None
        # soon after the first failures, later and later afterwards, and never later than that
        assert ending.ending_at < ending.due_at < ending.ending_at + LONGEST_PAUSE
        target.execute(f'DROP SCHEMA "{file.stem}"'.encode())
    with Attended(rig) as worker:
        wait_for(lambda: rig.state(file.stem) == "sealed", 30)
    assert worker.log.states(file.stem) == ["confirmed (operator)", "sealed (operator)"]
    assert rig.record(file.stem).task.due_at is None
    assert not rig.database_roles()


def test_a_task_whose_time_is_over_ends_by_itself(rig: Rig, spec: Spec) -> None:
    file = spec(window="11s")
    held = rig.active(file)
    with Attended(rig) as worker:
        wait_for(lambda: rig.state(file.stem) == "confirmed", 30)
    assert "confirmed (deadline)" in worker.log.states(file.stem)
    assert not rig.is_live(held.token)


def test_a_window_that_opens_is_granted_by_itself_where_somebody_watches_the_inbox(rig: Rig, spec: Spec) -> None:
    watched, asked = spec(more="  deliver: agent\n"), spec()
    opens = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=12)
    for file in (watched, asked):
        window = f"{{for: 15m, not_before: '{opens:%Y-%m-%dT%H:%M:%SZ}'}}"
        file.write_text(file.read_text().replace("{for: 15m}", window))
    with Attended(rig):
        for file in (watched, asked):
            early = rig("operator", "grant", file, code=9, extra={"JITVAULT_WORKER_TOKEN": ""})
            assert "its window has not begun" in early.error["message"]
            assert rig.record(file.stem).task.due_at == opens
        wait_for(lambda: rig.state(watched.stem) == "issued", 40)
        rig("operator", "complete", watched.stem)
        # who asked for the other is not there any more to take it: they ask again
        wait_for(lambda: rig.record(asked.stem).task.due_at == opens + REQUEST_LIFE)
        assert rig.record(asked.stem).task.state == "approved"
        rig("operator", "grant", asked.stem)
        rig("operator", "complete", asked.stem)
