"""How long an answer of Vault's counts: for the turn that asked, and as a fact until a line shows a change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.changes import EVERYTHING, Change
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.source import Batch, Position
from jitvault.vault.facts import AGE_S, RECENT_S, Facts

PLACE = "identity/"


class Clock:
    """A monotonic clock that somebody sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Asker:
    """Asks through facts, and tells which question the answer came to."""

    def __init__(self, **how: Any) -> None:
        self.clock = Clock()
        self.facts = Facts(self.clock, **how)
        self.times = 0
        self.offset = 0
        self.facts.begin_at("file", self._position())
        self.pass_s(0.01)

    def ask(self, key: str = "k", own: str = "", places: tuple[str, ...] = ()) -> int:
        return self.facts.of(key, self._answer, own=(own,) if own else (), places=lambda _: places)

    def fact(self, key: str = "k", *, is_new: bool | None = None) -> int:
        """Ask for a fact in a turn for which the stream was read far enough; check whether it was asked for anew."""
        before = self.times
        self.pass_s(0.01)
        with self.facts.turn():
            self.pass_s(0.01)
            self.facts.reached(self.clock.at, ingested=True)
            found = self.ask(key, places=(EVERYTHING, PLACE))
        assert is_new is None or is_new == (self.times > before)
        return found

    def saw(self, *changes: Change, gaps: tuple[str, ...] = ()) -> None:
        self.pass_s(0.01)
        before = self._position()
        self.offset += 100
        self.facts.saw("file", before, Batch((), self._position(), gaps, 1, changes))
        self.pass_s(0.01)

    def pass_s(self, seconds: float) -> None:
        self.clock.at += seconds

    def _position(self, epoch: int = 1) -> Position:
        return Position("somewhere", self.offset, epoch)

    def _answer(self) -> int:
        self.times += 1
        return self.times


@pytest.fixture
def asker() -> Asker:
    return Asker()


def request(place: str = PLACE, of: str = "r") -> Change:
    return Change((place,), of, closing=False)


def response(place: str = PLACE, of: str = "r") -> Change:
    return Change((place,), of, closing=True)


# -- turns --------------------------------------------------------------------------------------------------


def test_outside_of_a_turn_every_question_is_asked(asker: Asker) -> None:
    assert [asker.ask(), asker.ask()] == [1, 2]
    with asker.facts.turn():
        pass
    asker.facts.reached(asker.clock.at, ingested=True)
    assert asker.ask(places=(PLACE,)) == 3
    assert asker.ask(places=(PLACE,)) == 4


def test_a_turn_asks_once_and_goes_by_nothing_from_before_it_began(asker: Asker) -> None:
    with asker.facts.turn():
        assert [asker.ask(), asker.ask(), asker.ask("another")] == [1, 1, 2]
    asker.pass_s(0.1)
    with asker.facts.turn():
        assert [asker.ask(), asker.ask()] == [3, 3]


def test_a_turn_within_a_turn_begins_anew_and_gives_way_to_it_again(asker: Asker) -> None:
    with asker.facts.turn():
        asker.ask()
        asker.pass_s(0.1)
        with asker.facts.turn():
            assert asker.ask("inner") == 2
            assert asker.ask() == 3
        assert asker.ask() == 3
    with pytest.raises(ZeroDivisionError), asker.facts.turn():
        raise ZeroDivisionError
    assert [asker.ask(), asker.ask()] == [4, 5]


def test_a_turn_is_that_of_one_thread(asker: Asker) -> None:
    found: list[int] = []
    with asker.facts.turn():
        asker.ask()
        other = threading.Thread(target=lambda: found.append(asker.ask()))
        other.start()
        other.join()
        assert asker.ask() == 1
    assert found == [2]


def test_no_answer_of_a_turn_counts_for_longer_than_a_second_however_long_the_turn(asker: Asker) -> None:
    with asker.facts.turn():
        assert asker.ask() == 1
        asker.pass_s(RECENT_S - 0.001)
        assert asker.ask() == 1
        asker.pass_s(0.001)
        assert asker.ask() == 2


def test_an_answer_is_as_old_as_its_question(asker: Asker) -> None:
    def slow() -> str:
        asker.pass_s(0.9)
        return "old"

    with asker.facts.turn():
        assert asker.facts.of("k", slow) == "old"
        asker.pass_s(0.2)
        assert asker.facts.of("k", lambda: "new") == "new"


