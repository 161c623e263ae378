"""Due work among several workers: each task is handed to one of them, and nobody waits for another."""

from __future__ import annotations

import pytest
from builders import NOW, change, file_of, lose, make, whole
from ledgers import LedgerPlace, address
from together import child, run_together

from jitvault.domain.lifecycle import State
from jitvault.errors import WrongState
from jitvault.ledger import claims
from jitvault.ledger.database import opened
from jitvault.ledger.ledger import SqlLedger
from jitvault.ports.ledger import Change


def due(ledger: SqlLedger, *names: str) -> None:
    for name in names:
        make(ledger, name)
        change(ledger, Change("noted", fields={"due_at": NOW}), name)


def test_what_one_worker_has_taken_no_other_gets_until_it_is_given_back(ledger: SqlLedger, place: LedgerPlace) -> None:
    due(ledger, "a", "b", "c", "d")
    make(ledger, "later")
    other = SqlLedger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 2) == ["a", "b"]
    assert other.take_due(NOW, 9, besides=["d"]) == ["c"]
    assert ledger.due(NOW) == ["a", "b", "c", "d"]
    ledger.give_back("b")
    ledger.give_back("never taken")
    assert other.take_due(NOW, 9) == ["b", "d"]
    assert ledger.take_due(NOW, 9) == []


def test_a_claim_goes_on_with_what_was_taken_and_frees_it_in_the_end(
    ledger: SqlLedger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(ledger, "a")
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    other = SqlLedger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 1) == ["a"]
    with pytest.raises(WrongState), other.claim("a"):
        pass
    with ledger.claim("a") as claim:
        ledger.apply("a", Change("mine"), claim=claim, at=NOW)
    with other.claim("a") as later:
        assert later > claim


def test_what_was_taken_and_left_lying_is_taken_over(ledger: SqlLedger, place: LedgerPlace) -> None:
    due(ledger, "a")
    other = SqlLedger(opened(address(place), create=False))
    assert ledger.take_due(NOW, 1) == ["a"]
    lose(place)
    assert other.take_due(NOW, 1) == ["a"]
    with other.claim("a") as theirs:
        other.apply("a", Change("theirs"), claim=theirs, at=NOW)
    # it is no claim of ours any more, and is taken anew
    with ledger.claim("a") as mine:
        assert mine > theirs


@pytest.mark.parametrize("state", [State.DENIED, State.PENDING_APPROVAL])
def test_what_is_over_is_not_due(ledger: SqlLedger, state: State) -> None:
    make(ledger, "a", state=state)
    change(ledger, Change("noted", fields={"due_at": NOW}), "a")
    assert bool(ledger.take_due(NOW, 1)) == (state is not State.DENIED)


def test_two_processes_share_what_is_due_and_deliver_each_once(ledger: SqlLedger, place: LedgerPlace) -> None:
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
