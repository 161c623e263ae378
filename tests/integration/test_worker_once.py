"""`jitvault worker --once` does everything that is due and ends: for a host without a daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Result
from hands import Mirror
from rig import Rig
from stage import Stage

Spec = Callable[..., Path]


@pytest.fixture
def rig(stage: Stage, tmp_path: Path) -> Iterator[Rig]:
    yield stage.rig(tmp_path / "own")
    stage.mend()


def once(rig: Rig, code: int = 0, wait: str = "60s") -> Result:
    return rig.cli(None, "worker", "--once", "--wait", wait, code=code, timeout=120)


def signed(rig: Rig, who: str, *args: str | Path) -> None:
    """A command of someone who holds a Vault token alone, while no worker runs."""
    rig.cli(who, *args, "--wait", "0", worker=False, code=13)


def test_runs_of_a_worker_carry_a_task_from_its_request_to_its_proof(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    signed(rig, "operator", "submit", file)
    once(rig)
    assert rig.state(file.stem) == "pending_approval"
    signed(rig, "approver-1", "approve", file.stem, "--yes")
    signed(rig, "operator", "grant", file.stem)
    once(rig)
    assert rig.state(file.stem) == "issued"
    granted = rig.cli("operator", "grant", file.stem, "--json", worker=False).json
    held = rig.use(granted)
    rig.connect(held.login).close()
    signed(rig, "operator", "complete", file.stem)
    once(rig)
    assert rig.state(file.stem) in ("confirmed", "sealed") and not rig.is_live(held.token)
    rig.settle()
    once(rig)
    assert rig.state(file.stem) == "sealed"


def test_a_run_with_nothing_to_do_ends_by_itself(rig: Rig) -> None:
    assert "ended" in once(rig, wait="20s").stderr


def test_a_run_ends_with_6_while_a_revoked_task_is_not_proven(rig: Rig, stage: Stage, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    signed(rig, "operator", "revoke", file.stem)
    stage.postgres.stop()
    assert file.stem in once(rig, code=6, wait="10s").stderr


def test_a_run_ends_with_7_where_the_audit_stream_is_not_vaults(rig: Rig, stage: Stage, tmp_path: Path) -> None:
    mirror = Mirror(stage.world.audit_file, tmp_path / "mirror.log")
    mirror.close()
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(mirror.path)}
    once(rig, code=7, wait="5s")
