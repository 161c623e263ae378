"""What people may write into Vault under their own name must not stop others, hide a change, or lift a freeze."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from rig import Rig

from jitvault.lifecycle.requests.sign import sign_end, sign_freeze, sign_submission
from jitvault.model.scope import Scope
from jitvault.model.spec import parse_spec
from jitvault.model.states import EndReason
from jitvault.vault.documents import MOST_READ, Documents

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
# Vault keeps it and gives it back; no reader of JSON in Python goes down that far
DEEP = '{"data":{"x":' + "[" * 5000 + "]" * 5000 + "}}"
ROLE = "database/roles/app-readonly"


def _leave(rig: Rig, who: str, path: str, body: str = DEEP) -> None:
    url, headers = f"{rig.world.address}/v1/jitvault/data/{path}", {"X-Vault-Token": rig.token_of(who)}
    assert requests.post(url, data=body, headers=headers, timeout=10).status_code == 200


def test_a_document_that_nobody_can_read_stops_nobody(rig: Rig, spec: Spec) -> None:
    held, other = spec(), spec()
    token = rig.active(held).token
    agent, operator = rig.entity("research-agent"), rig.entity("operator")
    left = [
        ("agent", f"requests/{agent}/{held.stem}/end"),
        ("agent", f"requests/{agent}/poison/submit"),
        ("operator", f"freezes/{operator}/zz"),
        ("approver-1", f"decisions/{rig.entity('approver-1')}/{held.stem}"),
    ]
    try:
        for who, path in left:
            _leave(rig, who, path)
        # the findings are told, and nothing else comes of them
        assert rig("operator", "status", held.stem, code=12).json["state"] == "active"
        rig("operator", "freezes")
        rig("operator", "grant", other)
        assert rig("operator", "revoke", held.stem, "--reason", "it was stolen", code=12).json["confirmed"]
        assert not rig.is_live(token)
        told = {message for _, rule, message in _findings(rig) if rule == "forged_document"}
        assert any(left[0][1] in message for message in told), told
        # no other test's ledger has it
        rig("operator", "complete", other.stem)
    finally:
        for _, path in left:
            rig.admin.delete(f"jitvault/metadata/{path}")


def test_a_forged_document_about_anothers_task_is_a_finding_about_its_author_alone(rig: Rig, spec: Spec) -> None:
    """Below its own path it may write the name of any task: signed by nobody, and signed though it may not end it."""
    theirs = spec()
    theirs.write_text(theirs.read_text().replace("agent: research-agent", "agent: approver-1"))
    rig("operator", "grant", theirs)
    token = rig.task_tokens(theirs.stem)
    agent = rig.entity("research-agent")
    left = [f"requests/{agent}/{theirs.stem}/end", f"requests/{agent}/{theirs.stem}/submit"]
    for path in left:
        _leave(rig, "agent", path)
    try:
        assert rig("operator", "status", theirs.stem).json["findings"] == []
        sign_end(rig.wiring("agent").person, theirs.stem, reason=EndReason.COMPLETED, note="it is mine now")
        assert rig("operator", "status", theirs.stem).json["state"] == "issued"
        assert rig("operator", "revoke", theirs.stem, "--reason", "it was stolen").json["confirmed"]
        assert token and rig.task_tokens(theirs.stem) == []
        told = {(task, rule) for task, rule, message in _findings(rig) if f"entity {agent}" in message}
        assert told == {(None, "forged_document"), (None, "not_entitled")}
    finally:
        for path in left:
            rig.admin.delete(f"jitvault/metadata/{path}")


def test_garbage_below_decisions_is_told_of_its_author_unless_they_may_decide_there(rig: Rig, spec: Spec) -> None:
    """Any approver may write the name of any task: whoever decides nothing there changes no answer about it."""
    theirs = spec()
    rig("operator", "grant", theirs)
    approver = rig.entity("approver-1")
    left = [f"decisions/{approver}/{theirs.stem}", f"decisions/{approver}/{theirs.stem}/withdraw"]
    key = f"freezes/{rig.entity('operator')}/{theirs.stem}"
    try:
        for path in left:
            _leave(rig, "approver-1", path)
        # a freeze has the name of what it covers: this one has that of the task
        _leave(rig, "operator", key)
        assert rig("operator", "status", theirs.stem).json["findings"] == []
        rig("operator", "freezes")
        assert rig("operator", "complete", theirs.stem).json["confirmed"]
        told = {(task, rule) for task, rule, message in _findings(rig) if approver in message}
        assert told == {(None, "forged_document")}
    finally:
        for path in (*left, key):
            rig.admin.delete(f"jitvault/metadata/{path}")


def test_garbage_of_somebody_whom_the_task_asks_for_a_decision_is_told_of_the_task(rig: Rig, spec: Spec) -> None:
    """It may be their no, and it may not be lost."""
    asked = spec(criticality="high")
    rig("operator", "grant", asked, code=4)
    path = f"decisions/{rig.entity('approver-1')}/{asked.stem}"
    _leave(rig, "approver-1", path)
    try:
        shown = rig("operator", "status", asked.stem, code=12).json
        assert path in shown["findings"][0]["message"] and shown["state"] == "pending_approval"
    finally:
        rig.admin.delete(f"jitvault/metadata/{path}")


# each pair of brackets is three bytes for Vault and sixty-four for Python
LARGE = '{"data":{"x":[' + "[]," * 300_000 + "0]}}"


def test_an_oversized_document_is_not_read_whole_and_is_a_finding_about_its_author(rig: Rig, spec: Spec) -> None:
    theirs = spec()
    theirs.write_text(theirs.read_text().replace("agent: research-agent", "agent: approver-1"))
    rig("operator", "grant", theirs)
    agent = rig.entity("research-agent")
    path = f"requests/{agent}/{theirs.stem}/end"
    _leave(rig, "agent", path, LARGE)
    documents = Documents(rig.vault(rig.token_of("operator")))
    try:
        tracemalloc.start()
        stored = Documents(rig.admin).read(path)
        most = tracemalloc.get_traced_memory()[1]
        assert stored is not None and "larger than" in stored.unread
        assert most < 4 * MOST_READ, most
        # the connection was given up, and the next answer is not the rest of that one
        assert documents.read(f"tasks/{theirs.stem}") is not None
        assert rig("operator", "status", theirs.stem).json["findings"] == []
        assert rig("operator", "complete", theirs.stem).json["confirmed"]
        ((task, rule, message),) = [found for found in _findings(rig) if agent in found[2]]
        assert (task, rule) == (None, "forged_document") and "larger than" in message
    finally:
        tracemalloc.stop()
        rig.admin.delete(f"jitvault/metadata/{path}")


def test_an_end_that_was_signed_counts_when_its_key_is_replaced_before_anybody_looks(rig: Rig, spec: Spec) -> None:
    """Of the task of somebody else it ends nothing, as before, and what it forces has to be signed."""
    own, theirs = spec(), spec()
    theirs.write_text(theirs.read_text().replace("agent: research-agent", "agent: approver-1"))
    token = rig.active(own).token
    rig("operator", "grant", theirs)
    agent = rig.entity("research-agent")
    key = f"jitvault-transit/keys/jitvault-signer-{agent}"
    for task in (own.stem, theirs.stem):
        sign_end(rig.wiring("agent").person, task, reason=EndReason.COMPLETED, note="it is done", force=True)
    rig.admin.write(f"{key}/rotate")
    newest = (rig.admin.read(key) or {})["data"]["latest_version"]
    rig.admin.write(f"{key}/config", {"min_decryption_version": newest})
    try:
        ended = rig("operator", "status", own.stem, code=12).json
        assert not rig.is_live(token)
        assert (ended["state"], ended["ended"]["note"]) == ("confirmed", "it is done")
        assert [found["rule"] for found in ended["findings"]] == ["forged_document"]
        assert rig("operator", "status", theirs.stem).json["state"] == "issued"
        assert rig("operator", "revoke", theirs.stem).json["confirmed"]
    finally:
        rig.admin.write(f"{key}/config", {"min_decryption_version": 1})


def _findings(rig: Rig) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in rig.rows("SELECT task_id, rule, message FROM findings")]


@pytest.mark.parametrize("revise", [False, True])
def test_a_spec_that_was_signed_again_hides_no_change_of_what_was_approved(rig: Rig, spec: Spec, revise: bool) -> None:
    rig.recheck()
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    again = file.read_bytes().replace(b"Count the orders.", b"Count the orders twice.")
    sign_submission(rig.wiring("operator").person, parse_spec(again), revise=revise)
    # by itself it ends nothing
    assert rig("operator", "status", file.stem, code=None).json["end_reason"] is None and rig.is_live(held.token)
    before = (rig.admin.read(ROLE) or {})["data"]
    # what the login may do
    rig.admin.write(ROLE, {**before, "creation_statements": [*before["creation_statements"], "SELECT 1;"]})
    try:
        ended = rig("operator", "status", file.stem, code=None).json
        assert not rig.is_live(held.token)
        assert ended["end_reason"] == "drift"
    finally:
        rig.admin.write(ROLE, before)
        rig.recheck()


def test_what_was_frozen_stays_so_when_the_key_that_signed_it_is_replaced(rig: Rig, spec: Spec) -> None:
    key = f"jitvault-transit/keys/jitvault-signer-{rig.entity('operator')}"
    # the command reads its own freeze at once: here nobody has read it yet
    sign_freeze(rig.wiring("operator").person, Scope("research-agent"), freezes=True, reason="an incident")
    try:
        rig.admin.write(f"{key}/rotate")
        newest = (rig.admin.read(key) or {})["data"]["latest_version"]
        rig.admin.write(f"{key}/config", {"min_decryption_version": newest})
        (frozen,) = rig("operator", "freezes").json["freezes"]
        assert frozen["scope"] == {"agent": "research-agent"}
        assert "an incident" in rig("operator", "grant", spec(), code=3).error["message"]
    finally:
        rig("operator", "unfreeze", "--agent", "research-agent", "--reason", "it is over", code=None)
        rig.admin.write(f"{key}/config", {"min_decryption_version": 1})
    rig("operator", "grant", file := spec())
    rig("operator", "complete", file.stem)


def test_a_folder_of_a_documents_name_keeps_nobody_from_reading_the_others(rig: Rig, spec: Spec) -> None:
    """An operator can make one, and a thief of the worker's token. Vault answers with the document, or with a 500."""
    held, entity = spec(), rig.entity("operator")
    token = rig.active(held).token
    frozen, task = f"freezes/{entity}/x", f"tasks/{held.stem}"
    left = [frozen, frozen, f"{frozen}/y", f"{task}/y", f"requests/{entity}/{held.stem}/submit/y"]
    for path in left:
        rig.put(path, {"x": "y"})
    try:
        for who, *command in (
            ("approver-1", "list"),
            ("auditor", "status", held.stem),
            ("operator", "freezes", "--all"),
            ("operator", "unfreeze", "--agent", "research-agent", "--unseen", "--reason", "over"),
            ("admin", "tidy", "--older-than", "30d", "--plan"),
        ):
            rig.cli(who, *command, worker=False)
        assert rig("operator", "revoke", "--all", "--yes", "--reason", "x").json["tasks"]
        assert not rig.is_live(token)
    finally:
        for path in left:
            rig.admin.delete(f"jitvault/metadata/{path}")
