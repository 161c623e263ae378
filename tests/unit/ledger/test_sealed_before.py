"""What the ledger says of tasks whose published document is to be removed."""

from __future__ import annotations

from datetime import timedelta

from builders import NOW, change, make, operation

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, OpState
from jitvault.model.states import State

SECOND = timedelta(seconds=1)
TO_SEALED = (State.ISSUING, State.ENDING, State.CONFIRMED, State.SEALED)


def sealed(ledger: Ledger, name: str) -> None:
    make(ledger, name)
    for state in TO_SEALED:
        change(ledger, Change("sealed" if state is State.SEALED else "moved", state=state), name)


def test_those_that_were_sealed_earlier_than_a_time_with_their_requester(ledger: Ledger) -> None:
    sealed(ledger, "t-1")
    make(ledger, "t-open")
    names = ["t-1", "t-open", "t-unknown"]
    assert ledger.sealed_before(names, NOW + SECOND) == {"t-1": "e-req"}
    assert ledger.sealed_before(names, NOW) == {}, "at that very moment is not earlier"
    assert ledger.sealed_before(names, NOW - SECOND) == {}
    assert ledger.sealed_before(["t-open"], NOW + SECOND) == {} == ledger.sealed_before([], NOW + SECOND)


def test_what_happens_after_a_seal_does_not_make_it_younger_and_nothing_else_counts_as_one(ledger: Ledger) -> None:
    sealed(ledger, "t-1")
    with ledger.claim("t-1") as claim:
        ledger.apply("t-1", Change("judged"), claim=claim, at=NOW + 9 * SECOND)
    # a task that says "sealed" in an event and is not
    make(ledger, "t-2")
    change(ledger, Change("sealed"), "t-2")
    assert ledger.sealed_before(["t-1", "t-2"], NOW + SECOND) == {"t-1": "e-req"}


def test_more_names_than_one_query_takes(ledger: Ledger) -> None:
    sealed(ledger, "t-1")
    names = [f"n-{n}" for n in range(1200)]
    assert ledger.sealed_before([*names, "t-1"], NOW + SECOND) == {"t-1": "e-req"}


def test_open_acts_are_those_of_no_task_whose_outcome_is_not_known(ledger: Ledger) -> None:
    make(ledger)
    acts = {
        state: operation(
            f"op-{state}", state, task_id=None, kind="remove_published", subject="tasks/t-1", answered_at=None
        )
        for state in OpState
    }
    other = operation("op-other", OpState.INTENDED, task_id=None, kind="revoke_role")
    of_a_task = operation("op-task", OpState.INTENDED, kind="remove_published")
    ledger.keep(operations=[*acts.values(), other, of_a_task], at=NOW)
    assert {op.op_id for op in ledger.open_acts("remove_published")} == {"op-intended", "op-unknown"}
