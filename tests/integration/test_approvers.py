"""Who may approve: registered once for each person, for their groups, and only while that is so."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Result, at_terminal
from rig import Rig

from jitvault.documents.signed import DOCUMENT_TYPE, signer_key
from jitvault.sandbox.world import World
from jitvault.vault.transit import Transit

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]


@dataclass
class Colleague:
    """A new person with a login of their own, made for one test."""

    rig: Rig
    name: str
    entity: str
    token: str

    def __call__(self, *arguments: str | Path, code: int | None = 0) -> Result:
        return self.rig(None, *arguments, code=code, extra={"VAULT_TOKEN": self.token})

    def again(self) -> str:
        """A token of a second login of the same entity: Vault takes one of each auth mount."""
        self.rig.admin.write("sys/auth/elsewhere", {"type": "userpass"}, method="post")
        return hire(self.rig, self.name, entity=self.entity, mount="elsewhere").token


def hire(rig: Rig, name: str, *, entity: str | None = None, mount: str = "userpass") -> Colleague:
    """Give a person a login, of a new entity or of one that is there."""
    admin = rig.admin
    mounts = admin.read("sys/auth")
    assert mounts is not None
    if entity is None:
        entity = str(admin.write("identity/entity", {"name": name})["data"]["id"])
    alias = {"name": name, "canonical_id": entity, "mount_accessor": mounts["data"][f"{mount}/"]["accessor"]}
    admin.write("identity/entity-alias", alias)
    password = secrets.token_urlsafe(16)
    admin.write(f"auth/{mount}/users/{name}", {"password": password, "token_ttl": "1h"})
    login = rig.vault("").write(f"auth/{mount}/login/{name}", {"password": password})
    return Colleague(rig, name, entity, str(login["auth"]["client_token"]))


@pytest.fixture
def colleague(rig: Rig) -> Iterator[Colleague]:
    """Somebody who is an approver for this test."""
    found = hire(rig, f"c{secrets.token_hex(4)}")
    rig("admin", "approvers", "add", found.name, "--person", found.name)
    yield found
    rig("admin", "approvers", "remove", found.name, code=None)


def pending(rig: Rig, spec: Spec, criticality: str = "medium") -> str:
    file = spec(criticality=criticality)
    rig("operator", "submit", file)
    return file.stem


def state(rig: Rig, task: str, code: int | None = None) -> str:
    return str(rig("operator", "status", task, code=code).json["state"])


# -- the commands ------------------------------------------------------------------------------------------


def test_who_is_registered_approves_and_is_listed(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    (row,) = (one for one in listed(rig) if one["entity"] == colleague.entity)
    assert (row["person"], row["groups"], row["problems"]) == (colleague.name, ["jitvault-approvers"], [])
    task = pending(rig, spec)
    assert colleague("approve", task, "--yes").json["state"] == "approved"
    # the same again changes nothing, so that what was decided still counts
    rig("admin", "approvers", "add", colleague.entity, "--person", colleague.name.upper())
    assert state(rig, task) == "approved"


def listed(rig: Rig) -> list[dict[str, Any]]:
    return list(rig("admin", "approvers", "list").json["approvers"])


def test_a_second_entity_of_a_person_is_refused_and_a_second_login_is_the_same_one(
    rig: Rig, spec: Spec, colleague: Colleague
) -> None:
    other = hire(rig, f"{colleague.name}-2")
    refused = rig("admin", "approvers", "add", other.name, "--person", colleague.name, code=3).error
    assert "one person is one entity" in refused["message"]
    assert f"canonical_id={colleague.entity}" in refused["hint"]
    refused = rig("admin", "approvers", "add", colleague.name, "--person", "somebody-else", code=3).error
    assert f"registered for {colleague.name} already" in refused["message"]
    # with two logins they are still one: high risk wants two people
    task = pending(rig, spec, "high")
    colleague("approve", task, "--yes")
    again = Colleague(rig, colleague.name, colleague.entity, colleague.again())
    assert again("approve", task, "--yes").json["state"] == "pending_approval"


@pytest.mark.parametrize("group", ["jitvault-nobody", "jitvault-operators"])
def test_a_group_whose_members_cannot_approve_is_refused(rig: Rig, group: str) -> None:
    found = hire(rig, f"c{secrets.token_hex(4)}")
    refused = rig("admin", "approvers", "add", found.name, "--person", "x", "--group", group, code=8)
    assert group in refused.error["message"]
    rig("admin", "approvers", "add", "nobody-at-all", "--person", "x", code=9)
    rig("admin", "approvers", "remove", found.name, code=9)
    assert found.entity not in [one["entity"] for one in listed(rig)]


def test_only_an_administrator_registers(rig: Rig, colleague: Colleague) -> None:
    for who in ("operator", "approver-1"):
        admin = {"JITVAULT_ADMIN_TOKEN": rig.token_of(who)}
        rig(None, "approvers", "add", colleague.name, "--person", "x", code=10, extra=admin)
        rig(None, "approvers", "remove", colleague.name, code=10, extra=admin)


def test_what_waits_is_shown_to_approvers_and_nobody_is_told_of_a_write(rig: Rig) -> None:
    refused = rig("operator", "approvals", code=10).error
    assert refused["message"].startswith("Vault does not let you see what waits for approval (")
    assert "members of jitvault-approvers" in refused["hint"]


# -- what the registration is for --------------------------------------------------------------------------


def test_who_is_in_the_group_and_not_registered_does_not_count(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    task = pending(rig, spec)
    colleague("approve", task, "--yes")
    rig("admin", "approvers", "remove", colleague.name)
    enter(rig, colleague.entity)
    assert state(rig, task) == "pending_approval"
    refused = colleague("approve", task, "--yes", code=3).error
    assert "not registered as an approver" in refused["message"]
    assert rig.document(f"tasks/{task}")["refused"][0]["why"] == "is not a registered approver"
    # registered again, what was decided before does not count, and what is decided now does
    rig("admin", "approvers", "add", colleague.name, "--person", colleague.name)
    assert state(rig, task) == "pending_approval"
    assert rig.document(f"tasks/{task}")["refused"][0]["why"] == "decided before being registered as an approver"
    assert colleague("approve", task, "--yes").json["state"] == "approved"


def enter(rig: Rig, entity: str, group: str = "jitvault-approvers") -> None:
    table = rig.admin.read(f"identity/group/name/{group}")
    assert table is not None
    members = sorted({*(table["data"]["member_entity_ids"] or ()), entity})
    rig.admin.write(f"identity/group/name/{group}", {"member_entity_ids": members})


def test_a_second_entity_that_was_registered_by_hand_does_not_count(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    other = hire(rig, f"{colleague.name}-2")
    rig("admin", "approvers", "add", other.name, "--person", other.name)
    document = rig.document(f"approvers/{other.entity}")
    rig.put(f"approvers/{other.entity}", {**document, "person": colleague.name})
    task = pending(rig, spec)
    refused = other("approve", task, "--yes", code=3).error
    assert f"is a second entity of {colleague.name}" in refused["message"]
    (row,) = (one for one in listed(rig) if one["entity"] == other.entity)
    assert row["problems"] == [f"a second entity of {colleague.name}, it does not count"]
    # nor does their no
    other("deny", task, "--yes", code=3)
    assert state(rig, task) == "pending_approval"
    assert colleague("approve", task, "--yes").json["state"] == "approved"
    rig("admin", "approvers", "remove", other.name)


def test_nobody_approves_with_another_entity_what_they_asked_for(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    """Vault cannot tell that two entities are one person; an administrator says so in their metadata."""
    told = {"JITVAULT_PERSON_KEY": "person"}

    def say(name: str, person: str) -> None:
        rig.admin.write(f"identity/entity/name/{name}", {"metadata": {"person": person} if person else {}})

    try:
        say("operator", "olga@example.org")
        say(colleague.name, "Olga@example.org")
        file = spec(criticality="medium")
        rig("operator", "submit", file)
        colleague("approve", file.stem, "--yes")
        rig("operator", "status", file.stem, code=None, extra=told)
        refused = rig.document(f"tasks/{file.stem}")["refused"]
        assert [one["why"] for one in refused] == ["is the same person as the requester and cannot approve"]
        rig("operator", "grant", file, code=4, extra=told)
        say(colleague.name, "clara@example.org")
        assert rig("operator", "grant", file, extra=told).json["state"] == "issued"
        # also while it is held
        say(colleague.name, "")
        assert rig("operator", "status", file.stem, code=None, extra=told).json["end_reason"] == "policy"
    finally:
        say("operator", "")


def test_a_registration_under_another_entitys_path_counts_for_nobody(rig: Rig, spec: Spec) -> None:
    other = hire(rig, f"c{secrets.token_hex(4)}")
    rig("admin", "approvers", "add", other.name, "--person", other.name)
    task = pending(rig, spec)
    other("approve", task, "--yes")
    try:
        rig.put(f"approvers/{other.entity}", rig.document(f"approvers/{rig.entity('approver-1')}"))
        assert state(rig, task) == "pending_approval"
        assert "forged_document" in [row[0] for row in rig.rows("SELECT rule FROM findings")]
    finally:
        rig.admin.delete(f"jitvault/metadata/approvers/{other.entity}")


def test_who_is_registered_for_one_group_does_not_count_in_another(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    enter(rig, colleague.entity, "jitvault-security")
    task = pending(rig, spec, "high")
    left = colleague("approve", task, "--yes").json["missing"]
    assert left == [{"group": "jitvault-security", "count": 1}]
    colleague("approve", task, "--yes", "--group", "jitvault-security", code=3)
    # nor does it help to sign for it
    sign(colleague, task, decision="approve", groups=["jitvault-approvers", "jitvault-security"])
    assert rig("operator", "grant", task, code=4).json["missing"] == left
    assert rig("operator", "status", task).json["missing"] == left
    # who is registered for both and signs for one counts there alone
    rig("approver-2", "approve", task, "--yes", "--group", "jitvault-approvers")
    assert rig("operator", "status", task).json["state"] == "pending_approval"
    assert rig("approver-2", "approve", task, "--yes").json["state"] == "approved"


def test_a_denial_is_final_for_its_revision_and_no_hint_says_otherwise(
    rig: Rig, spec: Spec, colleague: Colleague
) -> None:
    task = pending(rig, spec)
    colleague("deny", task, "--yes", "--reason", "Not now.")
    final = f'task {task} is denied: {colleague.name} denied it: "Not now."'
    for refused in (rig("operator", "grant", task, code=3), colleague("approve", task, "--yes", code=9)):
        assert refused.error["message"] == final and "--revise" in refused.error["hint"]
        assert "again" not in refused.error["hint"]
    assert "cancel" not in rig("operator", "complete", task, code=9).error["hint"]
    # nor does their own yes take it back, however it is signed
    sign(colleague, task, decision="approve", groups=["jitvault-approvers"])
    assert state(rig, task) == "denied"


# -- withdrawing -------------------------------------------------------------------------------------------


def test_a_withdrawn_approval_counts_as_absent_until_a_new_one(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    rig("approver-1", "withdraw", task, "--yes", code=9)
    rig("approver-1", "approve", task, "--yes")
    rig("approver-2", "withdraw", task, "--yes", code=9)
    withdrawn = rig("approver-1", "withdraw", task, "--yes", "--reason", "Too soon.").json
    assert (withdrawn["state"], withdrawn["decision"]) == ("pending_approval", "withdraw")
    # once more would put another reason in the place of the first
    assert "already" in rig("approver-1", "withdraw", task, "--yes", code=9).error["message"]
    rig("operator", "grant", task, code=4)
    told = rig.document(f"tasks/{task}")
    assert told["refused"][0]["why"] == "withdrew the approval: Too soon." and told["decisions"] == []
    shown = rig("operator", "status", task).json
    assert [(one["name"], one["withdrawn"]) for one in shown["refused"]] == [("approver-1", True)]
    assert "approver-1 withdrew the approval: Too soon." in rig.cli("operator", "status", task).stdout
    seq = rig.record(task).task.seq
    state(rig, task)
    assert rig.record(task).task.seq == seq, "it is told once"
    assert rig("approver-1", "approve", task, "--yes").json["state"] == "approved"
    assert rig.granted(Path(task))["wrapping"]


def put_back_after_a_withdrawal(rig: Rig, spec: Spec) -> tuple[str, str]:
    """A task whose withdrawn approval lies there again, and where."""
    task = pending(rig, spec)
    rig("approver-1", "approve", task, "--yes")
    path = f"decisions/{rig.entity('approver-1')}/{task}"
    old = rig.document(path)
    rig("approver-1", "withdraw", task, "--yes")
    rig.put(path, old)
    return task, path


def test_an_approval_that_is_put_back_after_it_was_withdrawn_does_not_count(rig: Rig, spec: Spec) -> None:
    task, _ = put_back_after_a_withdrawal(rig, spec)
    rig("operator", "grant", task, code=4)
    assert rig.task_tokens(task) == []


def test_a_withdrawal_that_was_made_unreadable_gives_no_approval_back(rig: Rig, spec: Spec) -> None:
    task, path = put_back_after_a_withdrawal(rig, spec)
    rig.put(f"{path}/withdraw", {"x": "garbage"})
    rig("operator", "grant", task, code=None)
    assert rig.task_tokens(task) == [] and state(rig, task) == "pending_approval"


def test_a_task_that_holds_access_ends_when_an_approval_is_withdrawn(rig: Rig, spec: Spec) -> None:
    task = pending(rig, spec)
    rig("approver-1", "approve", task, "--yes")
    held = rig.use(rig.granted(Path(task)))
    asked = at_terminal(rig.cli, "approver-1", "withdraw", task, answer="n")
    question = f"Withdraw your approval of {task}? Its access is revoked at once, and the task ends [y/N]:"
    assert question in " ".join(asked.stdout.split()) and rig.is_live(held.token)
    ended = rig.cli("approver-1", "withdraw", task, "--yes", "--reason", "Wrong table.")
    assert ended.stdout.startswith(f"You withdrew your approval of task {task}; its access is revoked, and")
    assert not rig.is_live(held.token)
    shown = rig("operator", "status", task).json
    assert (shown["end_reason"], shown["decisions"]) == ("policy", [])
    assert "(approver-1 withdrew the approval: Wrong table.)" in shown["ended"]["note"]
    (row,) = rig("auditor", "report", task).json["leases"]
    assert (row["approved_by"], row["withdrawn_by"]) == (["approver-1"], ["approver-1"])
    assert (row["ended_by"], row["end_note"]) == (None, shown["ended"]["note"])


# -- what carries a task that holds access -----------------------------------------------------------------


def _disabled(rig: Rig, who: Colleague) -> None:
    rig.admin.write(f"identity/entity/id/{who.entity}", {"disabled": True})


def _out_of_the_group(rig: Rig, who: Colleague) -> None:
    table = rig.admin.read("identity/group/name/jitvault-approvers")
    assert table is not None
    members = [one for one in table["data"]["member_entity_ids"] if one != who.entity]
    rig.admin.write("identity/group/name/jitvault-approvers", {"member_entity_ids": members})


def _removed(rig: Rig, who: Colleague) -> None:
    rig("admin", "approvers", "remove", who.name)


def _denied(rig: Rig, who: Colleague) -> None:
    """The no of another approver, which comes while the task is on its way."""
    task = rig.admin.list(f"jitvault/metadata/decisions/{who.entity}/")[0].rstrip("/")
    other = Colleague(rig, "approver-2", rig.entity("approver-2"), rig.token_of("approver-2"))
    sign(other, task, decision="deny", groups=["jitvault-approvers"])


def sign(who: Colleague, task: str, *, decision: str, groups: list[str]) -> None:
    """Sign and write a decision as `who`, without the command's own looks at it."""
    said, now = who.rig.record(task), datetime.now(UTC)
    payload = {
        "kind": "decision",
        "task": task,
        "entity": who.entity,
        "nonce": "0" * 32,
        "at": now.isoformat(),
        "digest": said.task.digest,
        "revision": 1,
        "requester": said.task.requester,
        "decision": decision,
        "groups": groups,
        "reason": "",
        "expires_at": (now + timedelta(minutes=10)).isoformat(),
    }
    vault = who.rig.vault(who.token)
    document = Transit(vault).sign(payload, DOCUMENT_TYPE, key=signer_key(who.entity))
    vault.write(f"jitvault/data/decisions/{who.entity}/{task}", {"data": document})


