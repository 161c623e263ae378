"""What one author can add to the ledger: so many findings and lines one by one, and a number for the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from builders import NOW, as_is, change, file_of, make, read, seen
from ledgers import LedgerPlace
from test_judged import JUNK, SECOND, judged, written

from jitvault.audit.observation import Kind
from jitvault.documents.paths import Kept
from jitvault.ledger.documents import lines as document_lines
from jitvault.ledger.documents.index import WrittenDocument
from jitvault.ledger.documents.judgements import Unsettled
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, Closing
from jitvault.model.finding import MOST, WINDOW
from jitvault.model.notice import Kind as Notified
from jitvault.model.states import State

FORGED = "forged_document"


def found(ledger: Ledger, task_id: str = "t-1") -> list[tuple[str, int]]:
    return [(one["message"], one["more"]) for one in file_of(ledger, task_id).findings]


def heard(ledger: Ledger, at: datetime) -> int:
    """How many findings people are told of."""
    return sum(notice.kind is Notified.FINDING for notice in ledger.due_notices(at, 1000))


def test_of_one_author_and_rule_so_many_findings_are_kept_and_the_others_counted(ledger: Ledger) -> None:
    make(ledger)
    make(ledger, "t-2")
    for n in range(MOST + 30):
        ledger.finding("t-1", FORGED, f"field {n}", NOW, author="e-1")
        # the same one is one, also among those that are kept
        ledger.finding("t-1", FORGED, "field 0", NOW, author="e-1")
    *kept, last = found(ledger)
    assert kept == [(f"field {n}", 0) for n in range(MOST)]
    assert last[1] == 30 and "entity e-1" in last[0] and "counted" in last[0]
    assert ledger.finding_counts() == {"t-1": MOST + 30}
    # another task of the same author has at least the one that says that there are some
    ledger.finding("t-2", FORGED, "another", NOW, author="e-1")
    assert [more for _, more in found(ledger, "t-2")] == [1]
    # another author, another rule and another day begin anew
    ledger.finding("t-2", FORGED, "another", NOW, author="e-2")
    ledger.finding("t-2", "denied", "another", NOW)
    ledger.finding("t-1", FORGED, "later", NOW + WINDOW, author="e-1")
    assert [more for _, more in found(ledger, "t-2")] == [1, 0, 0]
    assert found(ledger)[-1] == ("later", 0)
    assert heard(ledger, NOW + WINDOW - SECOND) == MOST + 1 + 3


def test_what_no_author_wrote_is_bounded_by_its_task_and_what_belongs_to_neither_is_kept(ledger: Ledger) -> None:
    make(ledger)
    for n in range(MOST + 5):
        ledger.finding("t-1", "after_end", f"use {n}", NOW)
        ledger.finding(None, "unknown_token", f"token {n}", NOW)
    assert len(found(ledger)) == MOST + 1
    assert heard(ledger, NOW) == MOST + 1 + MOST + 5
    # the number is what it is, however often it is said
    for _ in range(3):
        ledger.finding("t-1", "after_end", "use", NOW, more=7)
    assert found(ledger)[-1][1] == 7


def test_what_is_counted_after_the_others_were_closed_is_open_again(ledger: Ledger) -> None:
    make(ledger)
    for n in range(MOST + 1):
        ledger.finding("t-1", "after_end", f"use {n}", NOW)
    assert ledger.close_findings("e-agent", Closing("ines", "e-ines", "looked into", NOW)) == MOST + 1
    ledger.finding("t-1", "after_end", "one more", NOW + SECOND)
    still_open = [one["more"] for one in file_of(ledger).findings if one["closed_at"] is None]
    assert still_open == [1]


def test_a_notice_of_somebody_else_waits_for_one_of_each_and_a_severe_one_for_none(ledger: Ledger) -> None:
    make(ledger, "t-9")
    for n in range(40):
        # of other rules, since those of one are bounded
        for rule in (FORGED, "not_entitled"):
            ledger.finding(None, rule, f"{n}", NOW + n * timedelta(milliseconds=1), author=f"e-{n % 2}")
    late = NOW + SECOND
    ledger.finding("t-8", FORGED, "theirs", late, author="e-8")
    ledger.finding("t-9", "wrapped_lease", "a tripwire", late)
    ledger.tell_unproven("t-9", late)
    # the task itself was told of as well, in the turn of who asked for it
    first = [(notice.task_id, notice.kind.value) for notice in ledger.due_notices(late, 6)]
    assert sorted(first[:2]) == [("t-9", "finding"), ("t-9", "unconfirmed")]
    assert sorted(first[2:], key=str) == [("t-8", "finding"), ("t-9", "approved"), *2 * [(None, "finding")]]


def test_of_one_document_so_many_writes_are_kept_and_the_others_are_known_by_the_newest(ledger: Ledger) -> None:
    make(ledger, "t-1")
    path = "requests/e-1/t-1/end"
    for n in range(0, 400, 40):
        read(ledger, [seen(n + i, Kind.WRITTEN, path) for i in range(40)])
    read(ledger, [seen(1000, Kind.WRITTEN, "requests/e-2/t-1/end")])
    shown = ledger.written_documents(since=NOW)
    mine = [one for one in shown if one.path == path]
    assert len(mine) == document_lines.MOST_OF_ONE + 1 and len(shown) == len(mine) + 1
    last = seen(399, Kind.WRITTEN, path)
    assert mine[-1] == WrittenDocument(path, last.at, last.place, 0) and ledger.newest_line(path) == last.at
    assert [(one.kind, one.lines) for one in ledger.not_kept()] == [("written", 400 - document_lines.MOST_OF_ONE)]
    # whoever has seen it is not given it again, and whoever has not is given the newest alone
    assert [one.path for one in ledger.written_documents(since=NOW, after={"audit": last.place})] == [
        "requests/e-2/t-1/end"
    ]
    before = replace(last.place, offset=last.place.offset - 1)
    assert [one.path for one in ledger.written_documents(since=NOW, after={"audit": before})] == [
        path,
        "requests/e-2/t-1/end",
    ]


def test_lines_that_are_read_again_do_not_make_an_older_write_the_newest(ledger: Ledger) -> None:
    path = "requests/e-1/t-1/end"
    lines = [seen(n, Kind.WRITTEN, path) for n in range(100)]
    read(ledger, lines)
    read(ledger, lines[30:60], source="copy")
    assert ledger.newest_line(path) == lines[-1].at


def test_a_request_that_is_written_again_is_read_again_whether_or_not_its_line_is_kept(ledger: Ledger) -> None:
    for n in range(document_lines.MOST_OF_ONE):
        written(ledger, n, at=0)
    ledger.judge([judged()], NOW)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])
    written(ledger, 500, at=5)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled(["junk"], [])
    ledger.judge([judged(version=2, line_at=5)], NOW)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])


def test_of_one_author_so_many_writes_of_an_hour_are_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, place: LedgerPlace
) -> None:
    monkeypatch.setattr(document_lines, "MOST_OF_AUTHOR", 50)
    monkeypatch.setattr(document_lines, "MOST_NOTED", 30)
    written(ledger, 1, at=0)
    ledger.judge([judged()], NOW)
    for n in range(10, 210, 25):
        read(ledger, [seen(n + i, Kind.WRITTEN, f"requests/e-1/x-{n + i}/submit") for i in range(25)])
    read(ledger, [seen(300 + n, Kind.WRITTEN, f"requests/e-2/x-{n}/submit") for n in range(10)])
    shown = [one.path for one in ledger.written_documents(since=NOW)]
    # the newest by their paths, those before them by their folder
    noted = [f"requests/e-1/x-{n}/submit" for n in range(180, 210)]
    assert len(shown) == 50 + 1 + 30 + 10 and shown[50:81] == ["requests/e-1/", *noted]
    assert [(one.kind, one.lines) for one in ledger.not_kept()] == [("written", 151)]
    assert as_is(place, "SELECT lines FROM rewritten WHERE path = 'requests/e-1/'") == [(121,)]
    # which of that author's requests was written again nobody can say any more, until it was read once more
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled(["junk"], [])
    assert JUNK.startswith("requests/e-1/")
    ledger.judge([replace(judged(), line_at=ledger.newest_line(JUNK))], NOW)
    assert ledger.unsettled("e-1", ["junk"]) == Unsettled([], [])
    hour = timedelta(hours=1, seconds=1)
    read(ledger, [seen(1000, Kind.WRITTEN, "requests/e-1/later/submit", at=NOW + hour)])
    assert "requests/e-1/later/submit" in [one.path for one in ledger.written_documents(since=NOW + hour)]


def test_the_end_of_what_holds_access_by_a_party_to_it_is_always_stored_and_no_other(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, place: LedgerPlace
) -> None:
    monkeypatch.setattr(document_lines, "MOST_OF_AUTHOR", 0)
    monkeypatch.setattr(document_lines, "MOST_NOTED", 0)
    for task_id in ("held", "pending"):
        make(ledger, task_id)
    for state in (State.ISSUING, State.ISSUED):
        change(ledger, Change("moved", state=state), "held")
    by = [("e-req", "held"), ("e-agent", "held"), ("e-other", "held"), ("e-req", "pending"), ("e-agent", "made-up")]
    paths = [f"requests/{author}/{task_id}/end" for author, task_id in by]
    read(ledger, [seen(n, Kind.WRITTEN, path) for n, path in enumerate([*paths, *100 * paths[:1]])])
    read(ledger, [seen(500, Kind.WRITTEN, "requests/e-req/held/extend"), seen(501, Kind.WRITTEN, "freezes/e-op/all")])
    stored = as_is(place, "SELECT subject, count(*) FROM observations GROUP BY subject ORDER BY subject")
    assert stored == [(paths[1], 1), (paths[0], document_lines.MOST_OF_ONE)]
    assert as_is(place, "SELECT count(*) FROM rewritten WHERE path != folder") == [(0,)]
    assert {"freezes/e-op/", "requests/e-req/"} <= {one.path for one in ledger.written_documents(since=NOW)}
    # what may end a task that is known, and every freeze, is in the index whatever becomes of its line
    indexed = as_is(place, "SELECT author, about FROM documents ORDER BY author, about")
    assert indexed == [
        ("e-agent", "held"),
        ("e-op", "all"),
        ("e-other", "held"),
        ("e-req", "held"),
        ("e-req", "pending"),
    ]
    assert len(ledger.unread_of_unproven(Kept.END)) == 4
