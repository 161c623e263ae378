"""The audit record as a whole: how far each source was read, whose lines count, what is missing, and what froze all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    LEASE,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    WORKER,
    as_is,
    batch,
    change,
    file_of,
    grant,
    issued,
    keep_canary,
    lose,
    make,
    operation,
    position,
    read,
    seen,
)
from ledgers import LedgerPlace, address

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.source import Position
from jitvault.audit.trail import Canary
from jitvault.errors import WrongState
from jitvault.ledger import claims
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, GapKind, OpState
from jitvault.ledger.storage.database import opened
from jitvault.ledger.stream.model import Freeze, Gap, SourceReading

SECOND = timedelta(seconds=1)


# -- sources ----------------------------------------------------------------------------------------------


def test_a_source_starts_once(ledger: Ledger) -> None:
    ledger.start_source("audit", Position("1:2", 50, 1))
    ledger.start_source("audit", Position("3:4", 99, 7))
    assert position(ledger) == Position("1:2", 50, 1)


def test_a_source_does_not_count_until_somebody_vouches_for_it(ledger: Ledger) -> None:
    for name in ("audit", "node-2"):
        ledger.start_source(name, Position("1:2", 0, 1))
    assert ledger.readings() == {
        name: SourceReading(name, Position("1:2", 0, 1), vouched=False, read_at=None) for name in ("audit", "node-2")
    }
    with ledger.claim_source("audit") as claim:
        ledger.trust_source("audit", claim=claim)
    assert {name: reading.vouched for name, reading in ledger.readings().items()} == {"audit": True, "node-2": False}
    # nor does what is known begin anew
    ledger.start_source("audit", Position("3:4", 99, 7))
    assert ledger.readings()["audit"].vouched


def test_reading_a_source_says_how_far_and_when_and_vouches_for_nothing(ledger: Ledger) -> None:
    ledger.start_source("node-2", Position("3:4", 0, 1))
    read(ledger, [seen(1, Kind.OWN)], at=NOW + SECOND)
    assert ledger.readings()["audit"] == SourceReading(
        "audit", Position("1:2", 200, 1), vouched=False, read_at=NOW + SECOND
    )
    assert ledger.readings()["node-2"] == SourceReading("node-2", Position("3:4", 0, 1), vouched=False, read_at=None)


def test_what_somebody_vouched_for_stays_so_when_it_is_read(ledger: Ledger) -> None:
    ledger.start_source("audit", Position("1:2", 0, 1))
    with ledger.claim_source("audit") as claim:
        ledger.trust_source("audit", claim=claim)
        ledger.observe("audit", batch([], offset=50), after=position(ledger), at=NOW)
    assert ledger.readings()["audit"].vouched


def test_lines_and_position_are_committed_together(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.USED, TOKEN, actor=TOKEN)])
    assert position(ledger) == Position("1:2", 200, 1)
    # a batch of which one line cannot be written moves nothing on
    bad = [seen(2, Kind.USED, TOKEN, actor=TOKEN), seen(3, Kind.USED, detail={"x": object()})]
    before = file_of(ledger), ledger.readings()
    with pytest.raises(Exception, match="unsupported"):
        read(ledger, bad, gaps=("cut off",), at=NOW + SECOND)
    assert (file_of(ledger), ledger.readings()) == before
    assert as_is(place, "SELECT count(*) FROM observations") == [(1,)]
    assert ledger.gaps() == []


def test_a_stale_claim_of_a_source_writes_nothing(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    ledger.start_source("audit", Position("1:2", 0, 1))
    before = ledger.readings()
    with ledger.claim_source("audit") as old:
        lose(place, "audit_sources")
        with ledger.claim_source("audit"):
            late = batch([seen(1, Kind.USED, TOKEN, actor=TOKEN)], gaps=("cut off",))
            with pytest.raises(WrongState, match="another process reads audit source audit"):
                # nor does who read from elsewhere
                ledger.observe("audit", late, after=Position("1:2", 1, 1), at=NOW)
            with pytest.raises(WrongState, match="another process reads audit source audit"):
                ledger.trust_source("audit", claim=old)
    assert ledger.readings() == before
    assert ledger.gaps() == []
    assert as_is(place, "SELECT count(*) FROM observations") == [(0,)]


def test_of_two_that_read_the_same_at_once_one_enters_it_and_the_other_goes_on_from_there(ledger: Ledger) -> None:
    issued(ledger)
    ledger.start_source("audit", start := Position("1:2", 0, 1))
    first, second = batch([seen(1, Kind.USED, TOKEN, actor=TOKEN)]), batch([seen(2, Kind.USED, TOKEN, actor=TOKEN)])
    ledger.observe("audit", first, after=start, at=NOW)
    before = file_of(ledger), ledger.readings()
    with pytest.raises(WrongState, match="another process reads"):
        ledger.observe("audit", second, after=start, at=NOW)
    assert (file_of(ledger), ledger.readings()) == before
    ledger.observe("audit", second, after=first.position, at=NOW)
    assert position(ledger) == second.position


def test_the_claim_of_another_source_is_none_of_this_one(ledger: Ledger) -> None:
    for name in ("audit", "node-2"):
        ledger.start_source(name, Position("1:2", 0, 1))
    with ledger.claim_source("audit"):
        pass
    with ledger.claim_source("audit") as claim, ledger.claim_source("node-2"):
        for name in ("node-2", "no-such-source"):
            with pytest.raises(WrongState):
                ledger.trust_source(name, claim=claim)
    assert not any(reading.vouched for reading in ledger.readings().values())


# -- gaps -------------------------------------------------------------------------------------------------


def test_a_gap_is_kept(ledger: Ledger) -> None:
    read(ledger, [], gaps=("the file was cut", "the file was replaced"), epoch=2)
    expected = [Gap("audit", 2, GapKind.OTHER, "the file was cut; the file was replaced", NOW)]
    assert ledger.gaps() == expected
    read(ledger, [], epoch=2)
    assert ledger.gaps() == expected


def test_gaps_are_kept_for_each_stretch_and_the_newest_comes_first(ledger: Ledger) -> None:
    assert ledger.gaps() == []
    read(ledger, [], gaps=("one",), epoch=2)
    read(ledger, [], gaps=("three",), epoch=2, source="node-2", at=NOW + 2 * SECOND)
    read(ledger, [], gaps=("two",), epoch=3, at=NOW + SECOND)
    # told again it is the same gap
    read(ledger, [], gaps=("again",), epoch=3, at=NOW + 3 * SECOND)
    assert ledger.gaps() == [
        Gap("node-2", 2, GapKind.OTHER, "three", NOW + 2 * SECOND),
        Gap("audit", 3, GapKind.OTHER, "two", NOW + SECOND),
        Gap("audit", 2, GapKind.OTHER, "one", NOW),
    ]


def test_what_a_gap_says_is_cut_off_after_500_characters(ledger: Ledger) -> None:
    read(ledger, [], gaps=("x" * 300, "y" * 300), epoch=2)
    assert ledger.gaps()[0].what == "x" * 300 + "; " + "y" * 198


def test_breaking_the_stretches_begins_a_new_one_in_every_source(ledger: Ledger) -> None:
    read(ledger, [seen(1, Kind.OWN)])
    read(ledger, [], source="node-2", offset=70, epoch=5)
    with ledger.claim_source("node-2") as claim:
        ledger.trust_source("node-2", claim=claim)
    ledger.start_segments("made anew", NOW + SECOND)
    assert (position(ledger), position(ledger, "node-2")) == (Position("1:2", 200, 2), Position("1:2", 70, 6))
    assert ledger.gaps() == [
        Gap("audit", 2, GapKind.OTHER, "made anew", NOW + SECOND),
        Gap("node-2", 6, GapKind.OTHER, "made anew", NOW + SECOND),
    ]
    assert {name: reading.vouched for name, reading in ledger.readings().items()} == {"audit": False, "node-2": True}


def test_where_there_is_no_source_there_is_nothing_to_break(ledger: Ledger) -> None:
    ledger.start_segments("made anew", NOW)
    assert (ledger.gaps(), ledger.readings()) == ([], {})


def test_who_reads_while_the_stretches_are_broken_cannot_write_the_old_one_back(
    ledger: Ledger, place: LedgerPlace
) -> None:
    ledger.start_source("audit", Position("1:2", 0, 1))
    with ledger.claim_source("audit") as claim:
        ledger.start_segments("made anew", NOW)
        with pytest.raises(WrongState, match="another process reads audit source audit"):
            ledger.observe("audit", batch([seen(1, Kind.OWN)]), after=Position("1:2", 0, 1), at=NOW)
        with pytest.raises(WrongState):
            ledger.trust_source("audit", claim=claim)
    assert position(ledger) == Position("1:2", 0, 2)
    assert as_is(place, "SELECT count(*) FROM observations") == [(0,)]


def test_after_the_stretches_were_broken_the_source_is_read_on_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    ledger.start_source("audit", Position("1:2", 0, 1))
    with ledger.claim_source("audit"):
        ledger.start_segments("made anew", NOW)
    with ledger.claim_source("audit"):
        ledger.observe("audit", batch([], epoch=2), after=position(ledger), at=NOW)


# -- salts ------------------------------------------------------------------------------------------------


def test_a_salt_is_another_one_only_where_there_was_one_before(ledger: Ledger, place: LedgerPlace) -> None:
    assert ledger.record_salt("hmac-1", NOW) is False
    assert ledger.record_salt("hmac-1", NOW + SECOND) is False
    assert ledger.record_salt("hmac-2", NOW + 2 * SECOND) is True
    assert ledger.record_salt("hmac-2", NOW + 3 * SECOND) is False
    firsts = as_is(place, "SELECT mark, substr(CAST(first_at AS TEXT), 18, 2) FROM audit_salts ORDER BY 1")
    assert firsts == [("hmac-1", "00"), ("hmac-2", "02")]


def test_of_two_processes_that_find_a_new_salt_one_is_told(ledger: Ledger, place: LedgerPlace) -> None:
    other = Ledger(opened(address(place), create=False))
    ledger.record_salt("hmac-1", NOW)
    assert [ledger.record_salt("hmac-2", NOW), other.record_salt("hmac-2", NOW)] == [True, False]


# -- canaries ---------------------------------------------------------------------------------------------


NONCE_LINES = [
    seen(1, Kind.CANARY, "hmac-nonce", closing=False),
    seen(2, Kind.CANARY, "hmac-nonce"),
    seen(3, Kind.OWN, "hmac-else"),
]


def test_a_canary_is_found_by_its_own_line_and_kept(ledger: Ledger, place: LedgerPlace) -> None:
    read(ledger, NONCE_LINES)
    found = Canary(Place("audit", 1, 200), NOW + timedelta(milliseconds=2))
    for _ in range(2):
        assert ledger.keep_canary("audit", "hmac-nonce") == found
    assert as_is(place, 'SELECT source, epoch, "offset" FROM canaries') == [("audit", 1, 200)]


@pytest.mark.parametrize(
    ("source", "expected"), [("audit", "hmac-x"), ("audit", "hmac-else"), ("node-2", "hmac-nonce")]
)
def test_what_is_no_line_of_the_canary_is_not_kept(
    ledger: Ledger, place: LedgerPlace, source: str, expected: str
) -> None:
    read(ledger, NONCE_LINES)
    assert ledger.keep_canary(source, expected) is None
    assert as_is(place, "SELECT * FROM canaries") == []


def test_a_batch_gives_the_canary_that_is_in_it(ledger: Ledger) -> None:
    ledger.start_source("audit", Position("1:2", 0, 1))
    for lines, found in [
        (NONCE_LINES[:1], None),
        (NONCE_LINES[1:2], Canary(Place("audit", 1, 200), NOW + timedelta(milliseconds=2))),
    ]:
        given = ledger.observe("audit", batch(lines), after=position(ledger), at=NOW, expected="hmac-nonce")
        assert given == found


def copies(source: str) -> list[Observation]:
    """The very same lines, as another source has them."""
    return [replace(o, place=replace(o.place, source=source, offset=o.place.offset + 7)) for o in NONCE_LINES]


def test_a_batch_of_one_source_does_not_give_the_canary_of_another(ledger: Ledger, place: LedgerPlace) -> None:
    read(ledger, NONCE_LINES)
    ledger.start_source("node-2", Position("1:2", 0, 1))
    after = position(ledger, "node-2")
    others = [replace(o, place=replace(o.place, source="node-2")) for o in (seen(4, Kind.CANARY, "hmac-x"),)]
    assert ledger.observe("node-2", batch(others), after=after, at=NOW, expected="hmac-nonce") is None
    assert ledger.keep_canary("node-2", "hmac-nonce") is None
    assert as_is(place, "SELECT * FROM canaries") == []


def test_a_canary_counts_in_each_source_that_shows_its_line(ledger: Ledger, place: LedgerPlace) -> None:
    """What one of them brought first must not wait for a canary that is always found in the other."""
    kept = 'SELECT source, "offset" FROM canaries ORDER BY source'
    read(ledger, NONCE_LINES)
    for name in ("node-2", "node-3"):
        ledger.start_source(name, Position("1:2", 0, 1))
    # it was found nowhere yet: nobody knows whose it is
    ledger.observe("node-3", batch(copies("node-3")), after=position(ledger, "node-3"), at=NOW)
    assert as_is(place, kept) == []
    # the one that is waited for, in whichever it is seen first
    after = position(ledger, "node-2")
    found = ledger.observe("node-2", batch(copies("node-2")), after=after, at=NOW, expected="hmac-nonce")
    assert found is not None and found.place == Place("node-2", 1, 207)
    assert as_is(place, kept) == [("node-2", 207)]
    assert ledger.keep_canary("audit", "hmac-nonce") is not None
    ledger.start_source("node-4", Position("1:2", 0, 1))
    ledger.observe("node-4", batch(copies("node-4")), after=position(ledger, "node-4"), at=NOW)
    assert as_is(place, kept) == [("audit", 200), ("node-2", 207), ("node-4", 207)]


def test_the_newest_canary_of_each_source_by_vaults_time(ledger: Ledger) -> None:
    assert ledger.last_canaries() == {}
    for seconds, source, epoch in [(5, "audit", 1), (2, "audit", 2), (9, "node-2", 1), (7, "node-2", 1)]:
        keep_canary(ledger, seconds, source=source, epoch=epoch)
    # one that was sent and not found is none
    read(ledger, [seen(99, Kind.CANARY, "hmac-theirs", at=NOW + timedelta(hours=1))])
    ledger.start_source("node-3", Position("1:2", 0, 1))
    assert ledger.last_canaries() == {"audit": NOW + 5 * SECOND, "node-2": NOW + 9 * SECOND}


# -- sessions and operations ------------------------------------------------------------------------------


def test_a_session_remembers_when_it_was_first_and_last_seen(ledger: Ledger, place: LedgerPlace) -> None:
    ledger.record_session(WORKER, NOW)
    ledger.record_session(WORKER, NOW + timedelta(hours=1))
    ((first, last),) = as_is(place, "SELECT CAST(first_at AS TEXT), CAST(last_at AS TEXT) FROM worker_sessions")
    assert (first[11:16], last[11:16]) == ("09:00", "10:00")


@pytest.mark.parametrize(
    ("how", "settled"),
    [
        ({}, True),
        ({"actor": TOKEN}, False),
        ({"actor": ""}, False),
        ({"closing": False}, False),
        ({"op": "op-2"}, False),
        ({"op": ""}, False),
        # that it failed is an answer, too
        ({"failed": True}, True),
    ],
    ids=str,
)
def test_an_operation_is_settled_by_a_line_of_our_own_session_alone(
    ledger: Ledger, how: dict[str, Any], settled: bool
) -> None:
    # anybody can send the header with an operation id
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [replace(seen(1, Kind.LEASE_REVOKED, LEASE, op="op-1"), **how)])
    state = file_of(ledger).operations[0].state
    assert state is (OpState.SETTLED if settled else OpState.ANSWERED)


@pytest.mark.parametrize("state", [s for s in OpState if s is not OpState.ANSWERED])
def test_only_an_answered_operation_is_settled_by_its_line(ledger: Ledger, state: OpState) -> None:
    make(ledger)
    ledger.record_session(WORKER, NOW)
    change(ledger, Change("a", rows=(operation(state=state),)))
    read(ledger, [seen(1, Kind.LEASE_REVOKED, LEASE, op="op-1")])
    assert file_of(ledger).operations[0].state is state


@pytest.mark.parametrize("state", list(OpState))
def test_only_answered_operations_must_have_been_seen(ledger: Ledger, state: OpState) -> None:
    make(ledger)
    change(ledger, Change("a", rows=(operation(state=state),)))
    expected = ["op-1"] if state is OpState.ANSWERED else []
    assert ledger.unseen_operations(NOW + timedelta(seconds=1)) == expected


def test_an_operation_is_unseen_until_its_response_line_was_read(ledger: Ledger) -> None:
    make(ledger)
    ledger.record_session(WORKER, NOW)
    change(ledger, Change("a", rows=(operation("op-1"), operation("op-2"))))
    later = NOW + timedelta(seconds=1)
    read(ledger, [seen(1, Kind.OWN, op="op-1", closing=False), seen(2, Kind.OWN, op="op-3")])
    assert set(ledger.unseen_operations(later)) == {"op-1", "op-2"}
    # a line of somebody who only sends the header does not count
    read(ledger, [seen(4, Kind.OWN, op="op-1", actor=OTHER_TOKEN)])
    assert set(ledger.unseen_operations(later)) == {"op-1", "op-2"}
    read(ledger, [seen(3, Kind.OWN, op="op-1")])
    assert ledger.unseen_operations(later) == ["op-2"]
    # one that was answered just now may still be on its way
    assert ledger.unseen_operations(NOW) == []


def test_an_operation_counts_wherever_its_line_stands(ledger: Ledger) -> None:
    # several sources are one record: the node that took the request may be another one
    make(ledger)
    ledger.record_session(WORKER, NOW)
    change(ledger, Change("a", rows=(operation("op-1"), operation("op-2"))))
    read(ledger, [seen(1, Kind.OWN, op="op-1")], source="node-2")
    assert ledger.unseen_operations(NOW + SECOND) == ["op-2"]


# -- freezes ----------------------------------------------------------------------------------------------


def steal(ledger: Ledger, n: int, *, at: Any = NOW, **how: Any) -> None:
    """A line that shows a token which somebody else made through our roles."""
    line = seen(n, Kind.TOKEN_CREATED, f"hmac-stolen-{n}", **{"actor": OTHER_TOKEN, "remote": f"10.0.0.{n}", **how})
    read(ledger, [line], at=at)


def test_nothing_is_frozen_until_a_line_says_so(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.USED, TOKEN, actor=TOKEN), seen(2, Kind.HAZARD, path="sys/leases/tidy")])
    assert ledger.freeze() is None
    assert ledger.lift_freezes("for nothing", NOW) == 0


def test_the_oldest_freeze_is_told_until_all_are_lifted(ledger: Ledger, place: LedgerPlace) -> None:
    steal(ledger, 1)
    steal(ledger, 2, at=NOW + SECOND)
    frozen = ledger.freeze()
    assert frozen is not None
    assert frozen == Freeze(frozen.reason, f"{1:064x}", NOW)
    assert "10.0.0.1" in frozen.reason
    assert ledger.lift_freezes("w" * 600, NOW + 2 * SECOND) == 2
    assert ledger.freeze() is None
    assert ledger.lift_freezes("again", NOW + 3 * SECOND) == 0
    kept = as_is(place, "SELECT line, substr(CAST(lifted_at AS TEXT), 18, 2), lifted_why FROM freezes ORDER BY id")
    assert kept == [(f"{n:064x}", "02", "w" * 500) for n in (1, 2)]


def test_a_freeze_that_was_lifted_does_not_come_back_by_the_same_line(ledger: Ledger) -> None:
    steal(ledger, 1)
    ledger.lift_freezes("an exercise", NOW)
    steal(ledger, 1)
    assert ledger.freeze() is None
    steal(ledger, 2)
    frozen = ledger.freeze()
    assert frozen is not None
    assert frozen.line == f"{2:064x}"


# -- findings and leases ----------------------------------------------------------------------------------


def test_a_finding_names_its_line_and_its_request(ledger: Ledger) -> None:
    make(ledger)
    ledger.finding("t-1", "denied", "no", NOW, line="ab" * 32, request_id="r" * 80)
    ledger.finding("t-1", "ledger_edited", "what", NOW)
    found = {f["rule"]: (f["line"], f["request_id"]) for f in file_of(ledger).findings}
    assert found == {"denied": ("ab" * 32, "r" * 64), "ledger_edited": (None, None)}


def test_a_finding_of_no_task_is_kept_once_as_well(ledger: Ledger, place: LedgerPlace) -> None:
    for _ in range(2):
        ledger.finding(None, "unknown_token", "no", NOW, line="ab" * 32)
    assert as_is(place, "SELECT count(*) FROM findings") == [(1,)]


def test_known_leases_are_those_of_any_task(ledger: Ledger) -> None:
    issued(ledger)
    make(ledger, "t-2")
    change(ledger, Change("issued", rows=(grant("t-2", accessor_hmac=OTHER_TOKEN),)), "t-2")
    read(
        ledger,
        [
            seen(1, Kind.LEASE_ISSUED, f"{LEASE}-1", actor=TOKEN, detail={"target_name": "v-1"}),
            seen(2, Kind.LEASE_ISSUED, f"{LEASE}-2", actor=OTHER_TOKEN, detail={"target_name": "v-2"}),
            # whose it is nobody knows
            seen(3, Kind.LEASE_ISSUED, f"{LEASE}-3", actor="hmac-root", detail={"target_name": "v-3"}),
        ],
    )
    # more than go into one query, the known ones in different parts
    asked = [f"{LEASE}-1", *(f"{LEASE}-x-{n}" for n in range(1100)), f"{LEASE}-2", f"{LEASE}-3"]
    assert ledger.known_leases(asked) == {f"{LEASE}-1", f"{LEASE}-2"}
    assert ledger.known_leases([]) == set()
    assert ledger.known_targets(["v-1", "v-2", "v-3"]) == {"v-1", "v-2"}