def test_what_failed_is_asked_again_and_what_is_old_is_forgotten(asker: Asker) -> None:
    with asker.facts.turn():
        with pytest.raises(ZeroDivisionError):
            asker.facts.of("k", lambda: 1 // 0)
        assert asker.ask() == 1
        for n in range(50):
            asker.pass_s(RECENT_S)
            asker.ask(f"k{n}")
            asker.facts.wrote(f"here {n}")
            asker.saw(request(f"there {n}", of=str(n)))
    facts, most = asker.facts, AGE_S / RECENT_S + 2
    assert max(len(kept) for kept in (facts._answers, facts._written, facts._changed, facts._open)) <= most


def test_a_count_is_shared_for_a_second(asker: Asker) -> None:
    def count() -> int:
        return asker.facts.recent("count", asker._answer)

    assert [count(), count()] == [1, 1]
    asker.pass_s(RECENT_S - 0.001)
    assert count() == 1
    asker.pass_s(0.001)
    assert count() == 2


# -- own writes ---------------------------------------------------------------------------------------------


def test_what_was_written_is_asked_anew_and_the_rest_is_not(asker: Asker) -> None:
    with asker.facts.turn():
        asker.ask(own="here")
        asker.ask("another", own="there")
        asker.pass_s(0.1)
        asker.facts.wrote("here", "and here")
        asker.pass_s(0.1)
        assert [asker.ask("another", own="there"), asker.ask(own="here"), asker.ask(own="here")] == [2, 3, 3]


def test_an_answer_that_was_under_way_during_a_write_serves_nobody_after_it(asker: Asker) -> None:
    def overtaken() -> str:
        asker.pass_s(0.1)
        asker.facts.wrote("here")
        return "from before the write"

    with asker.facts.turn():
        assert asker.facts.of("k", overtaken, own=("here",)) == "from before the write"
        assert asker.facts.of("k", lambda: "after it", own=("here",)) == "after it"


# -- what makes a fact count --------------------------------------------------------------------------------


def test_a_fact_counts_for_turns_for_which_the_stream_was_read_far_enough_until_it_is_old(asker: Asker) -> None:
    asker.fact(is_new=True)
    began = asker.clock.at
    while asker.clock.at + 0.02 < began + AGE_S - 0.03:
        asker.fact(is_new=False)
        asker.pass_s(1)
    asker.clock.at = began + AGE_S
    asker.fact(is_new=True)


def test_what_is_no_fact_counts_for_no_other_turn(asker: Asker) -> None:
    for n in (1, 2):
        asker.pass_s(0.1)
        with asker.facts.turn():
            asker.facts.reached(asker.clock.at, ingested=True)
            assert asker.ask() == n


def test_a_canary_of_before_a_turns_trigger_shows_it_nothing(asker: Asker) -> None:
    asker.fact()
    asker.facts.reached(asker.clock.at, ingested=True)
    asker.pass_s(0.01)
    with asker.facts.turn():
        assert not asker.facts.is_covered and not asker.facts.is_ingested(3600)
        assert asker.ask(places=(PLACE,)) == 2


def test_a_canary_of_before_another_ones_changes_nothing(asker: Asker) -> None:
    asker.fact()
    asker.pass_s(0.01)
    with asker.facts.turn():
        asker.facts.reached(asker.clock.at, ingested=True)
        asker.facts.reached(asker.clock.at - 1, ingested=True)
        assert asker.facts.is_covered and asker.facts.is_ingested(0.1)


def test_a_turn_that_was_due_goes_by_what_was_true_then(asker: Asker) -> None:
    asker.fact()
    asker.facts.reached(asker.clock.at, ingested=True)
    asker.pass_s(0.2)
    with asker.facts.turn():
        with asker.facts.due(0.1):
            assert asker.facts.is_due and not asker.facts.is_covered
        with asker.facts.due(0.3):
            assert asker.facts.is_covered and asker.ask(places=(PLACE,)) == 1
            # what is no fact does not count for that
            asker.ask("other")
        assert not asker.facts.is_due and not asker.facts.is_covered
    asker.pass_s(RECENT_S)
    with asker.facts.turn(), asker.facts.due(3600):
        assert not asker.facts.is_covered


def test_what_was_only_looked_through_is_not_in_the_ledger(asker: Asker) -> None:
    with asker.facts.turn():
        asker.facts.reached(asker.clock.at, ingested=False)
        assert asker.facts.is_covered and not asker.facts.is_ingested(1)
        asker.facts.reached(asker.clock.at, ingested=True)
        assert asker.facts.is_ingested(0)
        asker.pass_s(0.5)
        assert asker.facts.is_ingested(0.5) and not asker.facts.is_ingested(0.4)


def test_nothing_is_kept_where_the_stream_does_not_show_every_change() -> None:
    asker = Asker(may_keep=lambda: False)
    asker.fact(is_new=True)
    asker.fact(is_new=True)


# -- what ends one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [PLACE, EVERYTHING])
def test_a_write_makes_a_fact_invalid_from_its_request_until_a_read_after_its_response(
    asker: Asker, place: str
) -> None:
    asker.fact()
    asker.saw(request(place))
    asker.fact(is_new=True)
    asker.fact(is_new=True)
    asker.saw(response(place))
    # this read began before the response, so it may show what was before
    asker.fact(is_new=True)
    asker.fact(is_new=False)


def test_a_response_alone_shows_a_change(asker: Asker) -> None:
    asker.fact()
    asker.saw(response())
    asker.fact(is_new=True)
    asker.fact(is_new=False)


def test_two_writes_of_one_place_have_to_be_answered_both(asker: Asker) -> None:
    asker.saw(request(of="r1"), request(of="r2"), response(of="r1"))
    asker.fact()
    asker.fact(is_new=True)
    asker.saw(response(of="r2"))
    asker.fact(is_new=True)
    asker.fact(is_new=False)


def test_a_write_without_a_response_counts_as_over_after_the_longest_age(asker: Asker) -> None:
    asker.saw(request())
    asker.fact()
    asker.fact(is_new=True)
    asker.pass_s(AGE_S)
    asker.fact(is_new=True)
    asker.fact(is_new=False)


def test_a_write_elsewhere_changes_nothing(asker: Asker) -> None:
    asker.fact()
    asker.saw(request("sys/policies/"))
    asker.fact(is_new=False)


def _breaks(asker: Asker) -> None:
    asker.saw(gaps=("a line is missing",))


def _begins_elsewhere(asker: Asker) -> None:
    asker.facts.begin_at("file", Position("", asker.offset + 1, 2))


def _lost_stream(asker: Asker) -> None:
    asker.facts.lost_stream()


def _lost_server(asker: Asker) -> None:
    asker.facts.drop()


def _another_node(asker: Asker) -> None:
    asker.facts.asks("http://a")
    asker.fact()
    asker.facts.asks("http://a")
    asker.fact(is_new=False)
    asker.facts.asks("http://b")


@pytest.mark.parametrize(
    "happens",
    [
        *(_breaks, _begins_elsewhere, _lost_stream, _lost_server, _another_node),
    ],
)
def test_everything_is_dropped_where_lines_may_be_missing(asker: Asker, happens: Callable[[Asker], None]) -> None:
    asker.fact()
    asker.pass_s(0.01)
    happens(asker)
    asker.fact(is_new=True)
    asker.fact(is_new=False)


def test_lines_that_are_read_twice_drop_nothing(asker: Asker) -> None:
    before = asker.facts.read_to("file")
    asker.saw(request(), response())
    read_to = asker.facts.read_to("file")
    asker.fact()
    assert before is not None
    asker.facts.saw("file", before, Batch((), Position("", 50, 1), ("a line is missing",), 2, (request(), response())))
    assert asker.facts.read_to("file") == read_to
    asker.fact(is_new=False)


def test_lines_that_do_not_follow_say_nothing(asker: Asker) -> None:
    """Whoever writes to the ledger's database can say where the ledger has read to, and not what a process has read."""
    names = ("line", "request_id", "path", "actor", "op", "remote", "error", "token", "alias")
    values: dict[str, Any] = {**dict.fromkeys(names, ""), "subject": "mine", "closing": True, "failed": False}
    at = {"place": Place("file", 1, 200), "at": datetime.now(UTC)}
    batch = Batch((Observation(**values, **at, kind=Kind.CANARY, detail={}),), Position("", 300, 1), (), 1)
    before = asker.facts.read_to("file")
    assert before is not None
    for elsewhere in (replace(before, offset=100), replace(before, identity="elsewhere"), replace(before, epoch=2)):
        asker.facts.saw("file", elsewhere, batch)
    assert not asker.facts.has_read("mine") and asker.facts.read_to("file") == before
    asker.facts.saw("file", before, batch)
    assert asker.facts.has_read("mine")
    asker.pass_s(AGE_S + RECENT_S)
    asker.facts.saw("file", batch.position, Batch((), Position("", 400, 1), (), 1))
    assert not asker.facts.has_read("mine")


# -- what a canary is worth ---------------------------------------------------------------------------------


def test_a_canary_is_worth_it_for_a_turn_that_can_spare_several_reads(asker: Asker) -> None:
    for key in ("a", "b", "c"):
        asker.fact(key)
    assert not asker.facts.needs_canary
    asker.pass_s(0.01)
    with asker.facts.turn():
        assert not asker.facts.needs_canary
    asker.fact("d")
    asker.pass_s(0.01)
    with asker.facts.turn():
        assert asker.facts.needs_canary
        asker.facts.is_behind()
        assert not asker.facts.needs_canary
        asker.facts.reached(asker.clock.at - 1, ingested=True)
        assert asker.facts.needs_canary
        asker.facts.reached(asker.clock.at, ingested=False)
        assert not asker.facts.needs_canary
    asker.saw(response())
    with asker.facts.turn():
        assert not asker.facts.needs_canary


# -- the law ------------------------------------------------------------------------------------------------

_STEPS = st.lists(st.sampled_from(["write", "request", "act", "response", "fact", "read lines", "pass"]), max_size=60)


@given(_STEPS)
def test_no_turn_goes_by_what_a_write_before_it_had_changed(steps: list[str]) -> None:
    asker = Asker()
    value = 0
    lines: list[Change] = []
    is_open = False

    def read_lines() -> None:
        asker.saw(*lines)
        lines.clear()

    for step in steps:
        asker.pass_s(0.001)
        if step == "request" and not is_open:
            lines.append(request())
            is_open = True
        elif step in ("act", "write") and is_open:
            value += 1
        elif step == "response" and is_open:
            lines.append(response())
            is_open = False
        elif step == "read lines":
            read_lines()
        elif step == "fact":
            with asker.facts.turn():
                # a canary that was sent now: whatever was answered before it has its line before it
                sent = asker.clock.at
                read_lines()
                asker.facts.reached(sent, ingested=False)
                now = value
                found = asker.facts.of("v", lambda now=now: now, places=lambda _: (PLACE,))  # type: ignore[misc]
                assert found == value


# -- lines of what a turn is for ------------------------------------------------------------------------------


def test_a_turn_for_lines_that_were_just_read_goes_by_a_canary_of_the_last_second(asker: Asker) -> None:
    end, grant = "jitvault/requests/e/t/end", "jitvault/requests/e/t/grant"
    known = asker.fact()
    asker.saw(response(end))
    with asker.facts.turn(end):
        assert asker.ask(places=(EVERYTHING, PLACE)) == known
        assert not asker.facts.is_due and not asker.facts.needs_canary
    with asker.facts.turn(end, grant):
        # the other one may have been written when nobody knows what was true
        assert asker.ask(places=(EVERYTHING, PLACE)) != known


def test_a_turn_for_a_line_that_came_late_goes_by_no_fact(asker: Asker) -> None:
    """A stream that is held back shows a request after a freeze was written, whose line comes later still."""
    known = asker.fact()
    asker.pass_s(RECENT_S)
    asker.saw(response("jitvault/requests/e/t/grant"))
    with asker.facts.turn("jitvault/requests/e/t/grant"):
        assert asker.ask(places=(EVERYTHING, PLACE)) != known


@pytest.mark.parametrize("spoils", ["a change before it", "a gap"])
def test_a_turn_for_a_line_goes_by_no_fact_that_the_lines_before_it_changed(asker: Asker, spoils: str) -> None:
    known = asker.fact()
    if spoils == "a change before it":
        asker.saw(response(), response("jitvault/requests/e/t/end", of="s"))
    else:
        gaps = ("a line is missing",) if spoils == "a gap" else ()
        asker.saw(response("jitvault/requests/e/t/end"), gaps=gaps)
    with asker.facts.turn("jitvault/requests/e/t/end"):
        assert asker.ask(places=(EVERYTHING, PLACE)) != known


# -- own writes -----------------------------------------------------------------------------------------------


def own(of: str, *, closing: bool, op: str = "op-1") -> Change:
    return Change(("doc",), of, closing, op)


def known_or_asked(asker: Asker) -> int:
    asker.pass_s(0.01)
    with asker.facts.turn():
        asker.pass_s(0.01)
        asker.facts.reached(asker.clock.at, ingested=True)
        return asker.ask("doc", own="doc", places=(EVERYTHING, "doc"))


def write(asker: Asker, answer: object = "written") -> None:
    """Write as the worker's client does."""
    with asker.facts.own_write("op-1", "doc") as know:
        asker.pass_s(0.01)
        asker.facts.wrote("doc")
        know("doc", answer, ("doc",), (EVERYTHING, "doc"))


def test_what_was_written_is_known_before_and_after_its_own_line(asker: Asker) -> None:
    write(asker)
    assert known_or_asked(asker) == "written"  # type: ignore[comparison-overlap]
    asker.saw(own("r", closing=False), own("r", closing=True))
    assert known_or_asked(asker) == "written"  # type: ignore[comparison-overlap]
    asker.pass_s(AGE_S)
    assert known_or_asked(asker) == 1


def test_a_line_that_is_read_before_the_answer_changes_nothing_either(asker: Asker) -> None:
    with asker.facts.own_write("op-1", "doc") as know:
        asker.saw(own("r", closing=False), own("r", closing=True))
        asker.facts.wrote("doc")
        know("doc", "written", ("doc",), (EVERYTHING, "doc"))
    assert known_or_asked(asker) == "written"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("op", ["", "op-2", "op-1"])
def test_what_somebody_else_writes_over_it_is_read_whatever_operation_id_it_has(asker: Asker, op: str) -> None:
    write(asker)
    asker.saw(own("r", closing=False), own("r", closing=True))
    asker.saw(own("thief", closing=False, op=op), own("thief", closing=True, op=op))
    assert known_or_asked(asker) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_what_somebody_wrote_at_the_same_time_is_read(asker: Asker, is_first: bool) -> None:
    theirs, ours = own("thief", closing=True, op="op-2"), own("r", closing=True)
    with asker.facts.own_write("op-1", "doc") as know:
        asker.saw(*((theirs, ours) if is_first else (ours, theirs)))
        asker.facts.wrote("doc")
        know("doc", "written", ("doc",), (EVERYTHING, "doc"))
    assert known_or_asked(asker) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_own_writes_at_once_neither_is_known(asker: Asker, is_first: bool) -> None:
    with ExitStack() as writes:
        begin = [asker.facts.own_write(op, "doc") for op in ("op-1", "op-2")]
        knows = [(asker.pass_s(0.01), writes.enter_context(each))[1] for each in begin]
        for know in knows if is_first else reversed(knows):
            asker.pass_s(0.01)
            asker.facts.wrote("doc")
            know("doc", "written", ("doc",), (EVERYTHING, "doc"))
    assert known_or_asked(asker) == 1


def test_an_own_writes_operation_id_hides_no_write_elsewhere(asker: Asker) -> None:
    known = asker.fact()
    with asker.facts.own_write("op-1", "doc"):
        asker.saw(*(replace(response(), op="op-1", closing=closing) for closing in (False, True)))
        asker.facts.reached(asker.facts.now(), ingested=False)
        asker.ask(places=(EVERYTHING, PLACE))
    assert asker.fact() != known


def test_a_read_that_a_write_overtook_does_not_hide_it(asker: Asker) -> None:
    with asker.facts.own_write("op-1", "doc") as know:
        asker.pass_s(0.01)
        # another thread's question, on its way while the document is written
        with asker.facts.turn():
            assert asker.ask("doc", own="doc", places=(EVERYTHING, "doc")) == 1
        asker.pass_s(0.01)
        asker.facts.wrote("doc")
        know("other", "written", ("doc",), (EVERYTHING, "doc"))
    assert known_or_asked(asker) == 2


def test_a_write_whose_outcome_is_unknown_counts_as_anybodys(asker: Asker) -> None:
    known_or_asked(asker)
    with pytest.raises(RuntimeError), asker.facts.own_write("op-1", "doc"):
        raise RuntimeError
    before = known_or_asked(asker)
    asker.saw(own("r", closing=False), own("r", closing=True))
    assert known_or_asked(asker) != before
