"""What the ledger knows of people's documents: one question for all of an author's, and none for what was judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from builders import NOW, change, make, read, seen

from jitvault.audit.observation import Kind
from jitvault.documents.paths import TaskParties, request_path
from jitvault.ledger.documents.judgements import Judged, Judgement, OverQuota, Unsettled
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import AccessRow, Change, DecisionRow
from jitvault.model.states import State

SECOND = timedelta(seconds=1)
JUNK = request_path("e-1", "junk", "submit")


def judged(version: int = 1, line_at: int | None = 0, path: str = JUNK) -> Judged:
    at = None if line_at is None else NOW + line_at * SECOND
    return Judged(path, version, NOW + version * SECOND, Judgement.INVALID, at)


def written(ledger: Ledger, n: int, at: int, path: str = JUNK) -> None:
    read(ledger, [seen(n, Kind.WRITTEN, path, at=NOW + at * SECOND)])


def test_a_request_is_settled_by_its_task_or_by_how_it_was_judged(ledger: Ledger) -> None:
    make(ledger, "t-1")
    ledger.judge([judged()], NOW)
    asked = ["t-1", "junk", "new", *(f"more-{n}" for n in range(600))]
    assert ledger.unsettled("e-1", asked) == Unsettled(asked[2:], [])
    # whoever else asks under the same name was not judged
    assert ledger.unsettled("e-2", ["junk"]) == Unsettled(["junk"], [])


def test_a_task_may_be_lost_where_a_request_was_judged_so_or_not_looked_at(ledger: Ledger) -> None:
    asked = [replace(judged(path=request_path("e-1", each.value, "submit")), judgement=each) for each in Judgement]
    ledger.judge(asked, NOW)
    assert ledger.lost_tasks({*Judgement, "no"}) == {"lost", "too_old"}
    assert ledger.lost_tasks({"old", "invalid"}) == set()
    assert ledger.lost_tasks(set()) == set()


def test_what_is_written_again_is_no_longer_judged(ledger: Ledger) -> None:
    written(ledger, 1, at=0)
    ledger.judge([judged(line_at=0)], NOW)
    assert ledger.newest_line(JUNK) == NOW and ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])
    written(ledger, 2, at=5)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled(["junk"], [])
    ledger.judge([judged(version=2, line_at=5)], NOW)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])
    assert ledger.judged(JUNK) == judged(version=2, line_at=5)


def test_what_was_judged_before_its_line_was_read_is_read_once_more(ledger: Ledger) -> None:
    ledger.judge([judged(line_at=None)], NOW)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])
    written(ledger, 1, at=0)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled(["junk"], [])


def test_after_a_gap_in_the_stream_it_may_have_been_written_again(ledger: Ledger) -> None:
    written(ledger, 1, at=0)
    ledger.judge([judged()], NOW)
    ledger.start_segments("lines may be missing", NOW + SECOND)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], ["junk"])
    ledger.judge([judged()], NOW + 2 * SECOND)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])


def test_what_its_author_removed_is_forgotten(ledger: Ledger) -> None:
    other = request_path("e-2", "junk", "submit")
    ledger.judge([judged(), judged(path=request_path("e-1", "kept", "submit")), judged(path=other)], NOW)
    assert ledger.forget_judged("e-1", ["kept"]) == 1
    assert ledger.judged(JUNK) is None and ledger.judged(other) is not None
    assert sorted(ledger.judged_authors()) == ["e-1", "e-2"]


def test_who_may_end_a_task_and_who_approved_it(ledger: Ledger) -> None:
    make(ledger, "t-1", state=State.PENDING_APPROVAL)
    said = ("t-1", NOW, "why")
    decisions = [
        DecisionRow(said[0], entity, entity, decision, "sha256:" + "a" * 64, NOW, said[2])
        for entity, decision in (("e-yes", "approve"), ("e-no", "deny"), ("e-late", "lapsed"))
    ]
    access = [AccessRow("t-1", revision, "pg", "e-agent", f"e-owner-{revision}", 1) for revision in (1, 2)]
    change(ledger, Change("decided", state=State.APPROVED, rows=(*decisions, *access)), "t-1")
    expected = TaskParties(State.APPROVED, frozenset({"e-req", "e-agent", "e-owner-1"}), frozenset({"e-yes"}))
    (known,) = ledger.parts(["t-1", "nothing"]).values()
    assert replace(known, done=None) == expected
    with ledger.claim("t-1") as claim:
        assert ledger.parts(["t-1"])["t-1"].done is None
    assert ledger.parts(["t-1"])["t-1"].done == claim


def test_only_what_may_still_be_granted_counts_as_open(ledger: Ledger) -> None:
    make(ledger, "t-a", state=State.APPROVED)
    make(ledger, "t-p", state=State.PENDING_APPROVAL)
    make(ledger, "t-d", state=State.DENIED)
    make(ledger, "t-h")
    for state in (State.ISSUING, State.ISSUED):
        change(ledger, Change("moved", state=state), "t-h")
    assert ledger.open_requests("e-req") == 2 and ledger.open_requests("e-else") == 0


def test_who_writes_too_much_is_known_until_it_is_over(ledger: Ledger) -> None:
    for n, at in ((7, 0), (9, 5)):
        ledger.keep_over_quota("e-1", n, NOW + at * SECOND)
    assert ledger.over_quota() == [OverQuota("e-1", 9, NOW, NOW + 5 * SECOND)]
    ledger.keep_over_quota("e-1", 0, NOW)
    assert ledger.over_quota() == []
