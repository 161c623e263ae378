"""Due work among several workers: each task is handed to one of them, and nobody waits for another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import NOW, as_is, body, change, file_of, lose, make, read, revision, seen, task, whole
from ledgers import LedgerPlace, address
from sqlalchemy import Connection, text
from together import child, run_together

from jitvault.audit.observation import Kind
from jitvault.errors import WrongState
from jitvault.kill_switch import claimed as claimed_together
from jitvault.ledger import claims
from jitvault.ledger.kept_tasks import LATE
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, Turn
from jitvault.ledger.storage.database import opened
from jitvault.model.states import State


def due(ledger: Ledger, *names: str) -> None:
    for name in names:
        make(ledger, name)
        change(ledger, Change("noted", fields={"due_at": NOW}), name)


def test_what_one_worker_has_taken_no_other_gets_until_it_is_given_back(ledger: Ledger, place: LedgerPlace) -> None:
    due(ledger, "a", "b", "c", "d")
    make(ledger, "later")
    other = Ledger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 2) == ["a", "b"]
    assert other.take_due(NOW, 9, besides=["d"]) == ["c"]
    ledger.give_back("b")
    ledger.give_back("never taken")
    assert other.take_due(NOW, 9) == ["b", "d"]
    assert ledger.take_due(NOW, 9) == []


def test_a_kept_task_is_left_to_its_keeper_until_it_is_late(ledger: Ledger, place: LedgerPlace) -> None:
    due(ledger, "kept", "other")
    other = Ledger(opened(address(place), create=False))
    for name in ("kept", "other"):
        with ledger.claim(name):
            if name == "kept":
                ledger.stay(name)
    assert other.take_due(NOW, 9) == ["other"]
    assert other.take_due(NOW + LATE - timedelta(seconds=1), 9) == []
    assert other.take_due(NOW + LATE, 9) == ["kept"]
    other.give_all_back()
    assert ledger.take_due(NOW, 9) == ["kept", "other"]
    ledger.give_back("other")
    # its next turn is one after which nobody keeps it
    with ledger.claim("kept"):
        pass
    assert other.take_due(NOW, 9) == ["kept", "other"]


def test_many_tasks_are_claimed_at_once_and_held_until_each_has_its_turn(ledger: Ledger, place: LedgerPlace) -> None:
    due(ledger, "a", "b", "c")
    other = Ledger(opened(address(place), create=False))
    with other.claim("b"):
        assert ledger.take_all(["c", "b", "a"]) == ["c", "a"]
    soon = "UPDATE tasks SET claim_until = claim_until - 29"
    ledger._db.write(lambda connection: connection.execute(text(soon)))
    with ledger.claim("a"):
        ledger.extend_taken()
        # only of the one that waits
        ledger._db.write(lambda connection: connection.execute(text("UPDATE tasks SET claim_until = claim_until - 2")))
        assert other.take("a") is Turn.OURS and other.take("c") is Turn.ANOTHERS
    ledger.give_back("c")
    assert other.take("c") is Turn.OURS


def test_a_claim_that_was_given_back_is_not_extended(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(ledger, "a")
    other = Ledger(opened(address(place), create=False))
    assert ledger.take_all(["a"]) == ["a"]
    write = ledger._db.write

    def write_late(unit: Callable[[Connection], Any]) -> Any:
        # a thread continues the claim, and gives it back before the extension is written
        monkeypatch.setattr(ledger._db, "write", write)
        with ledger.claim("a", partly=True):
            pass
        return write(unit)

    monkeypatch.setattr(ledger._db, "write", write_late)
    ledger.extend_taken()
    assert other.take("a") is Turn.OURS


def test_claims_of_many_are_extended_only_while_one_after_the_other_is_continued(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Vault does not answer a kill switch, another one on another host has the tasks soon."""
    monkeypatch.setattr(claimed_together, "_EXTEND_EVERY_S", 0.2)
    names = [f"task-{n}" for n in range(10)]
    due(ledger, *names)
    other = Ledger(opened(address(place), create=False))
    soon = "UPDATE tasks SET claim_until = claim_until - 29.5"
    with claimed_together.claimed(ledger, names) as first:
        ledger._db.write(lambda connection: connection.execute(text(soon)))
        for name in first[:6]:
            with ledger.claim(name):
                pass
        time.sleep(1)
        assert other.take("task-8") is Turn.ANOTHERS
        ledger._db.write(lambda connection: connection.execute(text(soon)))
        for name in first[6:8]:
            with ledger.claim(name):
                pass
        time.sleep(1)
        assert other.take("task-8") is Turn.OURS


