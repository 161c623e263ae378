"""Ten outages in a row within one task, at random: the seed is the test's name.

JITVAULT_TEST_SEEDS=N tries N of them.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from commands import Result
from disk import Limit
from go_between import Fate
from invariants import check, check_over, files, reasons
from rig import Rig
from stage import Stage, claims_run_out, hasty, until_done

from jitvault.engines.postgresql import client
from jitvault.model.states import State

Spec = Callable[..., Path]
SEEDS = int(os.environ.get("JITVAULT_TEST_SEEDS", "1"))
QUOTAS = ("auth/token/*", "sys/leases/*", "jitvault/data/tasks/*", "sys/audit-hash/*", "jitvault-inbox/data/*")


class Misfortune:
    """Breaks something at a random request of the next command, and mends everything after it."""

    def __init__(self, stage: Stage, rig: Rig, chance: random.Random) -> None:
        self.stage, self.rig, self.chance = stage, rig, chance
        self.disk = Limit()
        self.story: list[str] = []

    def strike(self) -> None:
        stage, chance = self.stage, self.chance
        what = chance.choice(["kill", "lose", "lose", "hold", "limit", "target", "full"])
        moment, skip = chance.choice(["before", "after"]), chance.randrange(45)
        self.story.append(f"{what} {moment} request {skip}")
        fate = {"lose": Fate.LOSE, "hold": Fate.HOLD}.get(what, Fate.PASS)
        acts: dict[str, Callable[[], object]] = {
            "kill": stage.kill,
            "target": stage.postgres.kill,
            "full": self.disk.fill,
            "limit": self._limit,
        }
        # two acts leave two, or a lost answer more than one request without one
        stage.between.when(".", moment, acts.get(what, lambda: None), fate, skip=skip, times=chance.choice([1, 1, 3]))  # type: ignore[arg-type]

    def mend(self) -> None:
        self.disk.free()
        self.stage.mend()
        self.rig.admin.delete("sys/quotas/rate-limit/misfortune")
        if self.rig.has_table("tasks"):
            claims_run_out(self.rig)

    def _limit(self) -> None:
        body = {"path": self.chance.choice(QUOTAS), "rate": 1, "interval": "30s"}
        self.rig.admin.write("sys/quotas/rate-limit/misfortune", body)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_ten_outages_in_a_row(
    stage: Stage, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    hasty(monkeypatch, 0.8)
    monkeypatch.setattr(client, "CONNECT_S", 1)
    rig, file = stage.rig(tmp_path / "rig"), spec()
    rig("operator", "submit", file)
    misfortune = Misfortune(stage, rig, random.Random(seed))

    def unlucky(*arguments: str | Path) -> Result:
        misfortune.strike()
        try:
            with closing(sqlite3.connect(rig.ledger_path)) as other:
                # as a worker has it open: on a full disk there is its log to read from
                other.execute("SELECT count(*) FROM tasks").fetchall()
                result = rig("operator", *arguments, code=None)
        finally:
            misfortune.mend()
        misfortune.story.append(f"{arguments[0]}: {result.code}")
        if "is known in" in result.stderr:
            time.sleep(3.1)
        check(rig, result)
        return result

    try:
        for _ in range(4):
            unlucky("grant", file)
        granted = rig("operator", "grant", file, code=None)
        if "is known in" in granted.stderr:
            time.sleep(3.1)
            granted = rig("operator", "grant", file, code=None)
        if granted.code == 0 and granted.json["wrapping"]:
            rig.use(dict(granted.json))
        for _ in range(4):
            unlucky("complete", file.stem)
        until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
        time.sleep(1.0)
        for _ in range(2):
            unlucky("status", file.stem)
        time.sleep(1.5)
        rig("operator", "status", file.stem)
        check_over(rig, file.stem)
        assert rig.record(file.stem).task.state is State.SEALED
    except Exception as error:
        raise AssertionError(seed, misfortune.story, [reasons(one) for one in files(rig)]) from error
