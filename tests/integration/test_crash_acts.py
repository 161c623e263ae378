"""A process may die anywhere in the later acts as well: the end of two leases, what is left to Vault's own queue, the
seal, and a task closed by force.

Every point is tried with JITVAULT_TEST_ALL_POINTS=1, otherwise those after the acts.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import EXAMPLE, Result
from hands import without_a_token
from invariants import check, check_over, reasons, verdicts
from mortal import ALL, Mortal, new_rig, points_of, time_passes
from psycopg import sql
from rig import PREFIX, Held, Rig

from jitvault.model.states import State
from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("hurried")
QUEUE = "jitvault.lifecycle.revocation.revoke:queue_in_vault"
FORCED = ("--force", "--yes", "--reason", "its owner keeps what it made")


@pytest.fixture
def start(lab: World, tmp_path: Path) -> Any:
    """`start(name)`: a ledger of its own, and a spec whose stem is the task."""
    return lambda name: new_rig(lab, env(lab, "", EXAMPLE), tmp_path, str(name))


def with_two_leases(rig: Rig, file: Path) -> Held:
    held = rig.active(file)
    rig.vault(held.token).read(PREFIX)
    rig("operator", "status", file.stem)
    assert len(rig.record(file.stem).leases) == 2
    return held


def killed(mortal: Mortal, rig: Rig, *arguments: str, point: int, of: int, within: str = "") -> None:
    """The command dies; the number of looks at the stream varies a little, so the last points may not be reached."""
    died = mortal(rig, *arguments, point=point, in_a_hurry=True, within=within)
    assert died["signal"] == signal.SIGKILL or point > of - 12, (point, died)
    time_passes(rig)


def goes_on(rig: Rig, task: str, *arguments: str, point: int) -> Result:
    """The next run, which is another command at every second point; then the same one until it has nothing to do."""
    if point % 2:
        check(rig, rig("operator", "status", task, code=None))
    for _ in range(4):
        result = rig("operator", *arguments, code=None)
        assert result.code in (0, 5, 6), (point, result)
        check(rig, result)
        if rig.record(task).task.state is not State.ENDING:
            return result
    raise AssertionError((point, result, reasons(rig.record(task))))


def test_the_end_of_two_leases_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    rig, file = start("dry")
    with_two_leases(rig, file)
    dry = mortal(rig, "complete", file.stem, point=0, in_a_hurry=True)
    assert dry["code"] == 0, dry
    for point in points_of(dry["points"], ("/v1/sys/leases/revoke/",)):
        rig, file = start(point)
        with_two_leases(rig, file)
        killed(mortal, rig, "complete", file.stem, point=point, of=len(dry["points"]))
        assert goes_on(rig, file.stem, "complete", file.stem, point=point).json["confirmed"], point
        assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed", "target_confirmed"], point
        check_over(rig, file.stem)


def test_what_leaves_leases_to_vaults_queue_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    """Two leases that their backend refuses to end, and that no token's end has put into the queue."""
    rig, file = start("dry")
    left = left_over(rig, file)
    dry = mortal(rig, "complete", file.stem, point=0, in_a_hurry=True, within=QUEUE)
    assert (dry["code"], all(is_queued(rig, lease) for lease, _ in left)) == (6, True), dry
    come_to_an_end(rig, file.stem, left)
    points = points_of(dry["points"], ("/v1/sys/leases/revoke/",), before=True)
    assert len(dry["points"]) >= 12
    # after the first was left to Vault, and before the second is
    for point in points if ALL else points[1:3]:
        rig, file = start(point)
        left = left_over(rig, file)
        killed(mortal, rig, "complete", file.stem, point=point, of=len(dry["points"]), within=QUEUE)
        assert not rig.task_tokens(file.stem), point
        check(rig, rig("operator", "complete", file.stem, code=6))
        assert all(is_queued(rig, lease) for lease, _ in left), point
        come_to_an_end(rig, file.stem, left)
        goes_on(rig, file.stem, "complete", file.stem, point=point)
        assert verdicts(rig, file.stem) == ["audit_confirmed", *["target_confirmed"] * 3], point
        check_over(rig, file.stem)


