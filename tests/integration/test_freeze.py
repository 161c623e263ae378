"""What shows that the worker's identity is stolen freezes everything, until somebody says why it is safe again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hands import AGENT, THIEF, ask, by_hash
from mortal import Mortal
from rig import PREFIX, ROLE, Rig

Spec = Callable[..., Path]
UNWRAP = "sys/wrapping/unwrap"
# where agents have hosts of their own
APART = {"JITVAULT_SHARED_HOSTS": "10.0.0.0/8"}


def create(rig: Rig, token: str, policy: str, *, path: str = ROLE, op: str = "") -> tuple[int, dict[str, Any]]:
    """A task token as the worker makes it, by whoever holds `token`."""
    body = {"policies": [policy], "meta": {"jitvault_task": "nobodys"}, "ttl": "60s"}
    headers = {"X-Vault-Wrap-TTL": "60s", **({"X-Jitvault-Op": op} if op else {})}
    return ask(rig, "PUT", path, token, body, source=THIEF, headers=headers)


def policy_of(rig: Rig, task: str) -> str:
    return str(json.loads(rig.record(task).revision.body)["access"][0]["policy"])


def worker_token(rig: Rig) -> str:
    return rig.world.worker_token.reveal()


def freeze_of(rig: Rig, rule: str, *, path: str) -> str:
    """Why everything is frozen, as the ledger keeps it: the finding's line and request are in Vault's audit file."""
    findings = rig.rows("SELECT rule, message, line, request_id FROM findings WHERE task_id IS NULL")
    freezes = rig.rows("SELECT reason, line FROM freezes WHERE lifted_at IS NULL")
    assert [(found[0], *found[1:3]) for found in findings] == [(rule, *freeze) for freeze in freezes]
    (_, message, line, request_id) = findings[0]
    entry = by_hash(rig.own_lines())[line]
    assert (entry["request"]["id"], entry["request"]["path"]) == (request_id, path)
    return str(message)


def is_not_frozen(rig: Rig) -> None:
    assert rig("operator", "audit", "status").json["frozen"] is None
    assert rig.rows("SELECT rule FROM findings WHERE task_id IS NULL") == []


# -- what freezes, and what is near ----------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the worker's", "an administrator's"])
def test_a_token_of_our_role_without_an_intent_freezes_everything(rig: Rig, spec: Spec, whose: str) -> None:
    file = spec()
    rig.active(file)
    policy = policy_of(rig, file.stem)
    token = worker_token(rig) if whose == "the worker's" else rig.world.admin_token.reveal()
    # with the operation id of a task that it can read in the audit log, and the wrong token, it is not ours either
    op = rig.record(file.stem).grants[0].create_op if whose == "an administrator's" else "f" * 32
    status, made = create(rig, token, policy, op=op)
    assert status == 200
    refused = rig("operator", "grant", spec(), code=12)
    message = freeze_of(rig, "unknown_token", path=ROLE)
    assert f"A token was created at '{ROLE}' from {THIEF}" in message
    assert message in refused.error["message"]
    said = "without an intent" if whose == "the worker's" else "not by a session of the worker"
    assert said in message
    assert made["wrap_info"]["creation_path"] == ROLE


def test_a_token_that_vault_refused_or_that_is_not_of_our_roles_freezes_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    policy = policy_of(rig, file.stem)
    # without a wrapping Vault's policy for the worker refuses it, and somebody else may not at all
    body = {"policies": [policy], "meta": {"a": "b"}, "ttl": "60s"}
    assert ask(rig, "PUT", ROLE, worker_token(rig), body, source=THIEF)[0] == 403
    assert create(rig, rig.token_of("agent"), policy)[0] == 403
    # an administrator makes tokens for other ends
    assert create(rig, rig.world.admin_token.reveal(), "default", path="auth/token/create")[0] == 200
    is_not_frozen(rig)
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_an_unwrap_from_the_workers_address_freezes_everything_where_agents_have_their_own(
    rig: Rig, spec: Spec
) -> None:
    file, shared = spec(), spec()
    first = rig("operator", "grant", shared, extra=APART).json
    # from an address of an agent's own it is what it should be
    opened, answer = ask(rig, "PUT", UNWRAP, first["wrapping"][0]["token"], source=THIEF)
    assert opened == 200
    assert ask(rig, "GET", PREFIX, answer["auth"]["client_token"], source=THIEF)[0] == 200
    assert rig("operator", "complete", shared.stem, extra=APART).json["confirmed"]
    is_not_frozen(rig)

    granted = rig("operator", "grant", file, extra=APART).json
    assert ask(rig, "PUT", UNWRAP, granted["wrapping"][0]["token"], source=AGENT)[0] == 200
    ended = rig("operator", "status", file.stem, code=12, extra=APART).json
    message = freeze_of(rig, "unwrap_by_worker", path=UNWRAP)
    assert AGENT in message
    assert (ended["end_reason"], ended["frozen"]["why"], ended["proof"]["confirmed"]) == ("frozen", message, True)


def test_on_a_shared_host_the_same_unwrap_freezes_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    is_not_frozen(rig)


# -- while it is frozen, and afterwards ----------------------------------------------------------------------------


def test_frozen_everything_ends_and_is_proven_nothing_is_granted_until_it_is_lifted(rig: Rig, spec: Spec) -> None:
    running, waiting, early = spec(), spec(criticality="medium"), spec()
    assert rig("operator", "complete", early.stem, code=9).code == 9
    held, done = rig.active(running), rig.active(early)
    assert rig("operator", "complete", early.stem).json["confirmed"]
    assert rig("operator", "status", running.stem).json["state"] == "active"
    rig("operator", "submit", waiting)
    rig("approver-1", "approve", waiting.stem, "--yes")
    before = {fact["accessor"] for fact in rig.task_tokens(running.stem)}
    assert create(rig, worker_token(rig), policy_of(rig, running.stem))[0] == 200

    # the other active task ends at its next command, and with proof
    ended = rig("operator", "status", running.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    assert [lease["verdict"] for lease in ended["leases"]] == ["target_confirmed"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert before
    assert rig.task_tokens(running.stem) == []
    message = freeze_of(rig, "unknown_token", path=ROLE)
    assert ended["frozen"]["why"] == message
    assert message in str([e["body"] for e in ended["timeline"] if e["event"] == "ending"])

    # nothing is issued, whatever was approved; everything says so
    fresh = spec()
    for what in (fresh, waiting.stem, fresh.stem):
        assert "frozen" in rig("operator", "grant", what, code=12).error["message"]
    for task in (fresh, waiting):
        assert rig.task_tokens(task.stem) == []
        assert rig.record(task.stem).grants == ()
    for command in (("status", running.stem), ("complete", running.stem), ("status", early.stem), ("audit", "status")):
        told = rig("operator", *command, code=12)
        assert message in told.error["message"]
    assert rig("operator", "audit", "status", code=12).json["frozen"]["why"] == message
    assert rig("operator", "complete", early.stem, code=12).json["confirmed"]
    # whoever has no ledger reads it in what the worker publishes
    assert message in rig.cli("auditor", "status", running.stem, "--json", code=12, worker=False).error["message"]

    # it stays until somebody with the worker's identity says why it is safe again
    rig("operator", "unfreeze", code=2)
    rig("operator", "unfreeze", "--reason", "", code=8)
    rig("operator", "unfreeze", "--reason", "  ", code=8)
    rig("operator", "unfreeze", "--reason", "it is fine", code=2, extra={"JITVAULT_WORKER_TOKEN": ""})
    rig("operator", "unfreeze", "--reason", "it is fine", code=10, extra={"JITVAULT_WORKER_TOKEN": done.token})
    rig("operator", "grant", fresh.stem, code=12)
    lifted = rig("operator", "unfreeze", "--reason", "the worker has a new token").json
    assert lifted == {"lifted": 1, "reason": "the worker has a new token"}
    assert rig.rows("SELECT lifted_why FROM freezes") == [("the worker has a new token",)]
    rig("operator", "unfreeze", "--reason", "again", code=9)

    # what was ended stays ended, the rest goes on; the finding stays in the ledger
    assert rig("operator", "status", running.stem).json["end_reason"] == "frozen"
    assert rig("operator", "audit", "status").json["frozen"] is None
    for task in (fresh, waiting):
        assert rig("operator", "grant", task.stem).json["state"] == "issued"
        rig("operator", "revoke", task.stem)
    assert rig.rows("SELECT rule FROM findings WHERE task_id IS NULL") == [("unknown_token",)]


def test_without_the_stream_a_freeze_still_takes_access_away(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, other = spec(), spec()
    held = rig.active(file)
    rig.active(other)
    assert create(rig, worker_token(rig), policy_of(rig, file.stem))[0] == 200
    rig("operator", "status", other.stem, code=12)
    rig.turn(file.stem, code=7, extra={"JITVAULT_AUDIT_FILE": str(tmp_path / "gone")})
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert rig.record(file.stem).task.state == "ending"
    assert rig("operator", "complete", file.stem, code=12).json["confirmed"]


def test_a_second_token_under_an_intent_that_was_used_freezes_everything(rig: Rig, spec: Spec) -> None:
    """Operation ids are plain in the audit log: who has the worker's token and reads it can send one again."""
    file = spec()
    rig.active(file)
    grant = rig.record(file.stem).grants[0]
    assert create(rig, worker_token(rig), policy_of(rig, file.stem), op=grant.create_op)[0] == 200
    rig("operator", "audit", "status", code=12)
    assert "created" in freeze_of(rig, "unknown_token", path=ROLE)


