"""Vault is restored from an older snapshot: what it had ended is there again, and what it had made may be forgotten.

Every restore is a real one, by raft's own snapshots. Whenever it happens, nothing that lives is called dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from invariants import at_target, check, check_over, verdicts
from rig import ROLE, Held, Rig, rests_on
from stage import RESTORED_S, Stage, hasty, sealed, until_done
from test_sweep import outside_token

from jitvault import wiring
from jitvault.lifecycle.confirmation.quiet_rules import QUIET
from jitvault.model.states import State

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
FORCED = ("--force", "--yes", "--reason", "Vault forgot its login, and somebody dropped it")
SETTLED_S = 2.2


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    yield stage.rig(tmp_path)
    stage.mend()


def active(rig: Rig, file: Path) -> Held:
    held = rig.active(file)
    rig("operator", "status", file.stem)
    return held


@contextmanager
def not_revocable(rig: Rig, held: Held) -> Iterator[None]:
    """A role that owns something cannot be dropped."""
    name = held.login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "of-{name}" AUTHORIZATION "{name}"'.encode())
        try:
            yield
        finally:
            target.execute(f'DROP SCHEMA "of-{name}"'.encode())


def proofs(rig: Rig, task: str) -> dict[tuple[str, int], str]:
    """What each check of each credential rests on."""
    return {(check.subject, check.n): rests_on(check) for check in rig.record(task).checks}


def events(rig: Rig, task: str) -> list[str]:
    return [event.kind for event in rig.record(task).events]


def test_a_confirmed_credential_is_looked_up_before_the_seal_and_ended_anew(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    rig("operator", "complete", file.stem)
    stage.restore(snapshot)
    assert rig.is_live(held.token)
    assert rig.lease_is_live(held.lease_id)
    time.sleep(SETTLED_S)
    rig("operator", "status", file.stem, code=None)
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert sealed(rig, file.stem).json["proof"]["confirmed"]
    assert events(rig, file.stem).count("confirmed") == 2
    check_over(rig, file.stem)


def test_a_freeze_made_after_the_snapshot_survives_a_restore_which_is_a_finding(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    rig("operator", "grant", first := spec())
    rig("operator", "complete", first.stem)
    snapshot = stage.snapshot()
    rig("operator", "freeze", "--agent", "research-agent", "--reason", "it reads what it should not")
    stage.restore(snapshot)
    rig("operator", "grant", file := spec(), code=3)
    told = "SELECT message FROM findings WHERE rule = 'vault_restored'"
    ((message,),) = rig.rows(told)
    assert "entities that were disabled since it was made are enabled again" in message
    rig("operator", "unfreeze", "--agent", "research-agent", "--reason", "it was right")
    rig("operator", "grant", file)
    rig("operator", "complete", file.stem)
    assert len(rig.rows(told)) == 1


def test_a_certificate_that_is_on_no_list_since_a_restore_is_not_sealed(stage: Stage, rig: Rig, spec: Spec) -> None:
    """Its lease and its revocation were in Vault alone, and both are gone: whoever looks takes it again."""
    snapshot = stage.snapshot()
    file = spec(template="pki-service", choices="{service: orders}")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    rig.use(dict(rig("operator", "grant", file.stem).json))
    assert rig("operator", "complete", file.stem).json["confirmed"]
    stage.restore(snapshot)
    time.sleep(SETTLED_S)
    status = rig("operator", "status", file.stem, code=None).json
    assert status["state"] == "ending"
    assert "is not on the CRL" in status["proof"]["unproven_because"]


def test_what_was_seen_before_a_restore_that_no_line_tells_of_proves_nothing(
    stage: Stage, rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    """A disk that was put back: the evidence of the first end is whole, and there is another one all the same."""
    file = spec()
    held = active(rig, file)
    stage.copy_files(tmp_path / "copy")
    rig("operator", "complete", file.stem)
    first = proofs(rig, file.stem)
    stage.put_back(tmp_path / "copy")
    assert rig.is_live(held.token)
    sealed(rig, file.stem)
    assert not rig.is_live(held.token)
    # of each the revocation and the look-up
    second = proofs(rig, file.stem)
    assert first.keys() == second.keys()
    assert not [key for key in first if key[1] in (2, 3) and first[key] == second[key]]
    check_over(rig, file.stem)


def test_what_comes_back_while_a_task_ends_is_ended_before_it_is_confirmed(stage: Stage, rig: Rig, spec: Spec) -> None:
    """Its token was proven dead long ago; it waits for its lease alone."""
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    with not_revocable(rig, held):
        rig("operator", "complete", file.stem, code=6)
        assert verdicts(rig, file.stem) == ["audit_confirmed", "revoke_failed"]
        stage.restore(snapshot)
        assert rig.is_live(held.token)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert not rig.is_live(held.token)
    sealed(rig, file.stem)
    check_over(rig, file.stem)


def test_a_credential_restored_after_the_seal_is_found_by_a_sweep_and_ended(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    rig("operator", "complete", file.stem)
    sealed(rig, file.stem)
    receipt = rig.record(file.stem).task.receipt
    stage.restore(snapshot)
    found: dict[str, Any] = rig("operator", "sweep", code=12).json
    assert {orphan["kind"] for orphan in found["orphans"] if orphan["task_id"] == file.stem} == {"token", "lease"}
    fixed: dict[str, Any] = rig("operator", "sweep", "--fix").json
    own = [orphan["verdict"] for orphan in fixed["orphans"] if orphan["task_id"] == file.stem]
    assert own == ["audit_confirmed", "audit_confirmed"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert rig.record(file.stem).task.receipt == receipt
    rig("operator", "sweep")
    check_over(rig, file.stem)


@pytest.mark.parametrize("command", [("complete",), ("revoke", "--reason", "it was stolen")])
def test_what_comes_back_after_the_seal_is_not_called_confirmed(
    stage: Stage, rig: Rig, spec: Spec, command: tuple[str, ...]
) -> None:
    """Whoever ends a task that Vault says is active is not told of its old proof while its token lives."""
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    rig("operator", "complete", file.stem)
    sealed(rig, file.stem)
    stage.restore(snapshot)
    for _ in range(2):
        ended = rig("operator", command[0], file.stem, *command[1:], code=12)
        assert rig.is_live(held.token) and "Vault has again what was proven dead" in ended.error["message"]
        assert "sweep --fix" in ended.error["hint"]
    assert rig.findings(file.stem) == ["back_after_seal"]
    killed = rig("operator", "revoke", "--agent", "research-agent", "--reason", "it was stolen", "--yes", code=12)
    assert "sweep" in killed.error["hint"]
    rig("operator", "sweep", "--fix")
    assert not rig.is_live(held.token)
    # the finding stays, and so does what was sealed
    ended = rig("operator", command[0], file.stem, *command[1:], code=12)
    assert (ended.json["state"], ended.json["confirmed"]) == ("sealed", True)
    check_over(rig, file.stem)


def test_an_active_task_goes_on_after_a_restore_and_ends_in_proof(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    stage.restore(stage.snapshot())
    check(rig, rig("operator", "status", file.stem))
    assert rig.record(file.stem).task.state is State.ACTIVE
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert not rig.is_live(held.token)
    sealed(rig, file.stem)
    check_over(rig, file.stem)


def test_what_comes_back_while_its_proof_is_waited_for_is_not_confirmed(
    stage: Stage, rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is gone, and the quiet second is waited for: in it Vault is restored. What is back is revoked once more."""
    file = spec()
    held = active(rig, file)
    snapshots = [stage.snapshot()]
    sleep = wiring.SystemClock.sleep

    def meanwhile(clock: wiring.SystemClock, seconds: float) -> None:
        sleep(clock, seconds)
        if seconds >= QUIET.total_seconds() and snapshots:
            stage.restore(snapshots.pop())

    monkeypatch.setattr(wiring.SystemClock, "sleep", meanwhile)
    first = rig("operator", "complete", file.stem, code=None)
    assert snapshots == []
    assert not rig.is_live(held.token)
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    kinds = events(rig, file.stem)
    assert kinds[: kinds.index("confirmed")].count("revoked") > 1
    check_over(rig, file.stem)