def test_a_process_that_ends_keeps_nothing(ledger: Ledger, place: LedgerPlace) -> None:
    due(ledger, "a")
    other = Ledger(opened(address(place), create=False))
    with ledger.claim("a"):
        ledger.stay("a")
    other.give_all_back()
    assert other.take_due(NOW, 9) == []
    ledger.give_all_back()
    assert other.take_due(NOW, 9) == ["a"]


def test_requesters_take_turns_and_those_who_were_served_come_last(ledger: Ledger) -> None:
    for name in ("a-1", "a-2", "a-3", "b-1", "c-1"):
        requester, at = name[0], NOW + timedelta(seconds=ord(name[0]))
        asked = replace(task(name, State.APPROVED), requester=requester, due_at=at)
        ledger.create(asked, Change("submitted", body("submitted"), rows=(revision(name),)), at=NOW)
    later = NOW + timedelta(hours=1)
    assert ledger.take_due(later, 2) == ["a-1", "b-1"]
    ledger.give_back("b-1")
    assert ledger.take_due(later, 9, served=["a", "b"]) == ["c-1", "a-2", "b-1", "a-3"]


def test_a_claim_goes_on_with_what_was_taken_and_frees_it_in_the_end(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(ledger, "a")
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    other = Ledger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 1) == ["a"]
    with pytest.raises(WrongState), other.claim("a"):
        pass
    with ledger.claim("a") as claim:
        ledger.apply("a", Change("mine"), claim=claim, at=NOW)
    with other.claim("a") as later:
        assert later > claim


def test_a_change_gives_the_claim_back_and_who_goes_on_sees_whether_another_took_it(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(ledger, "a")
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    other = Ledger(opened(address(place), create=False))
    with ledger.claim("a") as claim:
        ledger.apply("a", Change("mine", gives_back=True), claim=claim, at=NOW)
        ledger.check_claim("a", claim)
        with other.claim("a") as later:
            assert later > claim
        with pytest.raises(WrongState):
            ledger.check_claim("a", claim)
    assert ledger.take("a", since=claim) is Turn.OVER


def test_what_was_taken_and_left_lying_is_taken_over(ledger: Ledger, place: LedgerPlace) -> None:
    due(ledger, "a")
    other = Ledger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 1) == ["a"]
    lose(place)
    assert other.take_due(NOW, 1) == ["a"]
    with other.claim("a") as theirs:
        other.apply("a", Change("theirs"), claim=theirs, at=NOW)
    # it is no claim of ours any more, and is taken anew
    with ledger.claim("a") as mine:
        assert mine > theirs


