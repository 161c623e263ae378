"""An operator freezes an agent, a template or all: nothing of it is granted or renewed, and what is held ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE, Quick
from rig import Rig, own_rig

from jitvault.cli.ends.frozen_tasks import wait_for_frozen
from jitvault.documents.paths import Kept
from jitvault.documents.signed import payload_of
from jitvault.errors import NotConfirmed
from jitvault.lifecycle.requests.complete_index import complete_index
from jitvault.lifecycle.requests.end_documents import end_request_of_others
from jitvault.lifecycle.requests.freezes import all_freezes
from jitvault.lifecycle.requests.sign import sign_end, sign_freeze
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason
from jitvault.sandbox.world import World, env
from jitvault.stream.reading import canary
from jitvault.worker.process import context_factory

Spec = Callable[..., Path]
AGENT, TEMPLATE = ("--agent", "research-agent"), ("--template", "postgres-readonly")
WHY = ("--reason", "it reads what it should not")


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Iterator[Rig]:
    own = own_rig(lab, env(lab, "", EXAMPLE), tmp_path)
    yield own
    # before the next test: the freezes are Vault's, not the ledger's
    own("operator", "unfreeze", "--all", "--unseen", "--reason", "the test is over")


@pytest.mark.parametrize("scope", [AGENT, TEMPLATE, ("--all",), ("--owner", "data-owner")], ids=str)
def test_a_freeze_ends_what_is_held_and_lets_nobody_in_until_it_is_lifted(
    rig: Rig, spec: Spec, scope: tuple[str, ...]
) -> None:
    file = spec()
    held = rig.active(file)
    frozen = rig("operator", "freeze", *scope, "--yes", *WHY).json
    assert frozen["ended"] == {file.stem: "confirmed"}
    ended = rig.record(file.stem)
    assert ended.task.end_reason == "frozen"
    (ending,) = (event.body for event in ended.events if event.kind == "ending")
    assert (ending["by"], ending["name"]) == (rig.entity("operator"), "operator")
    # for the receipt, as its author signed it
    assert payload_of(ending["signed"])["reason"] == WHY[1]
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    refused = rig("operator", "grant", again := spec(), code=3).error
    assert "operator froze" in refused["message"] and WHY[1] in refused["message"]
    # another operator may lift it, by the same name
    rig("operator", "unfreeze", "--agent", "somebody-else", "--unseen", "--reason", "not this one")
    rig("operator", "grant", again, code=3)
    rig("operator", "unfreeze", *scope, "--reason", "it was right")
    rig("operator", "grant", again)
    rig("operator", "complete", again.stem)


def test_a_freeze_of_something_else_is_no_hindrance(rig: Rig, spec: Spec) -> None:
    rig("operator", "freeze", "--template", "postgres-readwrite", *WHY)
    rig("operator", "freeze", "--agent", "operator", *WHY)
    rig.granted(file := spec())
    rig("operator", "complete", file.stem)


def test_a_worker_ends_what_somebody_froze(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    with Attended(rig):
        # without the worker's identity it is only signed
        rig.cli("operator", "freeze", *AGENT, *WHY, worker=False)
        wait_for(lambda: not rig.is_live(held.token), 5)
        wait_for(lambda: rig.state(file.stem) == "confirmed")
    assert rig.record(file.stem).task.end_reason == "frozen"


def test_the_kill_switch_can_hold_the_door_closed(rig: Rig, spec: Spec) -> None:
    rig.active(spec())
    rig("operator", "revoke", *AGENT, *WHY, "--freeze", "--yes")
    rig("operator", "grant", spec(), code=3)


def test_only_operators_freeze_and_what_others_sign_counts_for_nothing(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", spec())
    rig("operator", "freeze", *TEMPLATE, *WHY)
    for who in ("approver-1", "agent", "auditor"):
        rig(who, "freeze", "--all", "--yes", *WHY, code=10)
        rig(who, "unfreeze", "--all", *WHY, code=10)
        rig(who, "unfreeze", "--all", "--unseen", *WHY, code=10)
    path, key = f"freezes/{rig.entity('operator')}", Scope(template=TEMPLATE[1]).key
    signed = rig.document(f"{path}/{key}")
    (shown,) = rig("operator", "freezes").json["freezes"]
    assert (shown["scope"], shown["by"], shown["reason"]) == ({"template": TEMPLATE[1]}, "operator", WHY[1])
    # whoever has a part in a task has a name there, with a ledger and without one
    for who in ("operator", "auditor"):
        for extra in ({}, {"JITVAULT_LEDGER": ""}):
            seen = rig.cli(who, "freezes", "--json", worker=False, extra=extra).json["freezes"]
            assert seen == [{**shown, "by": "operator"}]
    assert " you " in rig.cli("operator", "freezes", worker=False).stdout
    rig("operator", "unfreeze", *TEMPLATE, "--reason", "it is fine")
    lifted = rig.document(f"{path}/{key}")
    # somebody else's place, an edited document, and a lift by who is no operator any more
    rig("operator", "freeze", *TEMPLATE, *WHY)
    other = rig.entity("approver-1")
    rig.put(f"freezes/{other}/{key}", lifted)
    rig("operator", "grant", file := spec(), code=3)
    rig.put(f"freezes/{other}/{key}", {**lifted, "payload": signed["payload"]})
    rig("operator", "grant", file, code=3)


def test_a_lift_by_somebody_who_is_disabled_lifts_nothing_and_their_freeze_holds(rig: Rig, spec: Spec) -> None:
    rig("operator", "freeze", *AGENT, *WHY)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_APPROVER_2_TOKEN": rig.world.operator_2_token.reveal()}
    rig("approver-2", "unfreeze", *AGENT, "--reason", "let it go on")
    rig.admin.write("identity/entity/name/operator-2", {"disabled": True})
    try:
        rig("operator", "grant", file := spec(), code=3)
    finally:
        rig.admin.write("identity/entity/name/operator-2", {"disabled": False})
    rig("operator", "grant", file)
    rig("operator", "complete", file.stem)


def test_what_is_typed_wrong_freezes_nothing(rig: Rig) -> None:
    rig("operator", "freeze", *WHY, code=2)
    rig("operator", "freeze", *AGENT, *TEMPLATE, *WHY, code=2)
    rig("operator", "freeze", *AGENT, "--reason", "", code=8)
    rig("operator", "freeze", *AGENT, code=2)
    rig("operator", "revoke", "some-task", "--freeze", *WHY, code=2)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "\u202eab", "a" * 600])
def test_what_can_be_no_name_is_not_called_frozen(rig: Rig, name: str) -> None:
    refused = rig("operator", "freeze", "--agent", name, "--reason", "x", code=8)
    assert "is no name: " in refused.error["message"]
    assert rig("operator", "freezes").json["freezes"] == []


@pytest.mark.parametrize(("part", "worker"), [("--agent", True), ("--owner", False)])
def test_a_name_that_nobody_has_is_not_frozen(rig: Rig, spec: Spec, part: str, *, worker: bool) -> None:
    rig("operator", "grant", file := spec())
    here, wrong = Quick(rig.cli.variables, rig.cli.home), (part, "reserch-agent", "--reason", "x")
    refused = here("operator", "freeze", *wrong, worker=worker, code=9)
    assert (
        "no agent or owner has the name 'reserch-agent' (did you mean research-agent?): nothing was frozen"
        in refused.stderr
    )
    assert rig("operator", "freezes").json["freezes"] == []
    here("operator", "freeze", *wrong, "--unseen", worker=worker)
    assert len(rig("operator", "freezes").json["freezes"]) == 1
    rig("operator", "complete", file.stem)


def test_an_agent_without_a_task_can_be_frozen_with_the_workers_identity(rig: Rig) -> None:
    for name in ("approver-2", rig.entity("approver-2")):
        rig("operator", "freeze", "--agent", name, *WHY)


def test_the_case_of_a_name_makes_no_difference(rig: Rig, spec: Spec) -> None:
    rig("operator", "freeze", "--agent", "Research-AGENT", *WHY)
    rig("operator", "grant", file := spec(), code=3)
    rig("operator", "unfreeze", "--agent", "RESEARCH-agent", "--reason", "it was right")
    rig("operator", "grant", file)
    rig("operator", "complete", file.stem)


@pytest.mark.parametrize("worker", [True, False])
def test_a_template_that_there_is_not_is_not_frozen(rig: Rig, spec: Spec, *, worker: bool) -> None:
    rig("operator", "grant", file := spec())
    here, wrong = Quick(rig.cli.variables, rig.cli.home), ("--template", "postgres-readwrote", "--reason", "x")
    told = here("operator", "freeze", *wrong, worker=worker, code=9).stderr
    assert "no template 'postgres-readwrote' (did you mean postgres-readwrite?): nothing was frozen" in told
    assert rig("operator", "freezes").json["freezes"] == []
    here("operator", "freeze", *wrong, "--unseen", worker=worker)
    # what a task has is a template, whatever files there are on this host; and so is one that no task has had
    empty = rig.cli.home / "no-templates"
    empty.mkdir()
    here("operator", "freeze", *TEMPLATE, *WHY, worker=False, code=None, extra={"JITVAULT_TEMPLATES": str(empty)})
    here("operator", "freeze", "--template", "postgres-readwrite", *WHY, worker=worker)
    assert len(rig("operator", "freezes").json["freezes"]) == 3
    rig("operator", "complete", file.stem)


def test_a_freeze_that_a_later_lift_ends_is_not_waited_for(rig: Rig) -> None:
    """As after Vault's clock was set back: then a lift may be dated later than a freeze that follows it."""
    rig("operator", "freeze", "--agent", "operator", *WHY)
    rig("operator", "unfreeze", "--agent", "operator", "--reason", "it was a drill")
    with pytest.raises(NotConfirmed, match="has no effect"):
        wait_for_frozen(rig.wiring("operator"), Scope(agent="operator"), since=datetime.now(UTC), wait=1)


