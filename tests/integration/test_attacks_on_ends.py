"""Attacks on how access ends: the kill switch, closing by force, and what is done without a ledger."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from hands import without_a_token
from rig import PREFIX, Rig, own_rig
from stage import Stage, claims_run_out

from jitvault.ledger.storage import sqlite
from jitvault.lifecycle import ending as finish
from jitvault.sandbox.world import World

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
# what cannot be proven here is tried again for a moment, and not for half a minute
HOW = ("--reason", "it was stolen", "--yes", "--wait", "3")
KILL = ("revoke", "--agent", "research-agent", *HOW)
ALL = ("revoke", "--all", *HOW)


@pytest.fixture
def rig(rig: Rig, lab: World, tmp_path: Path) -> Iterator[Rig]:
    yield rig
    # two ledgers on one Vault freeze each other over what is held still
    own = own_rig(lab, rig.cli.variables, tmp_path / "broom")
    own.ledger_path.parent.mkdir(exist_ok=True)
    own("operator", *ALL, code=None)


def as_superuser(rig: Rig, statement: str) -> None:
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(statement.encode())


@contextmanager
def locked(rig: Rig) -> Iterator[None]:
    with closing(sqlite3.connect(rig.ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


# -- the kill switch -------------------------------------------------------------------------------------------


def test_the_kill_switch_does_not_call_it_done_over_a_task_that_a_restored_ledger_lacks(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    rig.active(spec())
    copy = rig.snapshot(tmp_path / "older.db")
    held = rig.active(spec())
    rig.put_back(copy)
    ended = rig("operator", *KILL, code=None)
    assert ended.code != 0 or not rig.is_live(held.token), ended


def test_an_agent_that_only_vault_knows_any_more_is_no_wrong_name(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    rig("operator", "audit", "status")
    copy = rig.snapshot(tmp_path / "empty.db")
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    rig.put_back(copy)
    ended = rig("operator", *KILL, code=12)
    told = {task["task_id"]: task["error"] for task in ended.json["tasks"]}
    assert f"Vault says that task {file.stem} is active, which the ledger does not hold" in told[file.stem]
    # another name is a wrong one all the same
    rig("operator", "revoke", "--agent", "nobody", "--reason", "x", "--yes", code=9)


def test_the_kill_switch_does_not_call_it_done_over_a_task_whose_row_says_sealed(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    rig.drop_triggers()
    rig.sql("UPDATE tasks SET state = 'sealed' WHERE task_id = ?", file.stem)
    ended = rig("operator", *KILL, code=None)
    assert ended.code != 0 or not rig.is_live(held.token), ended


@pytest.mark.parametrize("body", ["{", "[]"])
def test_one_broken_row_keeps_no_other_task_alive(rig: Rig, spec: Spec, body: str) -> None:
    if body == "{":
        # PostgreSQL keeps no JSON that is none
        assert rig.ledger_path
    broken = spec()
    rig.active(broken)
    held = rig.active(spec())
    rig.drop_triggers()
    rig.sql("UPDATE revisions SET body = ? WHERE task_id = ?", body, broken.stem)
    # exit 1, "unexpected TypeError", is no answer to an emergency either: `rig` refuses it
    rig("operator", *KILL, code=None)
    assert not rig.is_live(held.token)


@pytest.mark.parametrize("command", [KILL, ALL], ids=["an agent", "all"])
def test_a_ledger_that_takes_no_writes_stops_no_kill_switch(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """`revoke TASK` ends the access all the same; a kill switch must not be weaker."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 100)
    with locked(rig):
        rig("operator", *command, code=11)
        assert not rig.is_live(held.token)
        assert not rig.lease_is_live(held.lease_id)


