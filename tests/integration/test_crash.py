"""A process may die anywhere: what it began is found and finished by the same command, and nothing is left over.

Every point is tried with JITVAULT_TEST_ALL_POINTS=1, otherwise those around the acts and an even sample.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import SPEC
from rig import Rig, own_rig

from jitvault.domain.chain import breaks
from jitvault.domain.secret import Secret
from jitvault.sandbox.world import World
from jitvault.vault.wrapping import Wrapping

Spec = Callable[..., Path]
ALL = bool(os.environ.get("JITVAULT_TEST_ALL_POINTS"))
SAMPLE = 8
# after these there is something in Vault that the ledger does not know yet
ACTS = (
    "/v1/auth/token/create/",
    "/v1/jitvault/data/inbox/",
    "/v1/auth/token/revoke-accessor",
    "/v1/sys/leases/revoke/",
)


@dataclass
class Mortal:
    """Starts commands that die where they are told to."""

    process: subprocess.Popen[str]
    directory: Path

    def __call__(self, rig: Rig, *arguments: str, point: int) -> dict[str, Any]:
        """How the command ended: `{signal, code, points, out, err}`."""
        output = self.directory / f"run-{time.monotonic_ns()}"
        order = {
            "arguments": [*arguments, "--json"],
            "environment": rig.cli.environment("operator"),
            "point": point,
            "output": str(output),
        }
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        said = {name: output.with_suffix(f".{name}").read_text() for name in ("out", "err")}
        return {**answer, **said}


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    program = Path(__file__).parent / "killed_at.py"
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        yield Mortal(process, tmp_path_factory.mktemp("mortal"))
        assert process.stdin
        process.stdin.close()


def points_of(names: list[str]) -> list[int]:
    """Which of the points, counted from 1, are tried: around each act, and some of the others."""
    if ALL:
        return list(range(1, len(names) + 1))
    acts = {n for n, name in enumerate(names, 1) if name.startswith(ACTS)}
    return sorted(acts | {1 + round(n * (len(names) - 1) / (SAMPLE - 1)) for n in range(SAMPLE)})


def new_rig(world: World, variables: dict[str, str], directory: Path, name: str) -> tuple[Rig, Path]:
    """A ledger and a spec for one death."""
    own = directory / name
    own.mkdir()
    task = f"c{time.time_ns()}-{name}"
    file = own / f"{task}.yaml"
    fields = {"intent": "Count.", "criticality": "low", "template": "postgres-readonly", "window": "15m", "more": ""}
    file.write_text(SPEC.format(id=task, **fields))
    return own_rig(world, variables, own), file


def time_passes(rig: Rig) -> None:
    """A dead process keeps its claims for 30 s by the database's clock; here they are over at once."""
    if rig.ledger_path.exists():
        for table in ("tasks", "audit_sources"):
            if rig.rows("SELECT 1 FROM sqlite_master WHERE name = ?", table):
                rig.sql(f"UPDATE {table} SET claim_until = 0")


def until_done(rig: Rig, *arguments: str | Path) -> dict[str, Any]:
    """Run the command as its own messages say, until it is done."""
    for _ in range(6):
        result = rig("operator", *arguments, code=None)
        if result.code == 0:
            return dict(result.json)
        assert result.code in (5, 6), result
        if "is known in" in result.stderr:
            time.sleep(3.1)
    raise AssertionError(result)


def check_ledger(rig: Rig, task: str) -> None:
    file = rig.file(task)
    assert breaks(file.events, head=file.task.head) == []
    assert file.findings == ()


def live_wrappings(rig: Rig, *outputs: str) -> set[str]:
    """The wrapping tokens in what was printed that can still be unwrapped."""
    printed = {w["token"] for text in outputs if text for w in json.loads(text)["wrapping"]}
    vault = rig.vault(rig.token_of("agent"))
    return {token for token in printed if Wrapping(vault).creation_path(Secret(token))}


def test_a_grant_that_dies_anywhere_ends_in_one_token(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal
) -> None:
    rig, file = new_rig(world, variables, tmp_path, "dry")
    dry = mortal(rig, "grant", str(file), point=0)
    assert (dry["code"], len(rig.task_tokens(file.stem))) == (0, 1), dry
    assert len(dry["points"]) > 40
    for point in points_of(dry["points"]):
        rig, file = new_rig(world, variables, tmp_path, str(point))
        died = mortal(rig, "grant", str(file), point=point)
        assert died["signal"] == signal.SIGKILL, (point, died)
        time_passes(rig)
        granted = until_done(rig, "grant", file)
        (token,) = rig.task_tokens(file.stem)
        assert (granted["state"], token["meta"]["jitvault_grant"]) == ("issued", granted["grant_id"]), point
        again = rig("operator", "grant", file).stdout
        assert len(live_wrappings(rig, died["out"], json.dumps(granted), again)) <= 1, point
        check_ledger(rig, file.stem)

        ended = until_done(rig, "complete", file.stem)
        assert ended["confirmed"], point
        assert rig.task_tokens(file.stem) == [], point
        check_ledger(rig, file.stem)


def test_a_complete_that_dies_anywhere_ends_in_proof(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal
) -> None:
    rig, file = new_rig(world, variables, tmp_path, "dry")
    rig.active(file)
    dry = mortal(rig, "complete", file.stem, point=0)
    assert (dry["code"], json.loads(dry["out"])["confirmed"]) == (0, True), dry
    for point in points_of(dry["points"]):
        rig, file = new_rig(world, variables, tmp_path, str(point))
        held = rig.active(file)
        died = mortal(rig, "complete", file.stem, point=point)
        # the number of looks at the stream varies a little, so the last points may not be reached
        assert died["signal"] == signal.SIGKILL or point > len(dry["points"]) - 12, (point, died)
        time_passes(rig)
        ended = until_done(rig, "complete", file.stem)
        assert ended["confirmed"], point
        assert [lease["verdict"] for lease in ended["leases"]] == ["target_confirmed"], point
        assert not rig.is_live(held.token), point
        assert not rig.lease_is_live(held.lease_id), point
        assert held.login["user"] not in rig.database_roles(), point
        assert rig.task_tokens(file.stem) == [], point
        check_ledger(rig, file.stem)


def test_a_dead_process_keeps_its_claim_for_a_while_and_the_next_command_says_so(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s is longer than any request to Vault, so a paused process cannot act after it; waiting is cut short here."""
    monkeypatch.setattr("jitvault.ledger.claims.PATIENCE_S", 0.3)
    rig, file = new_rig(world, variables, tmp_path, "claim")
    rig.active(file)
    mortal(rig, "complete", file.stem, point=40)
    refused = rig("operator", "complete", file.stem, code=9).error
    assert "another process is working" in refused["message"]
    assert "again" in refused["hint"]
    (left,) = rig.rows(
        "SELECT max(claim_until) - (julianday('now') - 2440587.5) * 86400.0 FROM "
        "(SELECT claim_until FROM tasks UNION SELECT claim_until FROM audit_sources)"
    )
    assert 25 < left[0] < 30
    time_passes(rig)
    assert until_done(rig, "complete", file.stem)["confirmed"]
