"""More time for a task that holds access: decided anew, by the same token or by the next one, and never by two."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import without_limits
from hands import without_a_token
from rig import Rig

from jitvault.documents.signed import DOCUMENT_TYPE, signer_key
from jitvault.errors import VaultRefused, VaultUnavailable
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle import advance
from jitvault.lifecycle.requests.sign import sign_extension, sign_freeze
from jitvault.model.event_bodies import Extended, said
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope

Spec = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("lab", "in_this_process")


def extend(rig: Rig, task: str, how_long: str = "5m", who: str = "operator", **how: Any) -> Any:
    return rig(who, "extend", task, "--for", how_long, "--reason", "the import is slow", **how)


def ends_at(rig: Rig, task: str) -> datetime:
    found = rig.record(task).task.ends_at
    assert found is not None
    return found


def test_within_the_roles_cap_the_same_token_lives_on(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    held = rig.active(file)
    before = ends_at(rig, file.stem)
    told = extend(rig, file.stem, "7m").json
    assert (told["replaces"], told["wrapping"], told["extension"]["state"]) == (False, [], "extended")
    assert ends_at(rig, file.stem) == before + timedelta(minutes=7) == datetime.fromisoformat(told["ends_at"])
    assert told["extension"]["window_s"] == 12 * 60
    assert rig.is_live(held.token) and rig.lease_is_live(held.lease_id)
    (grant,) = rig.record(file.stem).grants
    assert grant.renew_at is not None
    shown = rig("operator", "status", file.stem).json
    assert [(e["seconds"], e["by"]["name"], e["reason"]) for e in shown["extensions"]] == [
        (420, "operator", "the import is slow")
    ]
    rig("operator", "complete", file.stem)
    (row,) = rig("auditor", "report", file.stem).json["leases"]
    assert (row["extended_s"], row["ends_at"]) == (420, told["ends_at"])


def test_the_turn_that_finds_a_token_unwrapped_answers_a_request_for_more_time(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    rig.use(rig.granted(file))
    before = ends_at(rig, file.stem)
    rig.cli("operator", "extend", file.stem, "--for", "7m", "--reason", "slow", "--wait", "0", worker=False, code=13)
    assert rig.state(file.stem) == "issued"
    rig.turn(file.stem)
    assert (rig.state(file.stem), ends_at(rig, file.stem)) == ("active", before + timedelta(minutes=7))
    rig("operator", "complete", file.stem)


def test_past_the_roles_cap_the_next_token_comes_after_the_old_one_is_proven_dead(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    told = extend(rig, file.stem, "10m").json
    assert told["replaces"] and len(told["wrapping"]) == 1
    old, new = rig.record(file.stem).grants
    (lease,) = rig.record(file.stem).leases
    assert (old.verdict, old.settled, lease.verdict) == ("audit_confirmed", True, "target_confirmed")
    assert (new.role, new.settled, rig.record(file.stem).task.state) == ("jitvault-1h", False, "issued")
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    # nobody told the agent: what it does with the old one is no finding
    with pytest.raises(VaultRefused):
        rig.vault(held.token).read("database/creds/app-readonly")
    again = rig.use(told)
    assert rig.is_live(again.token) and rig.lease_is_live(again.lease_id)
    rig("operator", "status", file.stem)
    assert rig.record(file.stem).task.state == "active"
    proof = rig("operator", "complete", file.stem).json
    assert proof["confirmed"] and [x["verdict"] for x in proof["leases"]] == ["target_confirmed"] * 2
    assert rig.findings(file.stem) == []
    assert len(list(said(rig.record(file.stem).events, Extended))) == 1
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"


def approved(rig: Rig, spec: Spec, window: str = "5m", more: str = "") -> str:
    """A task that an approver agreed to, and whose token its agent has."""
    file = spec(criticality="medium", window=window, more=more)
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    rig.use(dict(rig("operator", "grant", file.stem).json), read=False)
    return file.stem


def unchanged(rig: Rig, task: str, before: datetime) -> None:
    record = rig.record(task)
    assert (record.task.state, record.task.ends_at, len(record.grants)) == ("active", before, 1)


# -- who has to agree -----------------------------------------------------------------------------------------------


def test_an_approver_sees_by_how_much_and_signs_exactly_that(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    before = ends_at(rig, task)
    waits = extend(rig, task, code=4).json
    unchanged(rig, task, before)
    (waiting,) = [one for one in rig("approver-1", "approvals").json["tasks"] if one["task_id"] == task]
    assert waiting["digest"] == waits["extension"]["digest"] != rig.record(task).task.digest
    assert "asks for 5m more" in waiting["words"][0] and "10m in all" in waiting["words"][0]
    assert waiting["extends_until"] == rfc3339(before + timedelta(minutes=5))
    # the approval of the revision is none of more time, and neither is one of another length
    assert "not sha256:" in rig("approver-1", "approve", task, "--digest", rig.record(task).task.digest, code=9).stderr
    # a second request would replace the one that waits
    second = extend(rig, task, "6m", code=9).stderr
    assert f"extension {waits['extension']['id']}" in second and "waits for 1 approval by jitvault-approvers" in second
    assert rig("operator", "status", task).json["extension"]["digest"] == waits["extension"]["digest"]
    rig("operator", "extend", task, "--cancel")
    extend(rig, task, "6m", code=4)
    rig("approver-1", "approve", task, "--yes", "--digest", waits["extension"]["digest"], code=9)
    assert rig("approver-1", "approve", task, "--yes").json["missing"] == []
    assert ends_at(rig, task) == before + timedelta(minutes=6)
    assert rig("approver-1", "approve", task, "--yes", code=9)
    # what carried it carries the task from then on
    rig("approver-1", "withdraw", task, "--yes", code=None)
    assert rig.record(task).task.end_reason == "policy"


def test_an_approval_of_more_time_alone_can_be_taken_back(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec, window="55m")
    extend(rig, task, code=4)
    rig("approver-2", "approve", task, "--yes", "--group", "jitvault-approvers", code=None)
    assert len(list(said(rig.record(task).events, Extended))) == 1
    rig("operator", "status", task)
    assert rig.record(task).task.state == "active"
    rig("approver-2", "withdraw", task, "--yes", code=None)
    record = rig.record(task)
    assert record.task.end_reason == "policy"
    assert "its extension until" in str([e.body for e in record.events if e.kind == "ending"])


def test_asking_for_more_still_hides_no_approval_that_carries_the_task(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec, window="55m")
    extend(rig, task, code=4)
    rig("approver-2", "approve", task, "--yes", "--group", "jitvault-approvers", code=None)
    rig("operator", "status", task)
    extend(rig, task, "7h", code=8)
    rig("approver-2", "withdraw", task, "--yes", code=None)
    assert rig.record(task).task.end_reason == "policy"


def test_a_new_token_waits_for_who_takes_it(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec, window="15m")
    extend(rig, task, "30m", code=4)
    rig("approver-1", "approve", task, "--yes")
    # approved, and nobody of the requester's is there to take it
    assert rig.record(task).task.state == "active" and not list(said(rig.record(task).events, Extended))
    told = extend(rig, task, "30m").json
    assert told["replaces"] and rig.use(told).secrets
    rig("operator", "complete", task)


def test_a_denial_of_more_time_leaves_the_task_as_it_was(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    before = ends_at(rig, task)
    extend(rig, task, code=4)
    rig("approver-2", "deny", task, "--yes", "--reason", "long enough")
    unchanged(rig, task, before)
    assert "long enough" in extend(rig, task, code=3).stderr
    status = rig.cli("operator", "status", task, extra={"COLUMNS": "200"}).stdout
    assert re.search(r"^  more time +refused: .*long enough.* \(5m asked for by operator\)$", status, re.M), status
    unchanged(rig, task, before)
    rig("operator", "complete", task)


def test_an_agent_extends_nothing_for_itself_unless_policy_says_so(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec(window="5m")
    rig.active(file)
    before = ends_at(rig, file.stem)
    assert "is not extended" in extend(rig, file.stem, who="agent", code=3).stderr
    unchanged(rig, file.stem, before)
    assert "only the requester" in extend(rig, file.stem, who="approver-1", code=3).stderr
    own = without_limits(tmp_path / "own")
    (own / "agents.cedar").write_text(
        '@id("agents") permit (principal is Agent, action == Action::"extend", resource);'
    )
    extend(rig, file.stem, who="agent", extra={"JITVAULT_POLICIES": str(own)})
    assert ends_at(rig, file.stem) == before + timedelta(minutes=5)
    rig("operator", "complete", file.stem)


def test_who_asks_behind_a_request_that_waits_hears_that_it_comes_first(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec, window="55m")
    extend(rig, task, code=4)
    said = extend(rig, task, who="agent", code=9).stderr
    assert "the earlier request of operator for more time" in said and "still waits for 1 approval by" in said
    rig("operator", "complete", task)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code", "said"),
    [
        ('@id("x") @max_window("8m") permit (principal, action == Action::"extend", resource);', 3, "policy allows 8m"),
        ('@id("x") forbid (principal, action == Action::"extend", resource);', 3, "forbidden by x"),
        (
            '@id("x") forbid (principal, action == Action::"extend", resource) when { context.window_s > 599 };',
            3,
            "forbidden by x",
        ),
        ("", 8, "its templates allow 1h"),
    ],
    ids=["window", "forbidden", "whole-window", "template"],
)
def test_what_policy_and_templates_do_not_allow_changes_nothing(
    rig: Rig, spec: Spec, tmp_path: Path, rule: str, code: int, said: str
) -> None:
    file = spec(window="5m")
    rig.active(file)
    before = ends_at(rig, file.stem)
    own = without_limits(tmp_path / "own")
    (own / "more.cedar").write_text(rule)
    found = extend(rig, file.stem, "5m" if rule else "56m", code=code, extra={"JITVAULT_POLICIES": str(own)})
    assert said in found.stderr
    unchanged(rig, file.stem, before)
    # a request that was refused is not looked at again, when nobody waits for it
    rig("operator", "status", file.stem)
    unchanged(rig, file.stem, before)
    rig("operator", "complete", file.stem)
    assert "there is no deadline to move" in extend(rig, file.stem, code=9).stderr


def test_what_is_frozen_is_not_extended(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    rig.active(file)
    scope = Scope(agent="research-agent")
    sign_freeze(rig.wiring().person, scope, freezes=True, reason="look first")
    try:
        assert "frozen" in extend(rig, file.stem, code=3).stderr
    finally:
        sign_freeze(rig.wiring().person, scope, freezes=False, reason="looked")
    assert rig.record(file.stem).task.end_reason == "frozen"
    assert not list(said(rig.record(file.stem).events, Extended))


def test_a_request_that_is_put_back_or_forged_moves_nothing(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    rig.active(file)
    place, person = f"requests/{rig.entity('operator')}/{file.stem}/extend", rig.wiring().person
    # one that was written over before anybody looked at it
    revision = Revision.of(rig.record(file.stem).revision.body)
    sign_extension(person, revision, ends_at=ends_at(rig, file.stem), seconds=120, reason="it is slow")
    unseen = rig.document(place)
    extend(rig, file.stem, "1m")
    before, used = ends_at(rig, file.stem), rig.document(place)
    # as it was
    rig("operator", "status", file.stem)
    unchanged(rig, file.stem, before)
    wanted = {
        "kind": "extend",
        "task": file.stem,
        "entity": rig.entity("operator"),
        "nonce": "1" * 32,
        "at": datetime.now(UTC).isoformat(),
        "digest": rig.record(file.stem).task.digest,
        "ends_at": before.isoformat(),
        "seconds": 60,
        "reason": "more",
    }
    approver = rig.wiring("approver-1").person.signer
    rig.put(place, approver.sign(wanted, DOCUMENT_TYPE, key=signer_key(rig.entity("approver-1"))))
    rig("operator", "status", file.stem, code=12)
    unchanged(rig, file.stem, before)
    assert rig.findings(file.stem) == ["forged_document"]
    for old in (used, unseen):
        rig.put(place, old)
        rig("operator", "status", file.stem, code=12)
        unchanged(rig, file.stem, before)
    # signed by who may, it counts: the test can fail
    rig.put(place, person.signer.sign(wanted, DOCUMENT_TYPE, key=signer_key(person.entity)))
    rig("operator", "status", file.stem, code=12)
    assert ends_at(rig, file.stem) == before + timedelta(seconds=60)
    rig("operator", "complete", file.stem, code=12)


# -- families, delivery, what was in flight ---------------------------------------------------------------------------


def test_a_child_ends_no_later_than_its_parent_and_outlives_its_parents_token(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = spec(window="15m")
    parent = rig.active(top)
    child = spec(window="10m", more=f"  parent: {top.stem}\n")
    held = rig.active(child)
    before = ends_at(rig, child.stem)
    assert "cannot end later" in extend(rig, child.stem, "10m", code=8).stderr
    unchanged(rig, child.stem, before)
    with monkeypatch.context() as between:

        def away(*_: object) -> None:
            raise VaultUnavailable("Vault is away")

        # between its two tokens the parent is held all the same
        between.setattr(advance, "issue_replacement", away)
        extend(rig, top.stem, "20m", code=5)
        assert rig.record(top.stem).task.state == "issuing"
        rig("operator", "status", child.stem)
    rig.use(dict(rig("operator", "grant", top.stem).json), read=False)
    assert not rig.is_live(parent.token)
    rig("operator", "status", child.stem)
    assert rig.is_live(held.token) and rig.record(child.stem).task.state == "active"
    extend(rig, child.stem, "5m")
    assert ends_at(rig, child.stem) == before + timedelta(minutes=5)
    rig("operator", "complete", top.stem)
    assert rig.record(child.stem).task.end_reason == "parent"


def test_an_agents_new_token_lies_in_its_inbox(rig: Rig, spec: Spec) -> None:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    rig("agent", "unwrap", file.stem)
    assert extend(rig, file.stem, "20m").json["wrapping"] == []
    rig("agent", "unwrap", file.stem)
    rig("operator", "status", file.stem)
    assert rig.record(file.stem).task.state == "active"
    rig("operator", "complete", file.stem)


def test_a_lease_that_comes_to_the_old_token_is_ended(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig.use(extend(rig, file.stem, "20m").json)
    late, _ = without_a_token(rig, held)
    rig("operator", "status", file.stem)
    assert not rig.lease_is_live(late)
    assert rig.record(file.stem).task.state == "active"
    rig("operator", "complete", file.stem)


def test_what_needed_no_renewal_is_renewed_from_then_on(rig: Rig, spec: Spec) -> None:
    file = spec(window="90s")
    held = rig.active(file)
    assert not rig.record(file.stem).grants[-1].rolling
    # on a machine without the worker's identity it is only signed
    alone = ("--for", "4m", "--reason", "slow", "--wait", "0.5", "--json")
    rig.cli("operator", "extend", file.stem, *alone, worker=False, code=13)
    rig("operator", "status", file.stem)
    (grant,) = rig.record(file.stem).grants
    assert grant.rolling and grant.renew_at is not None
    assert [op.answer for op in rig.operations(file.stem) if op.kind == "renew_token"] == ["ok"]
    assert rig.is_live(held.token)
    rig("operator", "complete", file.stem)


def test_while_the_old_lease_cannot_be_ended_there_is_no_new_token(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig.world.servers.postgres.stop()
    try:
        assert "not proven dead yet" in extend(rig, file.stem, "20m", code=6).stderr
        rig.turn(file.stem, code=6)
        shown = rig("operator", "status", file.stem, alone=True).json
        assert (shown["state"], rig.task_tokens(file.stem)) == ("issuing", [])
        assert not all(check["ok"] for check in shown["leases"][0]["checks"])
    finally:
        rig.world.servers.postgres.start()
    rig("operator", "status", file.stem)
    assert not rig.lease_is_live(held.lease_id)
    rig.use(dict(rig("operator", "grant", file.stem).json))
    rig("operator", "complete", file.stem)


# -- run again, cancelled, told --------------------------------------------------------------------------------------


def test_the_same_command_extends_once_and_shows_by_its_id_what_was_made(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    rig.active(file)
    before = ends_at(rig, file.stem)
    first = extend(rig, file.stem, "7m").json
    assert (first["made_at"], first["extension"]["id"]) == (None, first["extension"]["digest"][7:19])
    again = extend(rig, file.stem, "7m").json
    assert again["extension"] == first["extension"] and again["made_at"] is not None
    assert ends_at(rig, file.stem) == before + timedelta(minutes=7) == datetime.fromisoformat(again["ends_at"])
    assert len(list(said(rig.record(file.stem).events, Extended))) == 1
    shown = rig.cli("operator", "extend", file.stem, "--for", "7m", "--reason", "the import is slow").stdout
    assert f"id       {first['extension']['id']}" in shown and "nothing more was asked" in shown and "--again" in shown
    # for another reason it is another request, and so it is with --again
    rig("operator", "extend", file.stem, "--for", "7m", "--reason", "and the export")
    rig("operator", "extend", file.stem, "--for", "7m", "--reason", "the import is slow", "--again")
    assert ends_at(rig, file.stem) == before + timedelta(minutes=21)
    rig("operator", "complete", file.stem)


def test_what_an_approval_carried_is_shown_when_the_command_is_run_again(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    before = ends_at(rig, task)
    waits = extend(rig, task, code=4).json
    until = before + timedelta(minutes=5)
    told = rig("approver-1", "approve", task, "--yes").json
    assert (told["extension"], told["extended_until"]) == (waits["extension"]["id"], rfc3339(until))
    assert extend(rig, task).json["extension"]["digest"] == waits["extension"]["digest"]
    assert ends_at(rig, task) == until and len(list(said(rig.record(task).events, Extended))) == 1
    rig("operator", "complete", task)


def test_a_new_token_that_was_not_fetched_is_printed_by_the_same_command(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    rig.active(file)
    with monkeypatch.context() as between:

        def away(*_: object) -> None:
            raise VaultUnavailable("Vault is away")

        between.setattr(advance, "issue_replacement", away)
        extend(rig, file.stem, "20m", code=5)
    told = extend(rig, file.stem, "20m").json
    assert len(told["wrapping"]) == 1 and rig.use(told).secrets
    assert extend(rig, file.stem, "20m").json["wrapping"] == []
    assert len(list(said(rig.record(file.stem).events, Extended))) == 1
    rig("operator", "complete", file.stem)


def test_an_approver_is_told_until_when_it_is_extended(rig: Rig, spec: Spec) -> None:
    width = "80"
    task = approved(rig, spec)
    until = ends_at(rig, task) + timedelta(minutes=5)
    waits = extend(rig, task, code=4).json
    wide = {"COLUMNS": width}
    said = rig.cli("approver-1", "approve", task, "--yes", extra=wide).stdout
    assert max(map(len, said.splitlines())) <= int(width), said
    whole = " ".join(said.split())
    assert f"You approved more time for task {task} (extension {waits['extension']['id']}); it is extended" in whole
    assert f"until {until:%Y-%m-%d %H:%M:%S} UTC" in whole
    # one that takes a new token waits for who takes it
    rig("operator", "extend", task, "--for", "30m", "--reason", "more", code=4)
    later = until + timedelta(minutes=30)
    whole = " ".join(rig.cli("approver-1", "approve", task, "--yes", extra=wide).stdout.split())
    assert f"the deadline moves to {later:%Y-%m-%d %H:%M:%S} UTC when operator runs the same" in whole
    rig("operator", "complete", task)


def test_a_denial_of_more_time_says_when_the_task_ends(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    deadline = ends_at(rig, task)
    asked = rig.cli("operator", "extend", task, "--for", "30m", "--reason", "slow", code=4, extra={"COLUMNS": "80"})
    # a digest has a line of its own
    assert "  digest\n    sha256:" in asked.stdout and max(map(len, asked.stdout.splitlines())) <= 80
    said = " ".join(rig.cli("approver-1", "deny", task, "--yes").stdout.split())
    assert f"it ends at {deadline:%Y-%m-%d %H:%M:%S} UTC, as before" in said
    rig("operator", "complete", task)


def test_a_request_that_waits_can_be_cancelled_and_counts_no_more(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    before = ends_at(rig, task)
    waits = extend(rig, task, code=4).json
    asked = rig.document(f"requests/{rig.entity('operator')}/{task}/extend")
    gone = rig("operator", "extend", task, "--cancel").json
    assert gone["extension"] == {
        "id": waits["extension"]["id"],
        "state": "cancelled",
        "digest": waits["extension"]["digest"],
    }
    assert task not in [one["task_id"] for one in rig("approver-1", "approvals").json["tasks"]]
    assert "there is nothing to decide" in rig("approver-1", "approve", task, "--yes", code=9).stderr
    shown = rig("operator", "status", task).json
    assert (shown["extension"]["state"], shown["timeline"][-1]["event"]) == ("cancelled", "extension_cancelled")
    assert "operator cancelled the request for more time" in " ".join(
        rig.cli("operator", "status", task).stdout.split()
    )
    # put back as it was signed, it is none
    rig.put(f"requests/{rig.entity('operator')}/{task}/extend", asked)
    rig("operator", "status", task)
    unchanged(rig, task, before)
    assert rig("operator", "status", task).json["extension"]["state"] == "cancelled"
    assert "no request for more time waits" in rig("operator", "extend", task, "--cancel", code=9).stderr
    # asked for again, it waits again
    assert extend(rig, task, code=4).json["extension"]["digest"] == waits["extension"]["digest"]
    rig("operator", "complete", task)


def test_nobody_cancels_the_request_of_another(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    extend(rig, task, code=4)
    assert "who alone can cancel it" in rig("agent", "extend", task, "--cancel", code=9).stderr
    # nor by a document that says so
    revision = Revision.of(rig.record(task).revision.body)
    waiting = rig("operator", "status", task).json["extension"]["request"]
    sign_extension(
        rig.wiring("agent").person, revision, ends_at=ends_at(rig, task), seconds=300, reason="mine", cancels=waiting
    )
    rig("operator", "status", task)
    assert rig("approver-1", "approve", task, "--yes").json["extended_until"] is not None
    for who, has_worker in (("auditor", True), ("operator", False)):
        shown = rig.cli(who, "status", task, worker=has_worker).stdout
        assert ", approved by approver-1" in " ".join(shown.split())
    (row,) = rig("auditor", "report", task).json["leases"]
    assert row["extension_approved_by"] == ["approver-1"]
    rig("operator", "complete", task)


def test_without_the_workers_identity_a_worker_cancels_it(rig: Rig, spec: Spec) -> None:
    task = approved(rig, spec)
    extend(rig, task, code=4)
    late = rig.cli("operator", "extend", task, "--cancel", "--wait", "0.5", "--json", worker=False, code=13)
    assert late.stdout == ""
    rig("operator", "status", task)
    assert rig("operator", "status", task).json["extension"]["state"] == "cancelled"
    rig("operator", "complete", task)


def test_cancelling_takes_no_more_than_the_task(rig: Rig) -> None:
    for wrong in (["--cancel", "--for", "5m"], ["--cancel", "--reason", "x"], ["--for", "5m"], ["--reason", "x"], []):
        rig("operator", "extend", "any-task", *wrong, code=2)