def _rotated_away(rig: Rig, who: Colleague) -> None:
    key = f"jitvault-transit/keys/{signer_key(who.entity)}"
    rig.admin.write(f"{key}/rotate", {}, method="post")
    rig.admin.write(f"{key}/config", {"min_decryption_version": 2}, method="post")


def _key_deleted(rig: Rig, who: Colleague) -> None:
    key = f"jitvault-transit/keys/{signer_key(who.entity)}"
    rig.admin.write(f"{key}/config", {"deletion_allowed": True}, method="post")
    rig.admin.delete(key)


GONE = [_disabled, _out_of_the_group, _removed, _denied, _rotated_away, _key_deleted]


@pytest.mark.parametrize("change", GONE, ids=lambda f: f.__name__.lstrip("_"))
def test_a_task_ends_when_what_approved_it_does_not_hold_any_more(
    rig: Rig, spec: Spec, colleague: Colleague, change: Callable[[Rig, Colleague], None]
) -> None:
    task = pending(rig, spec)
    colleague("approve", task, "--yes")
    held = rig.use(rig.granted(Path(task)))
    assert state(rig, task) == "active"
    change(rig, colleague)
    ended = rig("operator", "status", task, code=None).json
    assert (ended["end_reason"], ended["state"]) == ("policy", "confirmed")
    assert not rig.is_live(held.token)


