"""The disk of the only audit device is full: Vault does nothing, or does it and says that it did not.

Lines are cut off. It is a small file system of its own, really full, and only Vault's audit file lies on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Result
from disk import PAGE, SmallDisk, small_disk
from go_between import Moment
from invariants import check, check_over, live_tokens, reasons, verdicts
from rig import Held, Rig
from stage import ALL, Stage, hasty, sealed, staged, until_done

from jitvault.model.states import PROVEN, State
from jitvault.sandbox.vault_server import VaultServer

Spec = Callable[..., Path]
Case = tuple[str, Moment]

pytestmark = pytest.mark.usefixtures("hurried")
CREATE = "PUT auth/token/create/"
DELIVER = "PUT jitvault-inbox/data/"
REVOKE_TOKEN = "PUT auth/token/revoke-accessor"
REVOKE_LEASE = "PUT sys/leases/revoke/"
LOOK_AT_LEASE = "PUT sys/leases/lookup$"
# room in bytes for the next lines: a request's line has 1,100 to 1,700, its answer's some 1,300 more
NOTHING_FITS, A_REQUEST_FITS = (1, 900), (1700, 2300)
GRANT: list[Case] = [(CREATE, "before"), (CREATE, "after")]
MORE_OF_GRANT: list[Case] = [(DELIVER, "before"), (DELIVER, "after")]
COMPLETE: list[Case] = [(REVOKE_TOKEN, "before"), (REVOKE_TOKEN, "after")]
MORE_OF_COMPLETE: list[Case] = [(REVOKE_LEASE, "before"), (REVOKE_LEASE, "after"), (LOOK_AT_LEASE, "after")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, SmallDisk]]:
    with small_disk(tmp_path_factory.mktemp("audit") / "disk") as disk:

        def audited_there(directory: Path) -> VaultServer:
            bao = VaultServer(directory)
            bao.audit_file = disk.directory / "audit.log"
            return bao

        with staged(audited_there) as stage:
            yield stage, disk


@pytest.fixture
def rig(place: tuple[Stage, SmallDisk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    stage, disk = place
    yield stage.rig(tmp_path)
    disk.free()
    stage.mend()


def full_at(place: tuple[Stage, SmallDisk], rig: Rig, case: Case, *arguments: str | Path) -> Result:
    """The command, during which the disk becomes full and stays so; what it says, once there is room again."""
    stage, disk = place
    struck = stage.between.when(*case, lambda: fill(rig, disk, *NOTHING_FITS))
    first = rig("operator", *arguments, code=None)
    assert struck.struck == 1
    proven = [file for file in (rig.record(str(task)) for task in tasks(rig)) if file.task.state in PROVEN]
    disk.free()
    assert not proven
    assert first.code in (5, 6, 7), first
    check(rig, first)
    return first


def tasks(rig: Rig) -> list[str]:
    return [row[0] for row in rig.rows("SELECT task_id FROM tasks")]


def torn(rig: Rig) -> int:
    """How many lines of the audit file are no audit entry."""
    count = 0
    for line in rig.world.audit_file.read_bytes().splitlines():
        try:
            json.loads(line)
        except ValueError:
            count += 1
    return count


@pytest.mark.parametrize("case", [*GRANT, *(MORE_OF_GRANT if ALL else ())], ids=" ".join)
def test_the_audit_disk_is_full_during_a_grant(
    place: tuple[Stage, SmallDisk], rig: Rig, spec: Spec, case: Case
) -> None:
    """What was begun is ended and proven over the gap that the line makes that was cut off."""
    file = spec()
    full_at(place, rig, case, "grant", file)
    until_done(rig, "grant", file, watch=lambda result: check(rig, result))
    assert len(live_tokens(rig)) == 1
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


@pytest.mark.parametrize("case", [*COMPLETE, *(MORE_OF_COMPLETE if ALL else ())], ids=" ".join)
def test_the_audit_disk_is_full_during_a_complete(
    place: tuple[Stage, SmallDisk], rig: Rig, spec: Spec, case: Case
) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    before = torn(rig)
    full_at(place, rig, case, "complete", file.stem)
    assert torn(rig) == before + 1
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)
    # it stays so: the gap does not begin it again
    sealed(rig, file.stem)
    assert [event.kind for event in rig.record(file.stem).events].count("confirmed") == 1


def test_a_revocation_whose_answer_does_not_fit_on_the_disk_is_done_and_proven(
    place: tuple[Stage, SmallDisk], rig: Rig, spec: Spec
) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    without_an_answer(place, rig, held, REVOKE_LEASE)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


def test_a_tokens_end_whose_answer_does_not_fit_on_the_disk_is_never_called_proven(
    place: tuple[Stage, SmallDisk], rig: Rig, spec: Spec
) -> None:
    """It is dead. The line that would prove it never came, and behind it begins a gap: an operator has to close it."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    without_an_answer(place, rig, held, REVOKE_TOKEN)
    ended = rig("operator", "complete", file.stem, code=6)
    check(rig, ended)
    assert verdicts(rig, file.stem) == ["gone", "target_confirmed"]
    assert any("nobody saw it alive" in reason for reason in reasons(rig.record(file.stem)))
    closed = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "its line was cut off", code=6)
    assert closed.json["state"] == "unverified"
    check(rig, closed)


def without_an_answer(place: tuple[Stage, SmallDisk], rig: Rig, held: Held, act: str) -> None:
    """`complete`; there is room for the line of the act's request and not for its answer's: it is done, and looks
    undone.
    """
    stage, disk = place
    task = held.task.task_id
    stage.between.when(act, "before", lambda: fill(rig, disk, *A_REQUEST_FITS))
    first = rig("operator", "complete", task, code=None)
    assert rig.record(task).task.state is State.ENDING
    assert first.code in (5, 6, 7), first
    disk.free()
    assert not rig.is_live(held.token)
    check(rig, first)


def fill(rig: Rig, disk: SmallDisk, least: int, most: int) -> None:
    """Fill the disk but for so much room on the audit file's last page."""
    for _ in range(200):
        left = -rig.world.audit_file.stat().st_size % PAGE
        if least <= left <= most:
            disk.fill()
            return
        # each of these makes the file longer
        rig.admin.read("auth/token/lookup-self")
    raise AssertionError("there is no such moment")
