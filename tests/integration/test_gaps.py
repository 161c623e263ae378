"""Gaps in the audit stream while a task ends: it settles all the same, and goes round no more than three times."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from commands import Result
from hands import ask
from invariants import check, check_over
from psycopg import sql
from rig import PREFIX, Rig, rests_on
from stage import Stage, claims_run_out, hasty, until_done

from jitvault.context import RunMode
from jitvault.documents.signed import payload_of
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.receipt import proof_of
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason, State

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
REVOKE_LEASE = "PUT sys/leases/revoke/"
SETTLE = "JITVAULT_SETTLE_WINDOW"
CANARY = "PUT sys/audit-hash"
FORCE = ("--force", "--yes", "--reason", "we looked at the target ourselves")
LIST_LEASES = "LIST sys/leases/lookup/database/"
# what one task writes on its way from its grant to its seal, with a round to spare
MOST_EVENTS = 40


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    yield stage.rig(tmp_path)
    stage.mend()


def copy_and_truncate(rig: Rig) -> None:
    """What logrotate's copytruncate does."""
    log = rig.world.audit_file
    shutil.copyfile(log, log.with_name(log.name + ".1"))
    os.truncate(log, 0)


@contextmanager
def load(rig: Rig) -> Iterator[None]:
    """Somebody makes lines all the time."""
    over, admin = threading.Event(), rig.admin

    def ask() -> None:
        while not over.wait(0.005):
            admin.read("auth/token/lookup-self")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kinds(rig: Rig, task: str) -> Counter[str]:
    return Counter(event.kind for event in rig.record(task).events)


def settled(rig: Rig, task: str, *, looks: int = 4) -> State:
    """Look after a task as a worker would until it is sealed, or for so many settle windows."""
    for _ in range(looks):
        rig("operator", "status", task, code=None)
        if (state := rig.record(task).task.state) is State.SEALED:
            break
        rig.settle()
    return state


def over_a_gap(stage: Stage, rig: Rig, file: Path) -> str:
    """Confirm a task whose lease is revoked right after a gap: only the target can say that it is dead. Gives the name
    of its login.
    """
    held = rig.active(file)
    stage.between.when(REVOKE_LEASE, "before", lambda: copy_and_truncate(rig))
    until_done(rig, "complete", file.stem)
    return held.login["user"]


def at_target(rig: Rig, statement: str, name: str) -> None:
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute(sql.SQL(statement).format(name=sql.Identifier(name)))  # type: ignore[arg-type]


def why_open(rig: Rig, task: str) -> str:
    """Why a task is not proven or not sealed, as every output has it."""
    proof = proof_of(rig.record(task))
    assert proof is not None
    return str(proof.unproven_because)


def tried_once_more(rig: Rig, *arguments: str, extra: dict[str, str] | None = None) -> Result:
    """The command, whatever it says."""
    return rig("operator", *arguments, code=None, extra=extra)