def ends_itself(rig: Rig, held: Held) -> None:
    """The task's token ends itself, and Vault's queue the lease that came with it: no line says when."""
    rig.vault(held.token).write("auth/token/revoke-self")
    deadline = time.monotonic() + RESTORED_S
    while rig.lease_is_live(held.lease_id):
        assert time.monotonic() < deadline, "Vault did not end the lease"
        time.sleep(0.02)


@pytest.mark.parametrize("then", ["it is gone", "it is refused, and gone"])
def test_what_is_found_after_vault_said_that_it_ended_it_is_ended_once_more(
    stage: Stage, rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A lease that came back meets Vault's queue: we are told that it is ended, find it, and then the queue ends it.

    By chance that is a matter of milliseconds. Here Vault is restored once more between our revocation and our
    look-up, and what is the queue's part comes later: the answers are the same, in the same order.
    """
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    rig("operator", "complete", file.stem)
    first = proofs(rig, file.stem)
    stage.restore(snapshot)
    # what happens in between takes longer than an answer of Vault
    hasty(monkeypatch, RESTORED_S)
    found: list[bool] = []

    def comes_back() -> None:
        stage.restore(snapshot)
        found.append(rig.lease_is_live(held.lease_id))
        if then == "it is gone":
            stage.between.when("PUT sys/leases/lookup$", "after", lambda: ends_itself(rig, held))
        else:
            stage.between.when(revocation, "before", stage.postgres.kill)
            stage.between.when(revocation, "after", lambda: (stage.postgres.start(), ends_itself(rig, held)))

    revocation = f"PUT sys/leases/revoke/{held.lease_id}$"
    stage.between.when(revocation, "after", comes_back)
    time.sleep(SETTLED_S)
    check(rig, rig("operator", "status", file.stem, code=None))
    assert found == [True] and all(rule.struck for rule in stage.between.rules)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    # of the lease the revocation and the look-up
    again = proofs(rig, file.stem)
    assert not [n for n in (2, 3) if first[held.lease_id, n] == again[held.lease_id, n]]
    sealed(rig, file.stem)
    check_over(rig, file.stem)


def test_an_orphan_that_is_found_after_vault_said_that_it_ended_it_is_ended_once_more(
    stage: Stage, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_SETTLE_WINDOW": "1s"}
    rig("operator", "audit", "status")
    token = outside_token(rig)
    rig.settle()
    snapshot = stage.snapshot()
    # what happens in between takes longer than an answer of Vault
    hasty(monkeypatch, RESTORED_S)
    stage.between.when(f"PUT sys/leases/revoke/{ROLE}/", "after", lambda: stage.restore(snapshot))
    swept = rig("operator", "sweep", "--fix", code=None).json
    assert all(rule.struck for rule in stage.between.rules)
    ended = [one["verdict"] for one in swept["orphans"] if one["lease_id"].startswith(ROLE)]
    assert ended and set(ended) == {"audit_confirmed"}, swept
    assert not rig.is_live(token)
    revocations = rig.rows("SELECT count(*) FROM operations WHERE kind = 'revoke_orphan' GROUP BY subject")
    assert sorted(revocations)[-1] == (2,), revocations


def test_what_comes_back_while_a_lease_cannot_be_ended_is_ended_at_once(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    snapshot = stage.snapshot()
    with not_revocable(rig, held):
        rig("operator", "complete", file.stem, code=6)
        stage.restore(snapshot)
        check(rig, rig("operator", "status", file.stem, code=None))
        assert not rig.is_live(held.token)
        assert rig.record(file.stem).task.state is State.ENDING
    until_done(rig, "complete", file.stem)


@pytest.mark.parametrize("known", ["submitted", "nothing"])
def test_a_login_that_vault_has_forgotten_is_never_called_dead(stage: Stage, rig: Rig, spec: Spec, known: str) -> None:
    """The snapshot is older than the token and the lease, and the target knows nothing of it."""
    file = spec()
    rig("operator", "submit", file if known == "submitted" else spec())
    snapshot = stage.snapshot()
    held = active(rig, file)
    stage.restore(snapshot)
    assert not rig.is_live(held.token)
    assert at_target(rig, rig.record(file.stem))
    ghosts = {ghost["kind"]: ghost["how"] for ghost in rig("operator", "sweep", code=12).json["ghosts"]}
    assert ghosts == {"token": "unexplained", "lease": "with_its_token"}
    check(rig, rig("operator", "complete", file.stem, code=6))
    assert rig.record(file.stem).task.state is State.ENDING
    assert verdicts(rig, file.stem) == ["gone", "gone"]
    name = held.login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"'.encode())
    closed = rig("operator", "revoke", file.stem, *FORCED, code=6)
    assert (closed.json["state"], closed.json["confirmed"]) == ("unverified", False)
    check(rig, closed)