@pytest.mark.parametrize("change", GONE, ids=lambda f: f.__name__.lstrip("_"))
def test_nothing_is_issued_by_an_approval_that_does_not_hold_any_more(
    rig: Rig, spec: Spec, colleague: Colleague, change: Callable[[Rig, Colleague], None]
) -> None:
    task = pending(rig, spec)
    colleague("approve", task, "--yes")
    change(rig, colleague)
    rig("operator", "grant", task, code=3 if change is _denied else 4)
    assert rig.task_tokens(task) == []


def test_a_rotated_key_still_verifies_what_its_old_version_signed(rig: Rig, spec: Spec, colleague: Colleague) -> None:
    task = pending(rig, spec)
    colleague("approve", task, "--yes")
    rig.admin.write(f"jitvault-transit/keys/{signer_key(colleague.entity)}/rotate", {}, method="post")
    rig.granted(Path(task))
    assert state(rig, task, code=0) == "issued"


def test_a_task_ends_when_its_agent_is_disabled_or_leaves_its_group(rig: Rig, spec: Spec, lab: World) -> None:
    agent = lab.entity_ids["research-agent"]
    group = "identity/group/name/jitvault-agents"
    for change, undo, why in (
        (("identity/entity/id/" + agent, {"disabled": True}), {"disabled": False}, "is disabled or gone"),
        ((group, {"member_entity_ids": []}), {"member_entity_ids": [agent]}, "is not in jitvault-agents any more"),
    ):
        file = spec()
        rig.active(file)
        try:
            rig.admin.write(*change)
            ended = rig("operator", "status", file.stem, code=None).json
            assert (ended["end_reason"], ended["state"]) == ("policy", "confirmed")
            (note,) = (e.body["note"] for e in rig.record(file.stem).events if e.kind == "ending")
            assert note == f"the agent research-agent {why}"
        finally:
            rig.admin.write(change[0], undo)


def test_a_name_that_was_given_to_another_group_is_looked_at_again(rig: Rig) -> None:
    """A worker runs for months: who was in the group that had the name is not in the one that has it now."""
    group, path = "jitvault-looked-at", "identity/group"
    entity = rig.entity("approver-1")
    rig.admin.write(path, {"name": group, "member_entity_ids": [entity]})
    identity = rig.wiring().worker.identity
    try:
        member = identity.by_id(entity)
        assert member is not None and identity.groups_of(member, (group,)) == (group,)
        old = (rig.admin.read(f"{path}/name/{group}") or {})["data"]["id"]
        rig.admin.write(f"{path}/id/{old}", {"name": "jitvault-looked-at-before", "member_entity_ids": [entity]})
        rig.admin.write(path, {"name": group, "member_entity_ids": []})
        member = identity.by_id(entity)
        assert member is not None and identity.groups_of(member, (group,)) == ()
    finally:
        for name in (group, "jitvault-looked-at-before"):
            rig.admin.delete(f"{path}/name/{name}")
