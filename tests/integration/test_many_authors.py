"""A look at a task costs the same however many people there are and however much they froze, and it misses nothing."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attended import Attended, wait_for
from floods import JUNK
from rig import Rig

from jitvault.documents.paths import Kept
from jitvault.ledger.documents import index
from jitvault.lifecycle.requests import complete_index as listing
from jitvault.lifecycle.requests import end_documents as ends
from jitvault.lifecycle.requests import pending
from jitvault.lifecycle.requests.pending import DocumentWatcher
from jitvault.lifecycle.requests.sign import sign_end, sign_freeze
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason
from jitvault.vault.documents import Documents
from jitvault.vault.interface import Stored

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
MANY = 60
LEADS = "leads"


def requests(rig: Rig, task: str) -> int:
    """How many requests a worker makes that looks at a task."""
    before = rig.world.audit_file.stat().st_size
    rig.turn(task)
    with rig.world.audit_file.open("rb") as audit:
        audit.seek(before)
        return sum(json.loads(line)["type"] == "request" for line in audit)


def people(rig: Rig, task: str, kind: str, count: int = MANY) -> list[str]:
    """Documents of people whom nobody knows."""
    paths = [f"requests/{uuid.uuid4()}/{task}/{kind}" for _ in range(count)]
    for path in paths:
        rig.put(path, JUNK["data"])
    return paths


@contextmanager
def leads(rig: Rig) -> Iterator[None]:
    """An approver is an operator by a group that is a member of the operators' group."""
    group, operators = "identity/group/name/" + LEADS, "identity/group/name/jitvault-operators"
    rig.admin.write(group, {"member_entity_ids": [rig.entity("approver-1")]})
    made = (rig.admin.read(group) or {})["data"]["id"]
    rig.admin.write(operators, {"member_group_ids": [made]})
    try:
        yield
    finally:
        rig.admin.write(operators, {"member_group_ids": []})
        rig.admin.delete(group)


def ask_for_the_end(rig: Rig, task: str) -> None:
    sign_end(rig.wiring("approver-1").person, task, reason=EndReason.OPERATOR, note="it is enough")


def freeze(rig: Rig, who: str, name: str, *, freezes: bool) -> None:
    sign_freeze(rig.wiring(who).person, Scope(agent=name), freezes=freezes, reason="an incident")


def entity_disabled(rig: Rig, name: str, *, disabled: bool) -> None:
    rig.admin.write(f"identity/entity/name/{name}", {"disabled": disabled})


