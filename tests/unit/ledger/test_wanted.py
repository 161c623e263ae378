"""What a worker asks the ledger for: what people wrote, and what may still be granted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import pytest
from builders import NOW, change, make, read, seen

from jitvault.audit.observation import Kind, Place
from jitvault.context import WorkerContext
from jitvault.ledger.documents import lines as document_lines
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.lifecycle.requests.pending import DocumentWatcher
from jitvault.model.states import State

SECOND = timedelta(seconds=1)


def test_what_people_wrote_is_given_by_vaults_time_from_any_source(ledger: Ledger) -> None:
    late = seen(1, Kind.WRITTEN, "requests/e-1/t-1/submit", at=NOW + 2 * SECOND)
    early = seen(2, Kind.WRITTEN, "decisions/e-2/t-1", at=NOW)
    read(ledger, [late, seen(3, Kind.OWN, at=NOW)])
    read(ledger, [early], source="node-2")
    assert [(one.path, one.at) for one in ledger.written_documents(since=NOW)] == [
        ("decisions/e-2/t-1", NOW),
        ("requests/e-1/t-1/submit", NOW + 2 * SECOND),
    ]
    assert [one.place for one in ledger.written_documents(since=NOW + SECOND)] == [late.place]


def test_what_was_given_before_is_left_out_by_its_place_in_each_source(ledger: Ledger) -> None:
    lines = [seen(n, Kind.WRITTEN, f"requests/e-1/t-{n}/submit", at=NOW - n * SECOND) for n in (1, 2)]
    again = seen(3, Kind.WRITTEN, "requests/e-1/t-3/submit", at=NOW - 3 * SECOND, epoch=2)
    other = seen(4, Kind.WRITTEN, "requests/e-1/t-4/submit", at=NOW - 4 * SECOND, source="node-2")
    read(ledger, [*lines, again])
    read(ledger, [other], source="node-2")
    since = NOW - 60 * SECOND

    def paths(**after: Place) -> list[str]:
        return [one.path[-8] for one in ledger.written_documents(since=since, after=after)]

    assert paths() == ["4", "3", "2", "1"]
    # later in the file, though earlier by Vault's time
    assert paths(audit=lines[0].place) == ["4", "3", "2"]
    assert paths(audit=lines[1].place) == ["4", "3"]
    # of another stretch, which begins at byte 0 again
    assert paths(audit=Place("audit", 1, 10**9)) == ["4", "3"]
    assert paths(audit=again.place) == ["4"]
    assert paths(audit=again.place, **{"node-2": other.place}) == []


def test_a_word_is_given_once_and_one_of_a_source_that_lags_as_well(ledger: Ledger) -> None:
    word = DocumentWatcher(cast(WorkerContext, Looker(ledger)))
    assert word.new() == []
    read(ledger, [seen(n, Kind.WRITTEN, f"requests/e-1/t-{n}/submit", at=NOW + n * SECOND) for n in (1, 2)])
    assert [one.task_id for one in word.new()] == ["t-1", "t-2"]
    assert word.new() == []
    lags = seen(3, Kind.WRITTEN, "requests/e-1/t-3/submit", at=NOW - 50 * SECOND, source="node-2")
    read(ledger, [lags], source="node-2")
    read(ledger, [seen(4, Kind.WRITTEN, "requests/e-1/t-4/submit", at=NOW + SECOND)])
    assert [one.task_id for one in word.new()] == ["t-3", "t-4"]
    assert word.new() == []


def test_whoever_has_not_seen_what_is_noted_by_its_folder_alone_is_told_whose_it_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two workers, one looks after each batch; the other one comes when most of an author's notes are gone."""
    monkeypatch.setattr(document_lines, "MOST_OF_AUTHOR", 0)
    monkeypatch.setattr(document_lines, "MOST_NOTED", 3)
    often, late = (DocumentWatcher(cast(WorkerContext, Looker(ledger))) for _ in range(2))
    for n in range(0, 12, 3):
        read(ledger, [seen(n + i, Kind.WRITTEN, f"requests/e-1/t-{n + i}/submit") for i in range(3)])
        assert [one.task_id for one in often.new()] == [f"t-{n}", f"t-{n + 1}", f"t-{n + 2}"]
    assert often.take_unshown() == set()
    assert [one.task_id for one in late.new()] == ["t-9", "t-10", "t-11"]
    assert (late.take_unshown(), late.take_unshown()) == ({"e-1"}, set())
    # of freezes the index says which they are
    read(ledger, [seen(50 + n, Kind.WRITTEN, f"freezes/e-2/{n:032x}") for n in range(9)])
    assert {one.freezes for one in late.new()} == {True} and late.take_unshown() == set()


@dataclass(frozen=True)
class Looker:
    """As much of a Worker as who looks for words needs."""

    ledger: Ledger

    def now(self) -> datetime:
        return NOW


def test_what_may_still_be_granted_is_what_waits_and_what_an_issue_did_not_finish(ledger: Ledger) -> None:
    for name, state in [("t-a", State.APPROVED), ("t-p", State.PENDING_APPROVAL), ("t-d", State.DENIED)]:
        make(ledger, name, state=state)
    for name, states in {"t-i": [State.ISSUING], "t-h": [State.ISSUING, State.ISSUED], "t-l": [State.LAPSED]}.items():
        make(ledger, name)
        for state in states:
            change(ledger, Change("moved", state=state), name)
    assert sorted(ledger.ungranted()) == ["t-a", "t-i", "t-p"]
