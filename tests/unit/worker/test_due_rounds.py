"""Requesters take turns with their due tasks, and nobody who has some waits for more than one round."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jitvault.worker.due_rounds import DueRounds


def taken(due: list[str], rounds: DueRounds, most: int) -> list[str]:
    """Take as the ledger does: each requester's nth task before anybody's next, those who were served last."""
    nth = [due[:n].count(whose) for n, whose in enumerate(due)]
    order = sorted(range(len(due)), key=lambda n: (nth[n], due[n] in rounds.served, n))[:most]
    found = [due[n] for n in order]
    for whose in found:
        due.remove(whose)
    rounds.took(found)
    return found


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 12))
def test_the_last_one_has_a_turn_within_one_round_whatever_the_others_have(counts: list[int], most: int) -> None:
    rounds = DueRounds()
    due = [f"r{n}" for n, count in enumerate(counts) for _ in range(count)]
    taken(due, rounds, most)
    # whoever comes last, with what is due last of all
    due.append("olga")
    for batch in range(len(counts) // most + 2):
        if "olga" in taken(due, rounds, most):
            assert batch * most <= len(counts)
            return
    raise AssertionError(due)


def test_more_requesters_than_are_taken_at_once_have_their_turns_one_after_the_other() -> None:
    rounds = DueRounds()
    due = ["a"] * 9 + ["b"] * 9 + ["c"] * 9
    assert [taken(due, rounds, 1)[0] for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