def test_a_look_costs_the_same_however_many_people_have_written(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig("operator", "status", file.stem)
    before = requests(rig, file.stem)
    people(rig, "something-else", "submit")
    people(rig, "something-else", "end")
    # what is not of this task is never read
    assert requests(rig, file.stem) <= before
    rig("operator", "complete", file.stem)


def test_what_counts_for_nothing_is_read_once(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig("operator", "status", file.stem)
    before = requests(rig, file.stem)
    people(rig, file.stem, "end")
    looks = [requests(rig, file.stem) for _ in range(4)]
    assert max(looks) < before + 4 * ends.AT_ONCE and looks[-1] <= before, (before, looks)
    rig("operator", "complete", file.stem)


def test_a_look_costs_the_same_however_much_was_frozen_and_lifted(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    rig("operator", "status", file.stem)
    before = requests(rig, file.stem)
    for n in range(MANY):
        freeze(rig, "operator", f"old-{n}", freezes=True)
        freeze(rig, "operator", f"old-{n}", freezes=False)
    for _ in range(MANY):
        rig.put(f"freezes/{rig.entity('operator')}/{secrets.token_hex(16)}", JUNK["data"])
    rig("operator", "status", file.stem)
    assert requests(rig, file.stem) <= before
    rule = "SELECT count(*) FROM findings WHERE task_id IS NULL AND rule = 'forged_document'"
    assert rig.rows(rule) == [(1,)], "garbage is one finding on its author"
    rig("operator", "complete", file.stem)


@pytest.mark.parametrize("missed", ["nothing", "a gap", "a new ledger file"])
def test_an_operator_by_another_group_ends_a_task_whatever_was_read(rig: Rig, spec: Spec, missed: str) -> None:
    held = rig.active(file := spec())
    copy = rig.place.with_name("copy.db") if isinstance(rig.place, Path) else None
    if missed == "a new ledger file":
        with closing(sqlite3.connect(rig.ledger_path)) as ledger, closing(sqlite3.connect(str(copy))) as other:
            ledger.backup(other)
    with leads(rig):
        ask_for_the_end(rig, file.stem)
        if missed == "a gap":
            os.truncate(rig.world.audit_file, 0)
        if copy is not None and missed == "a new ledger file":
            rig.put_back(copy)
        people(rig, file.stem, "end", 20)
        told = rig("operator", "status", file.stem, code=None)
        assert not rig.is_live(held.token), told
        assert rig.record(file.stem).task.end_reason == "operator"


def test_a_worker_finds_what_the_stream_did_not_show(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    with leads(rig):
        with Attended(rig):
            wait_for(lambda: rig.rows("SELECT 1 FROM listings WHERE kind = 'end'"))
        ask_for_the_end(rig, file.stem)
        os.truncate(rig.world.audit_file, 0)
        with Attended(rig):
            wait_for(lambda: not rig.is_live(held.token), 10)


@pytest.mark.parametrize("who", ["operator", "approver-1"])
def test_a_worker_finds_an_end_whose_line_was_read_while_none_ran(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Whatever a worker looks back: as long as the task is not due nothing else brings anybody to it."""
    monkeypatch.setattr(pending, "_BEHIND", timedelta(0))
    held = rig.active(file := spec())
    rig("operator", "status", file.stem)
    with leads(rig):
        sign_end(rig.wiring(who).person, file.stem, reason=EndReason.OPERATOR, note="it is enough")
        rig("auditor", "audit", "status")
        with Attended(rig):
            wait_for(lambda: not rig.is_live(held.token), 10)


def test_a_listing_gives_no_turn_to_a_task_that_nobody_ends(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names each task that an author wrote about: a turn of each of thousands would keep the others waiting."""
    monkeypatch.setattr(index, "APPEARS_WITHIN", timedelta(seconds=-1))
    rig.active(file := spec())
    worker = rig.wiring().worker
    backlog = pending.Backlog(worker)
    assert backlog.list_again() == []
    assert file.stem not in [one.about for one in worker.ledger.unread_of_unproven(Kept.END)]
    sign_end(rig.wiring().person, file.stem, reason=EndReason.OPERATOR, note="it is enough")
    # no line of it is read here
    assert backlog.list_again() == []
    assert [ask.task_id for ask in backlog.list_again(again=True)] == [file.stem]
    rig("operator", "complete", file.stem)


def test_what_is_written_after_vaults_clock_was_set_back_is_noticed(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    word = DocumentWatcher(rig.wiring().worker)
    sign_end(rig.wiring().person, file.stem, reason=EndReason.OPERATOR, note="it is enough")
    rig("auditor", "audit", "status")
    rig.drop_triggers()
    # as it stands in a line that was written while the clock was two hours ahead
    ahead = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%d %H:%M:%S.%f}"
    rig.sql("UPDATE observations SET at = ? WHERE kind = 'written'", ahead)
    assert file.stem in {ask.task_id for ask in word.new()}
    sign_end(rig.wiring().person, file.stem, reason=EndReason.OPERATOR, note="it is enough")
    rig("auditor", "audit", "status")
    assert [ask.task_id for ask in word.new()] == [file.stem]
    rig("operator", "complete", file.stem)


def test_many_ends_of_others_do_not_hide_an_operators(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    people(rig, file.stem, "end", 3 * ends.AT_ONCE)
    with leads(rig), Attended(rig):
        ask_for_the_end(rig, file.stem)
        wait_for(lambda: not rig.is_live(held.token), 10)


def test_a_look_that_leaves_something_unread_keeps_nobody_from_looking(rig: Rig, spec: Spec) -> None:
    rig.active(file := spec())
    people(rig, file.stem, "end", 2 * ends.AT_ONCE)
    is_all = []
    for _ in range(3):
        rig("operator", "status", file.stem)
        with rig.ledger() as ledger:
            is_all.append(ledger.parts([file.stem])[file.stem].done is not None)
    assert is_all == [False, True, True]
    rig("operator", "complete", file.stem)


def test_an_operator_who_is_disabled_when_it_is_read_ends_a_task_once_enabled(rig: Rig, spec: Spec) -> None:
    held = rig.active(file := spec())
    with leads(rig):
        ask_for_the_end(rig, file.stem)
        entity_disabled(rig, "approver-1", disabled=True)
        try:
            assert rig("operator", "status", file.stem).json["state"] == "active"
        finally:
            entity_disabled(rig, "approver-1", disabled=False)
        rig("operator", "status", file.stem)
        assert not rig.is_live(held.token)


def test_a_lift_that_was_taken_in_holds_whatever_becomes_of_its_author(rig: Rig, spec: Spec) -> None:
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_APPROVER_2_TOKEN": rig.world.operator_2_token.reveal()}
    freeze(rig, "operator", "research-agent", freezes=True)
    rig("operator", "grant", file := spec(), code=3)
    freeze(rig, "approver-2", "Research-Agent", freezes=False)
    held = rig.active(file)
    entity_disabled(rig, "operator-2", disabled=True)
    try:
        assert rig("operator", "status", file.stem).json["state"] == "active" and rig.is_live(held.token)
        assert rig("operator", "freezes").json["freezes"] == []
        rig.granted(other := spec())
    finally:
        entity_disabled(rig, "operator-2", disabled=False)
    for task in (file, other):
        rig("operator", "complete", task.stem)


@pytest.mark.parametrize("missed", ["nothing", "a gap"])
def test_a_freeze_is_never_missed_and_one_whose_document_is_gone_holds_until_it_is_lifted(
    rig: Rig, spec: Spec, missed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator removed it, or restored Vault from a snapshot of before it: neither is an operator's lift."""
    # else a document that is gone counts as one that may still appear for longer than this test takes
    monkeypatch.setattr(index, "APPEARS_WITHIN", timedelta(0))
    rig.active(file := spec())
    name = "RESEARCH-agent"
    freeze(rig, "operator", name, freezes=True)
    freeze(rig, "operator", name, freezes=False)
    rig("operator", "status", file.stem)
    freeze(rig, "operator", name, freezes=True)
    if missed == "a gap":
        os.truncate(rig.world.audit_file, 0)
    assert rig("operator", "status", file.stem, code=None).json["end_reason"] == "frozen"
    rig("operator", "grant", other := spec(), code=3)
    # a document that was written once more is read again
    freeze(rig, "operator", name, freezes=True)
    rig.admin.delete(f"jitvault/metadata/freezes/{rig.entity('operator')}/{Scope(agent=name).key}")
    if missed == "a gap":
        os.truncate(rig.world.audit_file, 0)
    # the first look finds it missing, the next one that it did not appear
    for _ in range(2):
        rig("operator", "grant", other, code=3)
    freeze(rig, "operator", name, freezes=False)
    rig("operator", "grant", other)
    rig("operator", "complete", other.stem, code=None)


@pytest.mark.parametrize("what", ["a freeze", "an end"])
def test_a_document_known_from_its_audit_line_is_read_again_until_the_node_has_it(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """So a node answers that was the active one and does not know yet that another is: docs/vault-facts.md."""
    held = rig.active(file := spec())
    rig("operator", "status", file.stem)
    author = rig.entity("operator" if what == "a freeze" else "approver-1")
    read = Documents.read

    def behind(documents: Documents, path: str) -> Stored | None:
        hidden = path.startswith((f"freezes/{author}/", f"requests/{author}/{file.stem}/end"))
        return None if hidden else read(documents, path)

    with leads(rig):
        with monkeypatch.context() as patched:
            patched.setattr(Documents, "read", behind)
            if what == "a freeze":
                freeze(rig, "operator", "research-agent", freezes=True)
            else:
                ask_for_the_end(rig, file.stem)
            assert rig("operator", "status", file.stem).json["state"] == "active"
        rig("operator", "status", file.stem, code=None)
    assert not rig.is_live(held.token)
    if what == "a freeze":
        freeze(rig, "operator", "research-agent", freezes=False)


def test_without_the_stream_people_and_freezes_are_read_all_the_same(
    rig: Rig, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # else what was listed a moment ago holds for some seconds
    monkeypatch.setattr(listing, "BLIND_FOR", timedelta(0))
    blind = {"JITVAULT_AUDIT_FILE": str(tmp_path / "gone")}
    asked, frozen = spec(), spec()
    held = [rig.active(one) for one in (asked, frozen)]
    with leads(rig):
        ask_for_the_end(rig, asked.stem)
        rig.turn(asked.stem, code=7, extra=blind)
    assert [rig.is_live(one.token) for one in held] == [False, True]
    freeze(rig, "operator", "research-agent", freezes=True)
    rig.turn(frozen.stem, code=7, extra=blind)
    assert not rig.is_live(held[1].token)
    freeze(rig, "operator", "research-agent", freezes=False)
