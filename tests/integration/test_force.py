"""An operator closes what cannot be proven, and only the target can say more of it than that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hands import without_a_token
from rig import Held, Rig

from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason

pytestmark = pytest.mark.usefixtures("lab", "hurried", "in_this_process")
Spec = Callable[..., Path]
ROLE = "database/roles/app-readonly"


@pytest.fixture
def stuck(rig: Rig, spec: Spec) -> tuple[str, Held]:
    """A task whose login owns something, so that Vault cannot drop it."""
    file = spec()
    held = rig.active(file)
    _as_superuser(rig, f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{held.login["user"]}"')
    ended = rig("operator", "revoke", file.stem, code=6).json
    assert (ended["state"], ended["leases"][0]["verdict"]) == ("ending", "revoke_failed")
    # the backend's own words, which say what is to be mended
    assert "cannot be dropped" in ended["leases"][0]["error"]
    return file.stem, held


def _as_superuser(rig: Rig, statement: str) -> None:
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(statement.encode())


def _receipt(rig: Rig, task: str) -> dict[str, Any]:
    stored = rig.record(task).task.receipt
    assert stored is not None
    keys = rig.wiring().worker.signer.public_keys(RECEIPT_KEY)
    return dict(opened(stored, key=RECEIPT_KEY, public_keys=keys, payload_type=RECEIPT_TYPE)["predicate"])


def test_what_vault_was_made_to_forget_is_unverifiable_and_stays_so(rig: Rig, stuck: tuple[str, Held]) -> None:
    task, held = stuck
    closed = rig("operator", "revoke", task, "--force", "--yes", "--reason", "the owner keeps the schema", code=6)
    assert "closed without proof: the owner keeps the schema" in closed.error["message"]
    proof = closed.json
    assert (proof["state"], proof["confirmed"]) == ("unverified", False)
    by = rig.entity("operator")
    assert proof["forced"] == {"by": by, "name": "operator", "reason": "the owner keeps the schema"}
    assert [lease["verdict"] for lease in proof["leases"]] == ["unverifiable"]
    # its token was proven dead before, and that is not taken back
    assert proof["token"]["verdict"] == "audit_confirmed"
    assert not rig.lease_is_live(held.lease_id)
    assert held.login["user"] in rig.database_roles()
    receipt = _receipt(rig, task)
    assert receipt["proof"]["state"] == "unverified"
    assert not receipt["proof"]["confirmed"]

    shown = rig("operator", "status", task).json
    assert shown["state"] == "unverified"
    # it was ended before, and without a word
    assert (shown["ended"]["by"], shown["ended"]["name"], shown["ended"]["note"]) == (by, "operator", "")
    printed = rig.cli("auditor", "status", task).stdout
    assert "by operator: the owner keeps the schema" in printed
    assert "closed without proof by operator (the owner keeps the schema)" in printed
    (row,) = rig("auditor", "report", task).json["leases"]
    assert (row["ended_by"], row["forced_by"]) == ("operator", "operator")
    assert row["forced_reason"] == "the owner keeps the schema"
    assert rig("operator", "complete", task, code=6).json["state"] == "unverified"
    rows = rig("auditor", "list").json["tasks"]
    assert [row["state"] for row in rows if row["task_id"] == task] == ["unverified"]
    _as_superuser(rig, f'DROP SCHEMA "{task}"; DROP ROLE "{held.login["user"]}"')


def test_the_target_can_prove_what_vault_forgot(rig: Rig, spec: Spec) -> None:
    """Vault may not log in there any more, and somebody drops the role by hand."""
    file = spec()
    held = rig.active(file)
    _as_superuser(rig, "ALTER ROLE vault_manager NOLOGIN")
    _as_superuser(rig, "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'vault_manager'")
    try:
        rig("operator", "revoke", file.stem, code=6)
        _without_pg_role(rig, held)
        ended = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "dropped by hand").json
    finally:
        _as_superuser(rig, "ALTER ROLE vault_manager LOGIN")
    assert (ended["state"], ended["confirmed"]) == ("confirmed", True)
    assert ended["leases"][0]["verdict"] == "target_confirmed"
    failed = [check["n"] for check in ended["leases"][0]["checks"] if not check["ok"]]
    # that Vault was made to forget it stays to be seen
    assert 4 in failed, failed
    assert 6 not in failed


def test_where_somebody_wrote_to_its_mount_the_target_proves_nothing_of_what_vault_forgot(rig: Rig, spec: Spec) -> None:
    """A role that was pointed elsewhere and back would have made its login there."""
    file = spec()
    held = rig.active(file)
    before = (rig.admin.read(ROLE) or {})["data"]
    rig.admin.write(ROLE, {**before, "revocation_statements": ["SELECT 1/0;"]})
    try:
        rig("operator", "revoke", file.stem, code=6)
        _without_pg_role(rig, held)
        ended = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "dropped by hand", code=6).json
    finally:
        rig.admin.write(ROLE, before)
        rig.recheck()
    assert (ended["state"], ended["confirmed"]) == ("unverified", False)
    assert ended["leases"][0]["verdict"] == "unverifiable"


def _without_pg_role(rig: Rig, held: Held) -> None:
    """Drop the login at the target and end its sessions."""
    _as_superuser(
        rig,
        f"SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = '{held.login['user']}'",
    )
    _as_superuser(rig, f'REVOKE ALL ON SCHEMA public FROM "{held.login["user"]}"; DROP ROLE "{held.login["user"]}"')


def test_forcing_needs_a_reason_and_something_to_force(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    assert "--reason" in rig("operator", "revoke", file.stem, "--force", code=2).error["message"]
    assert rig("operator", "status", file.stem).json["state"] == "active"
    ended = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "in a hurry").json
    # nothing had to be forced
    assert (ended["state"], ended["forced"]) == ("confirmed", None)
    rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "again", code=9)


def test_forcing_asks_and_whoever_says_nothing_has_closed_nothing(rig: Rig, stuck: tuple[str, Held]) -> None:
    task, held = stuck
    force = ("revoke", task, "--force", "--reason", "in a hurry")
    refused = rig.cli("operator", *force, code=2)
    assert f"Close task {task} for good even if nothing proves that its credentials are dead? [y/N]" in refused.stderr
    assert "nothing was closed" in refused.stderr and "--yes" in refused.stderr
    rig.cli("operator", *force, code=2, given="n\n")
    assert rig("operator", "status", task).json["state"] == "ending"
    assert rig.cli("operator", *force, code=6, given="y\n").stdout.startswith(f"Task {task} is unverified")
    _as_superuser(rig, f'DROP SCHEMA "{task}"; DROP ROLE "{held.login["user"]}"')


def test_only_operators_can_have_a_task_closed_without_proof(rig: Rig, stuck: tuple[str, Held]) -> None:
    """Its agent may end it, and signs what it likes."""
    task, held = stuck
    sign_end(rig.wiring("agent").person, task, reason=EndReason.OPERATOR, note="let me go", force=True)
    assert rig("operator", "revoke", task, code=6).json["state"] == "ending"
    assert rig.lease_is_live(held.lease_id)
    _as_superuser(rig, f'DROP SCHEMA "{task}"')
    assert rig("operator", "revoke", task).json["confirmed"]


def test_forcing_one_lease_leaves_the_proofs_of_others_alone(rig: Rig, spec: Spec, stuck: tuple[str, Held]) -> None:
    task, held = stuck
    other = spec()
    rig.active(other)
    rig("operator", "revoke", task, "--force", "--yes", "--reason", "whatever", code=6)
    ended = rig("operator", "complete", other.stem).json
    assert ended["leases"][0]["verdict"] == "target_confirmed"
    _as_superuser(rig, f'DROP SCHEMA "{task}"; DROP ROLE "{held.login["user"]}"')


def test_a_lease_that_vault_does_not_try_itself_is_left_to_its_queue(rig: Rig, spec: Spec) -> None:
    """Its token's end puts a lease into the queue. One whose token is gone already is in nobody's."""
    file = spec()
    held = rig.active(file)
    orphan, login = without_a_token(rig, held)
    _as_superuser(rig, f'CREATE SCHEMA "{file.stem}" AUTHORIZATION "{login}"')
    ended = rig("operator", "revoke", file.stem, code=6).json
    verdicts = {lease["lease_id"]: lease["verdict"] for lease in ended["leases"]}
    assert verdicts[orphan] == "revoke_failed"
    queued = rig.rows("SELECT subject, state FROM operations WHERE kind = 'queue_lease'")
    assert queued == [(orphan, "settled")]
    found = rig.admin.write("sys/leases/lookup", {"lease_id": orphan})["data"]
    assert found["ttl"] <= 0
    _as_superuser(rig, f'DROP SCHEMA "{file.stem}"')
    rig("operator", "revoke", file.stem)