def test_tasks_that_end_while_the_audit_file_is_copied_and_truncated_are_sealed(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    """What the target said when a task was confirmed stays so: its seal does not take it back and begin again."""
    during, after = spec(), spec()
    for file in (during, after):
        rig.active(file)
    rig("operator", "status", after.stem)
    with load(rig):
        struck = stage.between.when(REVOKE_LEASE, "before", lambda: copy_and_truncate(rig))
        until_done(rig, "complete", during.stem, watch=lambda result: check(rig, result))
        assert struck.struck == 1
        until_done(rig, "complete", after.stem, watch=lambda result: check(rig, result))
        rig.settle()
    for file in (during, after):
        assert settled(rig, file.stem) is State.SEALED, (kinds(rig, file.stem), rig.record(file.stem).checks)
        assert kinds(rig, file.stem)["confirmed"] == 1
        assert sum(kinds(rig, file.stem).values()) <= MOST_EVENTS
        check_over(rig, file.stem)


def test_a_second_gap_between_look_up_and_listing_has_the_listing_made_anew(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    copy_and_truncate(rig)
    struck = stage.between.when(LIST_LEASES, "before", lambda: copy_and_truncate(rig))
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert struck.struck == 1
    assert settled(rig, file.stem) is State.SEALED
    check_over(rig, file.stem)


def test_a_target_that_is_silent_at_the_seal_takes_nothing_back(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    over_a_gap(stage, rig, file)
    probe = rig.document("probes/postgres")
    rig.put("probes/postgres", {"dsn": probe["dsn"].replace("password=", "password=wrong")})
    rig.settle()
    try:
        assert settled(rig, file.stem) is State.SEALED
    finally:
        rig.put("probes/postgres", probe)
        rig.vouch()
    assert kinds(rig, file.stem)["confirmed"] == 1


def test_a_task_confirmed_anew_three_times_alarms_is_delayed_and_can_be_closed_by_force(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    """Somebody makes the login anew before each seal: what the target says then is newer than what it said before."""
    logins = {file.stem: over_a_gap(stage, rig, file) for file in (spec(), spec())}
    for n in range(3):
        for task, login in logins.items():
            assert rig.record(task).task.state is State.CONFIRMED
            refused = rig("operator", "revoke", task, *FORCE, code=9)
            assert "is confirmed" in refused.error["message"]
            at_target(rig, "CREATE ROLE {name} LOGIN", login)
        rig.settle()
        for task, login in logins.items():
            tried_once_more(rig, "status", task)
            assert rig.record(task).task.state is State.ENDING
            assert any(check.n == 6 and "still exists" in rests_on(check) for check in rig.record(task).checks)
            at_target(rig, "DROP ROLE {name}", login)
            assert rig.findings(task) == (["goes_round"] if n == 2 else [])
            # a window that is not over while this machine is busy
            tried_once_more(rig, "complete", task, extra={SETTLE: "60s"} if n == 2 else None)
    for task in logins:
        assert (rig.record(task).task.state, kinds(rig, task)["confirmed"]) == (State.ENDING, 3)
        assert "not again before its settle window is over" in why_open(rig, task)
    counts = {row["task_id"]: row["findings"] for row in rig("auditor", "list").json["tasks"]}
    closed, left = logins
    assert counts[closed] == 1
    forced = rig("operator", "revoke", closed, *FORCE, code=6, extra={SETTLE: "60s"}).json
    assert (forced["state"], forced["reopened"]) == ("unverified", 3)
    # where all of it holds at last, it is sealed
    assert settled(rig, left) is State.SEALED
    assert kinds(rig, left)["confirmed"] == 4


def test_what_is_confirmed_and_cannot_be_sealed_says_why_and_can_be_closed(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    strange = str((rig.admin.read(PREFIX) or {})["lease_id"])
    rig("operator", "complete", file.stem)
    rig.settle()
    shown = rig("operator", "status", file.stem, code=None).json
    assert (shown["state"], strange in shown["proof"]["unproven_because"]) == ("confirmed", True)
    assert kinds(rig, file.stem)["seal_put_off"] == 1
    rig("operator", "status", file.stem, code=None)
    assert kinds(rig, file.stem)["seal_put_off"] == 1
    closed = rig("operator", "revoke", file.stem, *FORCE, code=6)
    assert closed.json["state"] == "unverified"
    # what was proven of its own stays so
    assert [lease["verdict"] for lease in closed.json["leases"]] == ["target_confirmed"]
    assert payload_of(rig.record(file.stem).task.receipt or {})["predicate"]["proof"]["state"] == "unverified"
    rig.admin.write("sys/leases/revoke", {"lease_id": strange, "sync": True})


@pytest.mark.parametrize("doubt", ["a gap", "a wrapping that nobody opened"])
def test_a_lease_that_nobody_knows_is_listed_ever_more_rarely_and_an_operator_can_close_its_task(
    rig: Rig, spec: Spec, doubt: str
) -> None:
    """A worker waits for nothing itself, and still has to hear that an operator wants it closed."""
    file = spec()
    held = rig.active(file)
    strange = str((rig.admin.read(PREFIX) or {})["lease_id"])
    if doubt == "a gap":
        copy_and_truncate(rig)
    else:
        ask(rig, "GET", PREFIX, held.token, headers={"X-Vault-Wrap-TTL": "60"})
    rig("operator", "complete", file.stem, code=None)
    waitless = replace(rig.wiring().worker, mode=RunMode(is_daemon=True))
    for _ in range(3):
        advance(waitless, file.stem)
    rig.sql("UPDATE tasks SET due_at = ending_at WHERE task_id = ?", file.stem)
    advance(waitless, file.stem)
    task = rig.record(file.stem).task
    assert task.state is State.ENDING
    assert f"Vault lists {strange}" in why_open(rig, file.stem)
    assert "unaccounted_lease" in rig.findings(file.stem)
    assert task.due_at is not None and task.due_at > waitless.now()
    sign_end(rig.wiring("operator").person, file.stem, reason=EndReason.OPERATOR, note="we looked", force=True)
    assert advance(waitless, file.stem).task.state is State.UNVERIFIED
    rig.admin.write("sys/leases/revoke", {"lease_id": strange, "sync": True})


def test_a_task_whose_judge_died_says_what_is_known_of_it(stage: Stage, rig: Rig, spec: Spec) -> None:
    """All was revoked and looked up, and Vault died before the canary that would prove it: no check failed."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    stage.between.when(REVOKE_LEASE, "after", lambda: stage.between.when(CANARY, "before", stage.kill))
    tried_once_more(rig, "complete", file.stem)
    assert rig.record(file.stem).task.state is State.ENDING
    why = why_open(rig, file.stem)
    assert why.startswith("it was not judged since") and f"{held.lease_id} is " in why
    stage.mend()
    claims_run_out(rig)
    until_done(rig, "complete", file.stem)