def test_what_waited_long_for_its_turn_and_was_taken_over_is_not_waited_for(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(ledger, "a", "b")
    other = Ledger(opened(address(place), create=False))
    monkeypatch.setattr(claims, "_FRESH_S", 0.0)
    assert ledger.take_due(NOW, 9) == ["a", "b"]
    as_is(place, "UPDATE tasks SET claim_until = 1 WHERE task_id = 'a'")
    assert other.take_due(NOW, 9) == ["a"]
    assert [ledger.take("a"), ledger.take("b")] == [Turn.ANOTHERS, Turn.OURS]


def test_a_turn_that_is_anothers_is_not_waited_for_and_one_that_another_has_had_is_over(
    ledger: Ledger, place: LedgerPlace
) -> None:
    make(ledger, "a")
    other = Ledger(opened(address(place), create=False))
    (before,) = ledger.newest_claims(["a", "unknown"]).values()
    assert ledger.take("unknown") is Turn.OURS
    assert ledger.take("a", since=before) is Turn.OURS
    assert ledger.take("a", since=before) is Turn.OURS, "in whichever thread it was taken"
    assert other.take("a", since=before) is Turn.ANOTHERS
    with ledger.claim("a"):
        assert other.take("a", since=before) is Turn.ANOTHERS
    assert other.take("a", since=before) is Turn.OVER
    # what became known later, or has to be done in any case
    assert other.take("a", since=before + 1) is Turn.OURS
    other.give_all_back()
    assert ledger.take("a") is Turn.OURS


def test_a_turn_is_not_over_that_failed_was_given_back_or_meant_for_a_part(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger, "a")
    other = Ledger(opened(address(place), create=False))

    def fails() -> None:
        with pytest.raises(ValueError, match="oops"), ledger.claim("a"):
            raise ValueError("oops")

    def gives_back() -> None:
        assert ledger.take("a") is Turn.OURS
        ledger.give_back("a")

    def does_a_part() -> None:
        with ledger.claim("a", partly=True):
            pass

    def dies() -> None:
        assert ledger.take("a") is Turn.OURS
        lose(place)

    for happens in (fails, gives_back, does_a_part, dies):
        before = other.newest_claims(["a"])["a"]
        happens()
        assert other.take("a", since=before) is Turn.OURS, happens
        other.give_back("a")


def test_a_part_is_no_whole_because_another_thread_waits_for_the_task(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(ledger, "a")
    other = Ledger(opened(address(place), create=False))
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    before = other.newest_claims(["a"])["a"]
    with ledger.claim("a", partly=True), pytest.raises(WrongState), ledger.claim("a"):
        pass
    assert other.take("a", since=before) is Turn.OURS


def test_a_document_is_entered_with_the_newest_claim_of_its_task(ledger: Ledger) -> None:
    make(ledger, "a")
    paths = ["requests/e-1/a/end", "decisions/e-2/a", "requests/e-1/new/submit", "freezes/e-3/all"]

    def written(n: int) -> list[int | None]:
        read(ledger, [seen(n + m, Kind.WRITTEN, path) for m, path in enumerate(paths)])
        return [one.claim for one in ledger.written_documents(since=NOW)][-len(paths) :]

    claim = ledger.newest_claims(["a"])["a"]
    assert written(10) == [claim, claim, 0, None]
    change(ledger, Change("noted"), "a")
    assert written(20) == [claim + 1, claim + 1, 0, None]


def test_those_that_hold_access_can_be_taken_alone(ledger: Ledger) -> None:
    due(ledger, "a", "b")
    change(ledger, Change("issuing", state=State.ISSUING), "b")
    assert ledger.take_due(NOW, 9, only_held=True) == ["b"]
    assert ledger.take_due(NOW, 9) == ["a"]


@pytest.mark.parametrize("state", [State.DENIED, State.PENDING_APPROVAL])
def test_what_is_over_is_not_due(ledger: Ledger, state: State) -> None:
    make(ledger, "a", state=state)
    change(ledger, Change("noted", fields={"due_at": NOW}), "a")
    assert bool(ledger.take_due(NOW, 1)) == (state is not State.DENIED)


def test_two_processes_share_what_is_due_and_deliver_each_once(ledger: Ledger, place: LedgerPlace) -> None:
    names = [f"t-{n:02}" for n in range(40)]
    due(ledger, *names)
    code = (
        "taken = []\n"
        "while names := ledger.take_due(NOW, 3):\n"
        "    for name in names:\n"
        "        with ledger.claim(name) as claim:\n"
        "            ledger.apply(name, Change('delivered', fields={'due_at': None}), claim=claim, at=NOW)\n"
        "        taken.append(name)\n"
        "print(*taken)\n"
    )
    shares = [said.split() for said in run_together(child(code, place), child(code, place))]
    assert sorted(shares[0] + shares[1]) == names
    for name in names:
        assert [event.kind for event in file_of(ledger, name).events].count("delivered") == 1
        assert whole(ledger, name)
