"""Approvals that are genuine somewhere else or were genuine once, and rows that say what nobody signed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rig import Rig

from jitvault.documents.signed import DOCUMENT_TYPE, signer_key

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]


def pending(rig: Rig, spec: Spec, **fields: Any) -> str:
    file = spec(criticality="medium", **fields)
    rig("operator", "submit", file)
    return file.stem


def place(rig: Rig, task: str, who: str = "approver-1") -> str:
    return f"decisions/{rig.entity(who)}/{task}"


def signed(rig: Rig, task: str, *, signer: str = "approver-1", **change: Any) -> dict[str, Any]:
    """What `signer` would sign to approve the task now, but for `change`."""
    now = datetime.now(UTC)
    record = rig.record(task)
    payload = {
        "kind": "decision",
        "task": task,
        "entity": rig.entity(signer),
        "nonce": "0" * 32,
        "at": now.isoformat(),
        "digest": record.task.digest,
        "revision": record.task.revision,
        "requester": record.task.requester,
        "groups": ["jitvault-approvers"],
        "decision": "approve",
        "reason": "",
        "expires_at": (now + timedelta(minutes=10)).isoformat(),
        **change,
    }
    payload = {name: value for name, value in payload.items() if value is not None}
    return rig.wiring(signer).person.signer.sign(payload, DOCUMENT_TYPE, key=signer_key(rig.entity(signer)))


def nothing_is_granted(rig: Rig, task: str) -> str:
    """What the worker says of the approval; empty where it does not look at it."""
    left = rig("operator", "grant", task, code=4).json["missing"]
    assert left == [{"group": "jitvault-approvers", "count": 1}]
    assert rig.task_tokens(task) == []
    refused = rig.document(f"tasks/{task}")["refused"]
    return str(refused[0]["why"]) if refused else ""


def test_the_same_paper_without_a_change_counts(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    rig.put(place(rig, task), signed(rig, task))
    assert rig("operator", "grant", task).json["state"] == "issued"


def test_an_approval_that_is_copied_to_another_task_is_absent_and_a_finding(rig: Rig, spec: Spec) -> None:
    approved, wanted = pending(rig, spec), pending(rig, spec)
    rig("approver-1", "approve", approved, "--yes")
    rig.put(place(rig, wanted), rig.document(place(rig, approved)))
    assert nothing_is_granted(rig, wanted) == ""
    assert rig.findings(wanted) == ["forged_document"]


def test_an_approval_that_is_put_back_for_another_revision_does_not_count(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    rig("approver-1", "approve", task, "--yes")
    old = rig.document(place(rig, task))
    rig("operator", "submit", spec(task=task, criticality="medium", window="20m"), "--revise")
    rig.put(place(rig, task), old)
    assert nothing_is_granted(rig, task) == "approved revision 1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revision": 2}, "decided about another revision or requester"),
        ({"requester": "somebody-else"}, "decided about another revision or requester"),
        ({"groups": ["jitvault-security"]}, "is not in jitvault-approvers"),
    ],
    ids=["revision", "requester", "groups"],
)
def test_what_the_signature_says_besides_the_digest_has_to_be_so(
    rig: Rig, spec: Spec, change: dict[str, Any], why: str
) -> None:
    task = pending(rig, spec)
    rig.put(place(rig, task), signed(rig, task, **change))
    assert nothing_is_granted(rig, task) == why


@pytest.mark.parametrize("field", ["revision", "requester", "groups", "nonce", "expires_at", "reason", "kind"])
def test_a_signature_that_does_not_say_it_all_is_absent_and_a_finding(rig: Rig, spec: Spec, field: str) -> None:
    task = pending(rig, spec)
    rig.put(place(rig, task), signed(rig, task, **{field: None}))
    assert nothing_is_granted(rig, task) == ""
    assert rig.findings(task) == ["forged_document"]


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)], ids=["before", "after"])
def test_an_approval_whose_time_is_not_vaults_does_not_count_and_says_so(rig: Rig, spec: Spec, off: timedelta) -> None:
    task = pending(rig, spec)
    at = datetime.now(UTC) + off
    rig.put(place(rig, task), signed(rig, task, at=at.isoformat()))
    assert "Vault's time of it" in nothing_is_granted(rig, task)


@pytest.mark.parametrize("part", ["owner", "agent"])
def test_who_has_a_part_in_it_and_signs_all_the_same_does_not_count(rig: Rig, spec: Spec, part: str) -> None:
    file = spec(criticality="medium")
    theirs = {"owner": "data-owner", "agent": "research-agent"}[part]
    file.write_text(file.read_text().replace(f"{part}: {theirs}", f"{part}: approver-1"))
    rig("operator", "submit", file)
    rig.put(place(rig, file.stem), signed(rig, file.stem))
    assert nothing_is_granted(rig, file.stem) == f"is the {part} and cannot approve"


def test_an_approval_that_is_over_does_not_count(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    rig.put(place(rig, task), signed(rig, task, expires_at=soon.isoformat()))
    time.sleep(2.2)
    assert nothing_is_granted(rig, task) == "the approval has expired"
    # what expired after the first issue does not end it
    other = pending(rig, spec)
    soon = datetime.now(UTC) + timedelta(seconds=4)
    rig.put(place(rig, other), signed(rig, other, expires_at=soon.isoformat()))
    rig("operator", "grant", other)
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.2)
    assert rig("operator", "status", other).json["state"] == "issued"


def test_a_life_that_is_longer_than_an_approvals_is_cut(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    rig.put(place(rig, task), signed(rig, task, expires_at="2099-01-01T00:00:00+00:00"))
    assert rig("operator", "status", task).json["state"] == "approved"
    (row,) = rig.record(task).decisions
    assert row.expires_at < datetime.now(UTC) + timedelta(minutes=31)


# -- the ledger's rows of decisions -------------------------------------------------------------------------


def _copied(rig: Rig, task: str) -> None:
    columns = "task_id, digest, name, decision, expires_at, reason"
    rig.sql("DELETE FROM decisions WHERE task_id = ? AND entity_id = 'e-nobody'", task)
    copy = "INSERT INTO decisions (entity_id, {0}) SELECT 'e-nobody', {0} FROM decisions WHERE task_id = ?"
    assert rig.sql(copy.format(columns), task) == 1


def _edited(rig: Rig, task: str) -> None:
    assert rig.sql("UPDATE decisions SET reason = 'as I was told' WHERE task_id = ?", task) == 1


def _back_dated(rig: Rig, task: str) -> None:
    assert rig.sql("UPDATE decisions SET expires_at = '2099-01-01 00:00:00' WHERE task_id = ?", task) == 1


def _deleted(rig: Rig, task: str) -> None:
    assert rig.sql("DELETE FROM decisions WHERE task_id = ?", task) == 1


def _turned(rig: Rig, task: str) -> None:
    assert rig.sql("UPDATE decisions SET decision = 'deny' WHERE task_id = ?", task) == 1


@pytest.mark.parametrize(
    "edit", [_copied, _edited, _back_dated, _deleted, _turned], ids=lambda f: f.__name__.lstrip("_")
)
def test_rows_of_decisions_that_were_edited_change_nothing_and_are_found(
    rig: Rig, spec: Spec, edit: Callable[[Rig, str], None]
) -> None:
    task = pending(rig, spec)
    rig("approver-1", "approve", task, "--yes")
    before = rig.record(task).decisions
    edit(rig, task)
    assert rig("operator", "status", task, code=12).json["state"] == "approved"
    assert rig.findings(task) == ["ledger_edited"]
    assert rig.record(task).decisions == before, "they are as Vault has them again"
    # the same while access is held: who approved is told by the chain
    rig("operator", "grant", task, code=12)
    edit(rig, task)
    rig("operator", "complete", task, code=12)
    rig.settle()
    assert rig("operator", "status", task, code=12).json["state"] == "sealed"
    receipt = rig.wiring("auditor").ledger.task(task)
    assert receipt is not None and receipt.receipt is not None
    from jitvault.documents.signed import payload_of

    assert payload_of(receipt.receipt)["predicate"]["approved_by"] == [rig.entity("approver-1")]
