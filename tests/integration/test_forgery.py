"""Who can write the ledger, Vault's documents or the audit file still decides nothing and proves nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from commands import SPEC
from event_examples import example
from psycopg import sql
from rig import PREFIX, Rig, own_rig

from jitvault.documents.signed import DOCUMENT_TYPE, signer_key
from jitvault.errors import OutcomeUnknown
from jitvault.lifecycle.advance import advance
from jitvault.sandbox.world import World
from jitvault.vault.tokens import Tokens

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
Edit = Callable[[Rig, str], None]


# -- the ledger is edited before anything is granted ---------------------------------------------------


def test_a_changed_submitter_gets_nothing_issued(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file, code=None)
    rig("approver-1", "approve", file.stem, "--yes")
    rig.sql("UPDATE tasks SET requester = ? WHERE task_id = ?", rig.entity("operator-2"), file.stem)
    assert "requester" in rig("operator", "grant", file.stem, code=12).error["message"]
    assert rig.task_tokens(file.stem) == []


def test_a_denial_that_is_deleted_from_the_ledger_still_denies(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file, code=None)
    rig("approver-2", "deny", file.stem, "--yes")
    assert rig.sql("DELETE FROM decisions WHERE task_id = ?", file.stem) == 1
    rig("approver-1", "approve", file.stem, "--yes", code=None)
    rig("operator", "grant", file.stem, code=3)
    assert rig.task_tokens(file.stem) == []


@pytest.mark.parametrize(
    ("told", "edited"),
    [('"count":1', '"count":0'), ('"confirm":"target"', '"confirm":null'), ("high-risk-needs", "low-risk-needs")],
)
def test_a_decision_that_is_edited_in_the_ledger_is_found(rig: Rig, spec: Spec, told: str, edited: str) -> None:
    file = spec(criticality="high")
    rig("operator", "grant", file, code=4)
    (decision,) = rig.rows("SELECT CAST(decision AS TEXT) FROM revisions WHERE task_id = ?", file.stem)[0]
    lowered = decision.replace(told, edited)
    assert lowered != decision
    rig.sql("UPDATE revisions SET decision = ? WHERE task_id = ?", lowered, file.stem)
    refused = rig("operator", "grant", file.stem, code=12).error
    assert "revision 1 is not as it was written" in refused["message"]
    assert rig.findings(file.stem) == ["ledger_edited"]
    rig.sql("UPDATE revisions SET decision = ? WHERE task_id = ?", decision, file.stem)
    assert [each["count"] for each in rig("operator", "grant", file.stem, code=4).json["missing"]] == [1, 1]


def test_an_approval_that_is_copied_from_another_task_does_not_count(rig: Rig, spec: Spec) -> None:
    approved, wanted = spec(criticality="medium"), spec(criticality="medium")
    rig("operator", "submit", approved, code=None)
    rig("approver-1", "approve", approved.stem, "--yes")
    digest = rig("operator", "grant", wanted, code=4).json["digest"]
    columns = "entity_id, name, decision, expires_at, reason"
    copy = f"INSERT INTO decisions (task_id, digest, {columns}) SELECT ?, ?, {columns} FROM decisions WHERE task_id = ?"
    assert rig.sql(copy, wanted.stem, digest, approved.stem) == 1
    rig("operator", "grant", wanted.stem, code=4)
    assert rig.task_tokens(wanted.stem) == []


@pytest.mark.parametrize("with_digest", [False, True])
def test_a_revision_whose_bytes_were_edited_is_not_issued(rig: Rig, spec: Spec, with_digest: bool) -> None:
    file = spec(criticality="medium")
    rig("operator", "submit", file, code=None)
    rig("approver-1", "approve", file.stem, "--yes")
    ((body, digest),) = rig.rows("SELECT body, digest FROM revisions WHERE task_id = ?", file.stem)
    if with_digest:
        digest = "sha256:" + "0" * 64
    longer = body.replace(b'"for":"15m"', b'"for":"55m"')
    assert longer != body
    rig.sql("UPDATE revisions SET body = ?, digest = ? WHERE task_id = ?", longer, digest, file.stem)
    rig.sql("UPDATE tasks SET digest = ? WHERE task_id = ?", digest, file.stem)
    rig("operator", "grant", file.stem, code=12)
    assert rig.task_tokens(file.stem) == []


# -- a task that is over is set back -------------------------------------------------------------------


@dataclass(frozen=True)
class Over:
    """A sealed task, and the whole ledger as it was when the task was pending, approved and sealed."""

    task: str
    copies: dict[str, Path]


@pytest.fixture(scope="module")
def over(world: World, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Over:
    directory = tmp_path_factory.mktemp("over")
    rig = own_rig(world, variables, directory)
    task = f"over-{time.time_ns()}"
    file = directory / f"{task}.yaml"
    fields = {"intent": "Count.", "criticality": "medium", "template": "postgres-readonly", "window": "15m", "more": ""}
    file.write_text(SPEC.format(id=task, **fields))
    rig("operator", "grant", file, code=4)
    copies = {"pending": rig.snapshot(directory / "pending.db")}
    rig("approver-1", "approve", task, "--yes")
    copies["approved"] = rig.snapshot(directory / "approved.db")
    held = rig.use(rig("operator", "grant", task).json)
    # by the agent itself, so that no signed wish to end it lies in Vault
    rig.vault(held.token).write("auth/token/revoke-self")
    assert rig("operator", "status", task).json["end_reason"] == "completed"
    rig.settle()
    assert rig("operator", "status", task).json["state"] == "sealed"
    copies["sealed"] = rig.snapshot(directory / "sealed.db")
    return Over(task, copies)


def _state_only(rig: Rig, task: str) -> None:
    rig.sql("UPDATE tasks SET state = 'approved' WHERE task_id = ?", task)


def _with_its_history(rig: Rig, task: str) -> None:
    rig.rewrite_events(task, lambda e: e.kind in ("submitted", "decided"))
    for table in ("operations", "leases", "grants", "checks"):
        rig.sql(f"DELETE FROM {table} WHERE task_id = ?", task)
    rig.sql("UPDATE tasks SET state = 'approved', end_reason = NULL, receipt = NULL WHERE task_id = ?", task)


def _with_more_history(rig: Rig, task: str) -> None:
    rig.rewrite_events(task, lambda _: True, ("decided", {"state": "approved"}))
    rig.sql("UPDATE tasks SET state = 'approved', end_reason = NULL, receipt = NULL WHERE task_id = ?", task)


def _forgotten(rig: Rig, task: str) -> None:
    rig.forget(task)


@pytest.mark.parametrize("edit", [_state_only, _with_its_history, _with_more_history, _forgotten])
def test_a_sealed_task_that_is_set_back_is_not_granted_again(rig: Rig, over: Over, edit: Edit) -> None:
    rig.put_back(over.copies["sealed"])
    edit(rig, over.task)
    assert is_about_the_ledger(asked_again(rig, over.task))
    assert rig.task_tokens(over.task) == []


def asked_again(rig: Rig, task: str) -> str:
    """What keeps a worker from a task whose grant was requested once more; the command shows what is published."""
    rig("operator", "grant", task, code=None)
    return str(rig.turn(task, code=12))


def is_about_the_ledger(message: str) -> bool:
    """Refused for what was done to the ledger, and not because anything froze it."""
    return any(said in message for said in ("the ledger does not hold", "was changed", "missing in the ledger"))


@pytest.mark.parametrize("copy", ["pending", "approved"])
def test_an_older_ledger_that_is_put_back_grants_nothing_again(rig: Rig, over: Over, copy: str) -> None:
    rig.put_back(over.copies[copy])
    for _ in range(2):
        # also not when the first try has published something
        assert is_about_the_ledger(asked_again(rig, over.task))
    assert rig.task_tokens(over.task) == []
    assert rig.document(f"tasks/{over.task}")["state"] == "sealed"


# -- a task that is held -------------------------------------------------------------------------------


def test_no_second_token_for_a_task_that_is_set_back_while_it_is_held(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig.sql("UPDATE tasks SET state = 'approved' WHERE task_id = ?", file.stem)
    rig.sql("UPDATE grants SET settled = TRUE WHERE task_id = ?", file.stem)
    # the agent's next read is observed, and must not make the edited state the task's
    rig.vault(held.token).read(PREFIX)
    other = spec()
    rig.granted(other)
    asked_again(rig, file.stem)
    assert len(rig.task_tokens(file.stem)) == 1


def test_no_second_token_when_settled_is_flipped_or_the_history_is_rewritten(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    # not by `status`, which reads the stream once more: the line of what the worker publishes here is not read yet
    with closing(rig.wiring()) as wiring:
        advance(wiring.worker, file.stem)
    _with_its_history(rig, file.stem)
    asked_again(rig, file.stem)
    assert len(rig.task_tokens(file.stem)) == 1
    # a ledger without its history has no intents for what its worker did
    rig("operator", "audit", "status", code=12)
    rig("operator", "unfreeze", "--reason", "the ledger was edited")

    flipped = spec()
    rig.active(flipped)
    rig.sql("UPDATE grants SET settled = TRUE WHERE task_id = ?", flipped.stem)
    assert "is not as it was written" in rig("operator", "complete", flipped.stem, code=12).error["message"]


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_lease_that_is_deleted_from_the_ledger_is_never_confirmed_over(rig: Rig, spec: Spec, rewritten: bool) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    assert rig.sql("DELETE FROM leases WHERE lease_id = ?", held.lease_id) == 1
    if rewritten:
        rig.rewrite_events(file.stem, lambda e: not (e.kind == "observed" and e.body["leases"]))
    ended = rig("operator", "complete", file.stem, code=12)
    assert '"confirmed": true' not in ended.stdout


def test_a_lease_that_is_deleted_after_it_was_seen_and_not_published_is_missed(rig: Rig, spec: Spec) -> None:
    """Its line is kept, and that is compared before anything is called confirmed."""
    file = spec()
    held = rig.active(file)
    rig.granted(spec())  # another task's command reads the stream
    assert rig.sql("DELETE FROM leases WHERE lease_id = ?", held.lease_id) == 1
    rig.rewrite_events(file.stem, lambda e: not (e.kind == "observed" and e.body["leases"]))
    ended = rig("operator", "complete", file.stem, code=12)
    assert '"confirmed": true' not in ended.stdout


# that every column of every row is covered is one property: tests/unit/lifecycle/record/test_integrity.py
_ROWS = {
    "another target name for the probe": "UPDATE leases SET target_name = 'v-nobody' WHERE task_id = ?",
    "no grant": "DELETE FROM grants WHERE task_id = ?",
}


@pytest.mark.parametrize("what", _ROWS)
def test_rows_that_name_another_credential_are_found(rig: Rig, spec: Spec, what: str) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    rig.sql(_ROWS[what], file.stem)
    ended = rig("operator", "complete", file.stem, code=12)
    assert '"confirmed": true' not in ended.stdout
    assert rig.findings(file.stem) == ["ledger_edited"]


@pytest.mark.parametrize("verdict", ["never_issued", "expired"])
def test_a_verdict_that_is_written_by_hand_proves_nothing(rig: Rig, spec: Spec, verdict: str) -> None:
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    rig.sql("UPDATE grants SET verdict = ? WHERE task_id = ?", verdict, file.stem)
    rig.redigest(file.stem)
    ended = rig("operator", "complete", file.stem).json
    assert (ended["confirmed"], ended["token"]["verdict"]) == (True, "audit_confirmed")
    assert not rig.is_live(held.token)


def _as_if_it_had_ended(rig: Rig, task: str, state: str) -> None:
    # every move is one that a task can make
    more = [
        ("ending", {"state": "ending", "reason": "completed"}),
        ("confirmed", example("confirmed", state="confirmed")),
    ]
    rig.rewrite_events(task, lambda _: True, *more, (state, example(state, state=state)))
    rig.sql("UPDATE tasks SET state = ?, end_reason = 'completed' WHERE task_id = ?", state, task)
    rig.sql("UPDATE grants SET verdict = 'audit_confirmed', settled = TRUE WHERE task_id = ?", task)
    rig.sql("UPDATE leases SET verdict = 'target_confirmed' WHERE task_id = ?", task)
    rig.redigest(task)


def test_a_task_that_was_written_confirmed_by_hand_is_proven_anew(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    _as_if_it_had_ended(rig, file.stem, "confirmed")
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)


def test_a_task_that_was_written_sealed_by_hand_has_no_receipt(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    _as_if_it_had_ended(rig, file.stem, "sealed")
    assert "receipt" in rig("operator", "complete", file.stem, code=12).error["message"]


def test_a_claim_epoch_that_is_edited_before_changes_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "submit", file, code=None)
    rig.sql("UPDATE tasks SET claim_epoch = claim_epoch + 7 WHERE task_id = ?", file.stem)
    rig("operator", "grant", file.stem)
    assert len(rig.task_tokens(file.stem)) == 1


@pytest.mark.parametrize("dies", [True, False], ids=["and dies", "and ends it"])
def test_who_lost_its_claim_while_vault_made_the_token_delivers_nothing(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    file = spec()
    rig("operator", "submit", file, code=None)
    create = Tokens.create_wrapped

    def robbed(*args: Any, **kwargs: Any) -> Any:
        made = create(*args, **kwargs)
        rig.sql("UPDATE tasks SET claim_epoch = claim_epoch + 1, claim_until = 0 WHERE task_id = ?", file.stem)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Tokens, "create_wrapped", robbed)
        if dies:
            patch.setattr("jitvault.lifecycle.issuance.issue._revoke_overtaken", lambda *_: None)
        rig("operator", "grant", file.stem, "--wait", "0", alone=True, code=13)
        rig.turn(file.stem, code=9)
    if not dies:
        assert rig.task_tokens(file.stem) == []
        # nobody looked it up, so its end is proven when its step is over, and no second one is made before
        assert "not proven dead yet" in rig("operator", "grant", file.stem, code=5).error["message"]
        return
    assert len(rig.task_tokens(file.stem)) == 1  # made, known to nobody, and found by the next run:
    granted = rig("operator", "grant", file.stem).json
    (token,) = rig.task_tokens(file.stem)
    assert token["meta"]["jitvault_grant"] == granted["grant_id"]
    rig("operator", "complete", file.stem)
    assert rig.task_tokens(file.stem) == []


# -- forged documents in Vault -------------------------------------------------------------------------


def _unsigned(rig: Rig, task: str, _digest: str) -> dict[str, Any]:
    document = rig.document(f"decisions/{rig.entity('approver-1')}/{task}")
    return {**document, "signatures": []}


def _bare(rig: Rig, task: str, digest: str) -> dict[str, Any]:
    return {"kind": "decision", "task": task, "decision": "approve", "digest": digest}


def _signed_by_another(rig: Rig, task: str, digest: str) -> dict[str, Any]:
    """Approver 1 signs, with the own key, what approver 2 would have to say."""
    return _decision(rig, task, digest, entity=rig.entity("approver-2"))


def _copied(rig: Rig, task: str, _digest: str) -> dict[str, Any]:
    return rig.document(f"decisions/{rig.entity('approver-1')}/{task}")


def _for_another_task(rig: Rig, _task: str, digest: str) -> dict[str, Any]:
    return _decision(rig, "another-task", digest, signer="approver-2", entity=rig.entity("approver-2"))


def _decision(rig: Rig, task: str, digest: str, *, entity: str, signer: str = "approver-1") -> dict[str, Any]:
    # all but the one thing that is wrong about it is right
    now = datetime.now(UTC)
    payload = {
        "kind": "decision",
        "task": task,
        "entity": entity,
        "nonce": "0" * 32,
        "at": now.isoformat(),
        "digest": digest,
        "revision": 1,
        "requester": rig.entity("operator"),
        "groups": ["jitvault-approvers", "jitvault-security"],
        "decision": "approve",
        "reason": "",
        "expires_at": (now + timedelta(minutes=10)).isoformat(),
    }
    return _signed(rig, payload, signer)


def _signed(rig: Rig, payload: dict[str, Any], signer: str) -> dict[str, Any]:
    return rig.wiring(signer).person.signer.sign(payload, DOCUMENT_TYPE, key=signer_key(rig.entity(signer)))


@pytest.mark.parametrize("forge", [_bare, _unsigned, _signed_by_another, _copied, _for_another_task])
def test_a_decision_that_its_entity_did_not_sign_for_this_task_is_absent_and_a_finding(
    rig: Rig, spec: Spec, forge: Callable[[Rig, str, str], dict[str, Any]]
) -> None:
    file = spec(criticality="high")
    digest = rig("operator", "grant", file, code=4).json["digest"]
    rig("approver-1", "approve", file.stem, "--yes")
    rig.put(f"decisions/{rig.entity('approver-2')}/{file.stem}", forge(rig, file.stem, digest))
    assert rig("operator", "grant", file.stem, code=4).json["missing"][0]["count"] == 1
    assert rig.findings(file.stem) == ["forged_document"]
    # an approval that is genuine counts, and what happened is still told
    rig("approver-2", "approve", file.stem, "--yes", code=None)
    rig("operator", "grant", file.stem, code=12)


def test_an_approval_of_another_digest_does_not_count(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    document = _decision(rig, file.stem, "sha256:" + "1" * 64, signer="approver-1", entity=rig.entity("approver-1"))
    rig.put(f"decisions/{rig.entity('approver-1')}/{file.stem}", document)
    rig("operator", "grant", file.stem, code=4)


def test_an_old_request_that_is_put_back_is_not_granted(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", window="30m")
    rig("operator", "submit", file, code=None)
    path = f"requests/{rig.entity('operator')}/{file.stem}/submit"
    old = rig.document(path)
    spec(task=file.stem, criticality="medium", window="15m")
    rig("operator", "submit", file, "--revise")
    rig("approver-1", "approve", file.stem, "--yes")
    rig.put(path, old)
    rig("operator", "grant", file.stem, code=9)
    assert rig.task_tokens(file.stem) == []


def test_a_request_that_holds_the_spec_of_another_task_is_not_taken(rig: Rig, spec: Spec) -> None:
    mine, other = spec(), spec()
    rig("operator", "submit", other, code=None)
    payload = {
        "kind": "submit",
        "task": mine.stem,
        "entity": rig.entity("operator"),
        "nonce": "0" * 32,
        "at": "2030-01-01T00:00:00+00:00",
        "spec": rig.record(other.stem) and json.loads(rig.record(other.stem).revision.body)["spec"],
        "revise": False,
    }
    rig.put(f"requests/{rig.entity('operator')}/{mine.stem}/submit", _signed(rig, payload, "operator"))
    assert rig("operator", "status", mine.stem, code=None).code in (9, 12)
    assert rig.task_tokens(mine.stem) == rig.task_tokens(other.stem) == []


@pytest.mark.parametrize("signer", ["approver-1", "nobody"])
def test_an_end_request_without_the_right_ends_nothing_and_is_a_finding(rig: Rig, spec: Spec, signer: str) -> None:
    file = spec()
    held = rig.active(file)
    entity = rig.entity("approver-1" if signer != "nobody" else "auditor")
    payload = {
        "kind": "end",
        "task": file.stem,
        "entity": entity,
        "nonce": "0" * 32,
        "at": "2030-01-01T00:00:00+00:00",
        "reason": "completed",
        "note": "",
    }
    document = _signed(rig, payload, signer) if signer != "nobody" else {"payload": payload}
    rig.put(f"requests/{entity}/{file.stem}/end", document)
    assert rig("operator", "status", file.stem).json["state"] == "active"
    assert rig.is_live(held.token)
    # it is told of its author: the entitled end the task, and nothing is the matter with it
    rule = "not_entitled" if signer != "nobody" else "forged_document"
    told = rig.rows("SELECT message FROM findings WHERE task_id IS NULL AND rule = ?", rule)
    assert any(f"entity {entity}" in message for (message,) in told)
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_garbage_that_is_signed_by_somebody_entitled_does_not_keep_a_task_from_ending(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    payload = {"kind": "end", "task": file.stem, "entity": rig.entity("operator-2"), "reason": "because"}
    vault = rig.vault(rig.world.operator_2_token.reveal())
    from jitvault.vault.transit import Transit

    document = Transit(vault).sign(payload, DOCUMENT_TYPE, key=signer_key(rig.entity("operator-2")))
    rig.put(f"requests/{rig.entity('operator-2')}/{file.stem}/end", document)
    # a finding, unless the operator's own wish is found first
    assert rig("operator", "complete", file.stem, code=None).json["confirmed"]


def test_approvers_sign_the_bytes_that_they_see_whatever_the_document_calls_them(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    honest = rig("operator", "grant", file, code=4).json["digest"]
    harmless = spec(criticality="medium", intent="Something harmless.")
    rig("operator", "submit", harmless, code=None)
    path = f"tasks/{file.stem}"
    shown = {**rig.document(path), "body": rig.document(f"tasks/{harmless.stem}")["body"]}
    rig.put(path, shown)
    # pinned to what was read elsewhere: refused before anything is signed
    rig("approver-1", "approve", file.stem, "--yes", "--digest", honest, code=9)
    # not pinned: the digest is of the bytes that are shown, so it approves nothing else
    rig("approver-1", "approve", file.stem, "--yes", code=None)
    rig("operator", "grant", file.stem, code=4)
    assert rig.task_tokens(file.stem) == []
    # the worker has published the truth again
    rig("approver-2", "approve", file.stem, "--yes", "--digest", honest)
    rig("operator", "grant", file.stem)


# -- forged lines and headers ----------------------------------------------------------------------------


def test_forged_revocation_and_lookup_lines_do_not_confirm_a_live_lease(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    role = held.login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        # a role that owns something cannot be dropped: every revocation fails
        target.execute(sql.SQL("CREATE SCHEMA hostage AUTHORIZATION {}").format(sql.Identifier(role)))
        try:
            first = rig("operator", "complete", file.stem, code=6).json
            assert first["leases"][0]["verdict"] == "revoke_failed"
            _forge_lines(rig, held.lease_id, file.stem)
            again = rig("operator", "complete", file.stem, code=6).json
            assert again["leases"][0]["verdict"] == "revoke_failed"
            # what Vault answered about the lease counts and not the line that says otherwise, whatever the target says
            assert [c.ok for c in rig.record(file.stem).checks if c.subject == held.lease_id and c.n == 3] == [False]
            assert rig.lease_is_live(held.lease_id)
        finally:
            target.execute("DROP SCHEMA hostage")
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert role not in rig.database_roles()


def _forge_lines(rig: Rig, lease_id: str, task: str) -> None:
    """Copy the worker's own lines of a failed revocation and a look-up, changed into successes."""
    worker = rig.wiring().worker
    ops = [op for op in rig.record(task).operations if op.kind == "lookup_lease" and op.subject == lease_id]
    forged = []
    for line in rig.own_lines():
        entry = json.loads(line)
        path = entry["request"]["path"]
        op = entry["request"].get("headers", {}).get("x-jitvault-op", [""])[0]
        if entry["type"] != "response":
            continue
        if path == f"sys/leases/revoke/{lease_id}":
            entry.pop("error", None)
            entry["response"] = {}
            forged = [entry]
        elif op == ops[-1].op_id:
            entry["error"] = worker.hasher.hash("invalid lease")
            entry["response"] = {"data": {"error": worker.hasher.hash("invalid lease")}}
            forged.append(entry)
    assert len(forged) == 2
    with rig.world.audit_file.open("a") as audit:
        audit.writelines(json.dumps(entry) + "\n" for entry in forged)


def test_an_operation_id_in_an_agents_request_counts_for_nothing(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rig.active(spec())
    file = spec()

    def lost(*_args: Any, **_kwargs: Any) -> Any:
        raise OutcomeUnknown("never sent, and nobody knows")

    with monkeypatch.context() as patch:
        patch.setattr(Tokens, "create_wrapped", lost)
        rig("operator", "grant", file, code=5)
    op = rig.record(file.stem).grants[0].create_op
    for path in ("auth/token/create/jitvault-15m", "auth/token/lookup-self"):
        requests.post(
            f"{rig.world.address}/v1/{path}",
            headers={"X-Vault-Token": other.token, "X-Jitvault-Op": op},
            json={},
            timeout=10,
        )
    assert "is known in" in rig("operator", "grant", file.stem, code=5).error["message"]
    time.sleep(3.1)
    granted = rig("operator", "grant", file.stem).json
    assert [t["meta"]["jitvault_grant"] for t in rig.task_tokens(file.stem)] == [granted["grant_id"]]