def test_a_token_under_an_intent_that_was_given_up_freezes_everything(rig: Rig, spec: Spec) -> None:
    """A create that Vault refused leaves an operation id that was never used: it is no leave to make a token later."""
    file, admin = spec(), rig.world.admin_token.reveal()
    role, none = ROLE.replace("create", "roles"), {"allowed_policies": ["none"], "allowed_policies_glob": ""}
    _, before = ask(rig, "GET", role, admin)
    assert ask(rig, "PUT", role, admin, {**before["data"], **none})[0] == 200
    rig("operator", "grant", file, code=10)
    assert ask(rig, "PUT", role, admin, before["data"])[0] == 200
    grant = rig.record(file.stem).grants[-1]
    assert create(rig, worker_token(rig), policy_of(rig, file.stem), op=grant.create_op)[0] == 200
    rig("operator", "audit", "status", code=12)
    assert "whose intent was given up" in freeze_of(rig, "unknown_token", path=ROLE)


def test_an_intent_of_a_process_that_died_is_no_leave_to_make_another_token(
    rig: Rig, spec: Spec, mortal: Mortal
) -> None:
    """Its operation id was never sent, so nobody has used it; whoever has the ledger can read it there."""
    # the first one on a ledger does more
    _, names = (mortal(rig, "grant", str(spec()), point=0)["points"] for _ in range(2))
    file = spec()
    point = names.index(f"/v1/{ROLE}") + 1
    assert mortal(rig, "grant", str(file), point=point)["signal"] == signal.SIGKILL
    (grant,) = rig.record(file.stem).grants
    longer = ROLE.replace("15m", "8h")
    policy = policy_of(rig, file.stem)
    assert create(rig, worker_token(rig), policy, path=longer, op=grant.create_op)[0] == 200
    rig("operator", "audit", "status", code=12)
    assert "whose intent names the role jitvault-15m" in freeze_of(rig, "unknown_token", path=longer)
