"""Workers that follow rules of different generations: the lower one stops, and writes nothing any more.

The code of another version is this code with another number, in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attended import wait_for
from commands import Result
from rig import Rig
from worker_process import WorkerProcess

from jitvault.model.rules_generation import GENERATION

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
_PROGRAM = (
    "import sys; from jitvault.model import rules_generation as rules; rules.GENERATION += int(sys.argv.pop(1)); "
    "from jitvault.cli.app import main; main()"
)


def version(by: int) -> list[str]:
    """How to run a jitvault whose rules are `by` generations newer."""
    return [sys.executable, "-c", _PROGRAM, str(by)]


def run(rig: Rig, by: int, *arguments: str | Path) -> Result:
    argv = [*version(by), *map(str, arguments), "--json"]
    done = subprocess.run(
        argv, env=rig.cli.environment("operator"), capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def generation(rig: Rig) -> int:
    return int(rig.rows("SELECT generation FROM installation")[0][0])


def test_a_worker_stops_when_a_newer_one_has_begun_and_what_it_held_goes_on(rig: Rig, spec: Spec) -> None:
    file = spec()
    with WorkerProcess(rig) as older:
        held = rig.active(file)
        assert generation(rig) == GENERATION
        with WorkerProcess(rig, program=version(1)) as newer:
            assert generation(rig) == GENERATION + 1
            assert older.process.wait(20) == 11, older.log
            assert rig.is_live(held.token)
            # by a person who has no ledger, since the command of ours may not write
            rig.cli("operator", "complete", file.stem, "--wait", "30", worker=False)
            wait_for(lambda: newer.said("task"))
            newer.end()


def test_a_lower_generation_neither_starts_nor_grants_and_takes_away_in_vault_alone(rig: Rig, spec: Spec) -> None:
    file, other = spec(), spec()
    held = rig.active(file)
    before = rig.rows("SELECT count(*) FROM events")
    rig("operator", "grant", other, "--wait", "0", alone=True, code=13)
    ended = subprocess.run(
        [*version(-1), "worker"], env=rig.cli.environment(None), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 11
    said = " ".join(ended.stderr.split())
    assert "a newer jitvault worked on this ledger" in said and "Upgrading" in said
    assert f"generation {GENERATION}, this one {GENERATION - 1}" in said
    assert rig.rows("SELECT count(*) FROM events") == before
    shown = run(rig, -1, "doctor").json
    (usable,) = [check for check in shown["checks"] if (check["area"], check["name"]) == ("ledger", "usable")]
    assert (usable["status"], shown["can"]["grant"]) == ("fail", False)
    # whoever has to end something can, and is not told that it is proven
    assert run(rig, -1, "complete", file.stem).code == 11
    assert not rig.is_live(held.token)
    assert rig.rows("SELECT count(*) FROM events") == before
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_a_higher_generation_is_kept_and_shown(rig: Rig, spec: Spec) -> None:
    # a ledger that knows no task is refused where Vault knows some
    rig("operator", "submit", spec())
    assert run(rig, 3, "audit", "status").code == 0
    assert generation(rig) == GENERATION + 3
    assert rig("operator", "list").code == 0, "reading is everybody's"
    assert "newer" in rig("operator", "audit", "status", code=11).error["message"]
    # as the page has it for who goes back
    rig.sql("UPDATE installation SET generation = ?", GENERATION)
    rig("operator", "audit", "status")