def left_over(rig: Rig, file: Path) -> list[tuple[str, str]]:
    """A task with its own lease, and two more with their logins that have no token and own something."""
    held = rig.active(file)
    left = [without_a_token(rig, held) for _ in range(2)]
    for _, login in left:
        as_superuser(rig, "CREATE SCHEMA {name} AUTHORIZATION {name}", login)
    rig("operator", "status", file.stem)
    assert len(rig.record(file.stem).leases) == 3
    return left


def come_to_an_end(rig: Rig, task: str, left: list[tuple[str, str]]) -> None:
    for _, login in left:
        as_superuser(rig, "DROP SCHEMA {name}", login)
    rig("operator", "complete", task, code=None)


def is_queued(rig: Rig, lease_id: str) -> bool:
    """Whether Vault has the lease and is about to end it by itself."""
    return int(rig.admin.write("sys/leases/lookup", {"lease_id": lease_id})["data"]["ttl"]) <= 0


def test_a_seal_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    """The command after the settle window; one that died leaves the task confirmed, or sealed with its receipt."""
    rig, file = start("dry")
    rig.active(file)
    rig("operator", "complete", file.stem)
    rig.settle()
    dry = mortal(rig, "status", file.stem, point=0)
    assert (dry["code"], rig.record(file.stem).task.state) == (0, State.SEALED), dry
    for point in points_of(dry["points"], ("/v1/jitvault-transit/sign/",)):
        rig, file = start(point)
        rig.active(file)
        rig("operator", "complete", file.stem)
        rig.settle()
        killed(mortal, rig, "status", file.stem, point=point, of=len(dry["points"]))
        found = rig.record(file.stem).task
        assert (found.state, bool(found.receipt)) in [(State.CONFIRMED, False), (State.SEALED, True)], point
        goes_on(rig, file.stem, "status", file.stem, point=point)
        after = rig.record(file.stem).task
        assert after.state is State.SEALED, point
        assert found.receipt in (None, after.receipt), point
        assert sum(event.kind == "sealed" for event in rig.record(file.stem).events) == 1, point
        assert rig.document(f"tasks/{file.stem}")["state"] == "sealed", point
        check_over(rig, file.stem)


def test_a_task_closed_by_force_may_die_anywhere(start: Any, mortal: Mortal) -> None:
    """Its login stays at the target, so that nothing may ever call it dead."""
    rig, file = start("dry")
    held = stuck(rig, file)
    dry = mortal(rig, "revoke", file.stem, *FORCED, point=0, in_a_hurry=True)
    assert (dry["code"], rig.record(file.stem).task.state) == (6, State.UNVERIFIED), dry
    drop(rig, held)
    acts = ("/v1/sys/leases/revoke-force/",)
    for point in points_of(dry["points"], acts):
        rig, file = start(point)
        held = stuck(rig, file)
        killed(mortal, rig, "revoke", file.stem, *FORCED, point=point, of=len(dry["points"]))
        closed = goes_on(rig, file.stem, "revoke", file.stem, *FORCED, point=point)
        assert (closed.code, closed.json["state"], closed.json["confirmed"]) == (6, "unverified", False), point
        assert closed.json["forced"]["by"] == rig.entity("operator"), point
        assert verdicts(rig, file.stem) == ["audit_confirmed", "unverifiable"], point
        assert rig.record(file.stem).task.receipt, point
        assert not rig.lease_is_live(held.lease_id), point
        drop(rig, held)


def stuck(rig: Rig, file: Path) -> Held:
    """A task that is ending and whose lease cannot be revoked: its login owns something."""
    held = rig.active(file)
    at_target(rig, "CREATE SCHEMA {name} AUTHORIZATION {name}", held)
    rig("operator", "revoke", file.stem, code=6)
    return held


def drop(rig: Rig, held: Held) -> None:
    at_target(rig, "DROP OWNED BY {name}; DROP ROLE {name}", held)


def at_target(rig: Rig, statement: str, held: Held) -> None:
    as_superuser(rig, statement, held.login["user"])


def as_superuser(rig: Rig, statement: str, login: str) -> None:
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(sql.SQL(statement).format(name=sql.Identifier(login)))  # type: ignore[arg-type]
