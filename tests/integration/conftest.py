"""What integration tests share. A module says by `pytest.mark.usefixtures` what its rigs stand on and how they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import EXAMPLE, Quick
from copied_world import copied_world
from hands import Mirror
from mortal import Mortal, mortals
from rig import Rig, own_rig
from stage import Stage, Staging, staged

from jitvault.lifecycle import ending as finish
from jitvault.sandbox.world import World, env
from jitvault.stream import reading as observe


@pytest.fixture(scope="module")
def lab() -> Iterator[World]:
    """A world of one module's own, for tests that leave behind what others would stumble over."""
    with copied_world() as copied:
        yield copied


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    """A rig with a ledger of one test's own: on the `lab` where the test uses that, else on the world of all."""
    world: World = request.getfixturevalue("lab" if "lab" in request.fixturenames else "world")
    return own_rig(world, env(world, "", EXAMPLE), tmp_path)


@pytest.fixture
def in_this_process(rig: Rig) -> None:
    """What people read is read here as well: a process for each command takes twice the time and shows nothing more."""
    rig.cli = Quick(rig.cli.variables, rig.cli.home)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a revocation fails for good, one more try is enough to see it."""
    monkeypatch.setattr(finish, "_TRIES", 1)


@pytest.fixture
def checked(rig: Rig) -> None:
    """The templates that the last test left unchecked are checked again."""
    rig.recheck()


@pytest.fixture
def mirror(world: World, tmp_path: Path) -> Iterator[Mirror]:
    copy = Mirror(world.audit_file, tmp_path / "mirror.log")
    yield copy
    copy.close()


@pytest.fixture
def mirrored(rig: Rig, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig reads the mirror instead of Vault's own file, and does not wait long for a line."""
    monkeypatch.setattr(observe, "PATIENCE_S", 1.0)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(mirror.path)}


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with mortals(tmp_path_factory.mktemp("mortal")) as program:
        yield program


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as found:
        yield found


@pytest.fixture
def staging() -> Staging:
    """Makes a stage of its own for each round of a test."""
    return staged