@pytest.mark.parametrize("command", [("complete",), KILL], ids=["complete", "an agent"])
def test_an_audit_file_that_the_system_does_not_even_look_at_stops_no_revocation(
    rig: Rig, spec: Spec, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """As below a directory that jitvault may not enter any more. Root may, so here a name on the way is too long."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    lost = tmp_path / "audit.log"
    lost.symlink_to("x" * 300)
    task = (file.stem,) if command == ("complete",) else ()
    told = rig("operator", *command, *task, code=None, extra={"JITVAULT_AUDIT_FILE": str(lost)})
    assert told.code == 7, told
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)


def test_a_role_that_cannot_be_revoked_as_a_whole_keeps_no_known_task_alive(rig: Rig, spec: Spec) -> None:
    """As with a worker's policy of an earlier version, on which nobody has run `init` since."""
    held = rig.active(spec())
    path = "sys/policies/acl/jitvault-worker"
    policy = (rig.admin.read(path) or {})["data"]["policy"]
    rig.admin.write(path, {"policy": policy.replace("sys/leases/revoke-prefix/", "sys/leases/no-prefix/")})
    try:
        ended = rig("operator", *ALL, code=None)
        assert ended.code != 0
        assert not rig.is_live(held.token)
    finally:
        rig.admin.write(path, {"policy": policy})


# -- closing by force ------------------------------------------------------------------------------------------


def test_a_wish_that_had_nothing_to_force_forces_nothing_later(rig: Rig, spec: Spec) -> None:
    """Signed when all could be proven, it must not make Vault forget a lease that appears afterwards."""
    file = spec()
    held = rig.active(file)
    ended = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "in a hurry").json
    assert (ended["state"], ended["forced"]) == ("confirmed", None)
    lease, login = without_a_token(rig, held)
    as_superuser(rig, f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{login}"')
    try:
        # somebody looks, and wants nothing
        rig("auditor", "status", file.stem, code=None)
        assert rig.record(file.stem).task.state == "ending"
        assert rig.lease_is_live(lease), "Vault was made to forget a credential that works"
    finally:
        as_superuser(rig, f'DROP SCHEMA "{file.stem}"')


def test_what_was_forced_and_proven_by_the_target_is_sealed(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    login = held.login["user"]
    as_superuser(rig, f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{login}"')
    rig("operator", "revoke", file.stem, code=6)
    as_superuser(rig, f'DROP SCHEMA "{file.stem}"')
    as_superuser(rig, f"SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = '{login}'")
    as_superuser(rig, f'REVOKE ALL ON SCHEMA public FROM "{login}"; DROP ROLE "{login}"')
    rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "dropped by hand")
    until = time.monotonic() + 8
    while rig("operator", "status", file.stem, code=None).json["state"] != "sealed":
        assert time.monotonic() < until, [e.kind for e in rig.record(file.stem).events][-9:]
        rig.settle()


def test_what_was_closed_without_proof_is_no_ghost_of_a_restored_ledger(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    as_superuser(rig, f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{held.login["user"]}"')
    rig("operator", "revoke", file.stem, code=6)
    rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "the owner keeps it", code=6)
    rig.settle()
    found = rig("operator", "sweep", "--fix", code=None).json["ghosts"]
    as_superuser(rig, f'DROP SCHEMA "{file.stem}"; DROP ROLE "{held.login["user"]}"')
    assert [ghost for ghost in found if ghost["task_id"] == file.stem] == []


# -- without a ledger ------------------------------------------------------------------------------------------


def test_a_ledger_that_was_edited_and_takes_no_writes_ends_nobody_elses_token(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ledger that works this is exit 12, and nothing is revoked from it."""
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    somebody = rig.admin.write("auth/token/create", {"policies": ["default"], "ttl": "5m"})["auth"]
    rig.drop_triggers()
    rig.sql("UPDATE grants SET wrapped_accessor = ? WHERE task_id = ?", somebody["accessor"], file.stem)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 100)
    with locked(rig):
        rig("operator", "revoke", file.stem, code=None)
    assert rig.is_live(somebody["client_token"]), "the worker revoked a token that is no task's"


# -- a Vault that was restored -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["revoked, not yet judged", "confirmed, not yet sealed"])
def test_what_a_restored_vault_has_back_is_not_confirmed_by_what_was_seen_before(
    stage: Stage, tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    rig = stage.rig(tmp_path / "rig")
    file, copy = spec(), tmp_path / "raft"
    held = rig.active(file)
    rig("operator", "status", file.stem)
    stage.copy_files(copy)
    time.sleep(1)
    if when == "revoked, not yet judged":
        # the process ends between the answers of its revocations and the canary that would prove them
        with monkeypatch.context() as patch:
            patch.setattr(finish, "_TRIES", 0)
            stage.between.when(
                "PUT sys/leases/revoke/",
                "after",
                lambda: stage.between.when("PUT sys/audit-hash", "before", stage.kill),
            )
            rig("operator", "complete", file.stem, code=5)
        assert {grant.verdict.value for grant in rig.record(file.stem).grants} == {"gone"}
    else:
        rig("operator", "complete", file.stem)
    stage.put_back(copy)
    claims_run_out(rig)
    assert rig.is_live(held.token)
    if when != "revoked, not yet judged":
        # the agent uses it; that is a finding, and a new lease
        assert rig.vault(held.token).read(PREFIX)
    rig("operator", "status" if when != "revoked, not yet judged" else "complete", file.stem, code=None)
    state, live = rig.record(file.stem).task.state.value, rig.is_live(held.token)
    stage.mend()
    assert not (live and state in ("confirmed", "sealed")), f"{state}, and the agent's token lives"