@pytest.mark.parametrize(("ahead_s", "code"), [(3600, 0), (4, 13)])
def test_a_lift_that_is_dated_later_than_now_hides_no_freeze(rig: Rig, spec: Spec, ahead_s: int, code: int) -> None:
    """As after Vault's clock was set back; by so little that it cannot be told, the command says what came of it."""
    held = rig.active(file := spec())
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_APPROVER_2_TOKEN": rig.world.operator_2_token.reveal()}
    rig("operator", "freeze", "--agent", "operator", *WHY)
    rig("approver-2", "unfreeze", "--all", "--reason", "it was a drill")
    rig.granted(other := spec())
    at = (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()
    rig.sql("UPDATE documents SET body = json_set(body, '$.at', ?) WHERE standing = 'lifts'", at)
    frozen = rig("operator", "freeze", *AGENT, *WHY, "--wait", "5s", code=code)
    if code:
        assert file.stem in frozen.error["message"]
        assert rig.is_live(held.token)
        rig("operator", "complete", file.stem)
        rig("operator", "complete", other.stem)
    else:
        assert not rig.is_live(held.token)
        assert [one["scope"] for one in rig("operator", "freezes").json["freezes"]] == [{"agent": "research-agent"}]


def test_a_freeze_that_is_written_anew_during_a_turn_is_read_after_that(rig: Rig) -> None:
    """A turn that has read the document before must not take what it had then for the news."""
    scope = Scope(agent="research-agent")
    with closing(rig.wiring()) as wiring, (hand := context_factory(wiring)()).facts.turn():
        for freezes, held in ((True, 1), (False, 0), (True, 1)):
            sign_freeze(wiring.person, scope, freezes=freezes, reason="a drill")
            canary(hand)
            assert len(all_freezes(hand)) == held


def test_an_end_that_is_written_anew_during_a_turn_is_read_after_that(rig: Rig, spec: Spec) -> None:
    rig.granted(file := spec())
    notes = list[str]()
    with closing(rig.wiring()) as wiring, (hand := context_factory(wiring)()).facts.turn():
        complete_index(hand, Kept.END)
        for note in ("first", "second"):
            sign_end(wiring.person, file.stem, reason=EndReason.OPERATOR, note=note)
            canary(hand)
            found = end_request_of_others(hand, file.stem, entitled={})
            notes.append(found.note if found is not None else "")
    assert notes == ["first", "second"]
    rig("operator", "complete", file.stem)
