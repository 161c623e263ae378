"""The index of documents: what was written since it was read last, and whether the stream has told of all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import NOW, change, make, read, seen

from jitvault.audit.observation import Kind
from jitvault.documents.paths import Kept, indexed_path, path_of
from jitvault.ledger.documents.index import DocumentStatus, Indexed
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.model.states import State

END = path_of(Kept.END, "e-1", "t-1")


def written(ledger: Ledger, n: int, path: str = END) -> None:
    read(ledger, [seen(n, Kind.WRITTEN, path)])


def only(ledger: Ledger, *standings: DocumentStatus) -> Indexed:
    (found,) = ledger.indexed(Kept.END, "t-1", standings)
    return found


def test_what_was_read_is_given_again_when_it_was_written_again_or_counts(ledger: Ledger) -> None:
    written(ledger, 1)
    found = only(ledger)
    assert (found.author, found.is_unread, found.standing) == ("e-1", True, None)
    ledger.keep_read([replace(found, read=found.news, standing=DocumentStatus.VOID)])
    assert ledger.indexed(Kept.END, "t-1", [DocumentStatus.COUNTS]) == []
    written(ledger, 2)
    assert only(ledger).is_unread
    ledger.keep_read([replace(only(ledger), read=only(ledger).news, standing=DocumentStatus.COUNTS, body={"by": "x"})])
    assert only(ledger, DocumentStatus.COUNTS).body == {"by": "x"}
    assert ledger.indexed(Kept.END, "t-2", [DocumentStatus.COUNTS]) == ledger.indexed(Kept.FREEZE, None, []) == []


def test_who_read_an_older_version_changes_nothing(ledger: Ledger) -> None:
    written(ledger, 1)
    old = only(ledger)
    written(ledger, 2)
    new = only(ledger)
    ledger.keep_read([replace(new, read=new.news, standing=DocumentStatus.COUNTS)])
    ledger.keep_read([replace(old, read=old.news, standing=DocumentStatus.VOID)])
    assert only(ledger, DocumentStatus.COUNTS).standing is DocumentStatus.COUNTS
    # nor does it forget what was written since
    ledger.forget(old)
    assert only(ledger, DocumentStatus.COUNTS) == replace(new, read=new.news, standing=DocumentStatus.COUNTS)
    ledger.forget(new)
    assert ledger.indexed(Kept.END, None, list(DocumentStatus)) == []


@pytest.mark.parametrize("again", [True, False])
def test_a_list_enters_what_is_new_and_forgets_what_is_gone(ledger: Ledger, *, again: bool) -> None:
    written(ledger, 1)
    ledger.keep_read([replace(only(ledger), read=1, standing=DocumentStatus.VOID)])
    written(ledger, 2, path_of(Kept.END, "e-1", "just-now"))
    assert ledger.keep_listed(Kept.END, "e-1", ["t-1", "t-2"], again=again) == ["t-2"]
    unread = {one.about for one in ledger.indexed(Kept.END, None, [])}
    # what a line has shown since is not in the list, and there all the same
    assert unread == {"t-2", "just-now", *(["t-1"] if again else [])}
    for one in ledger.indexed(Kept.END, None, []):
        ledger.keep_read([replace(one, read=one.news, standing=DocumentStatus.VOID)])
    assert ledger.indexed_authors(Kept.END) == ["e-1"]
    ledger.keep_listed(Kept.END, "e-1", [], again=False)
    assert ledger.indexed_authors(Kept.END) == []


def test_a_list_forgets_no_freeze_that_is_in_force(ledger: Ledger) -> None:
    standings = {"held": DocumentStatus.COUNTS, "lifted": DocumentStatus.LIFTED}
    ledger.keep_listed(Kept.FREEZE, "e-1", [*standings], again=False)
    unread = ledger.indexed(Kept.FREEZE, None, [])
    ledger.keep_read([replace(one, read=one.news, standing=standings[one.about]) for one in unread])
    ledger.keep_listed(Kept.FREEZE, "e-1", [], again=True)
    assert [one.about for one in ledger.indexed(Kept.FREEZE, None, list(DocumentStatus))] == ["held"]


def test_a_list_is_whole_until_there_is_a_gap(ledger: Ledger) -> None:
    assert not ledger.listing(Kept.END).is_whole
    ledger.keep_listing(Kept.END, 0, NOW)
    assert ledger.listing(Kept.END).is_whole and not ledger.listing(Kept.FREEZE).is_whole
    read(ledger, [])
    ledger.start_segments("lines may be missing", NOW)
    listing = ledger.listing(Kept.END)
    assert not listing.is_whole
    ledger.keep_listing(Kept.END, listing.gaps_now, NOW)
    assert ledger.listing(Kept.END).is_whole


def test_a_document_is_found_again_by_its_path() -> None:
    for path in (END, f"freezes/e-1/{'a' * 32}", "freezes/e-1/all"):
        found = indexed_path(path)
        assert found is not None and path_of(*found) == path
    for path in ("requests/e-1/t-1/submit", "freezes/e-1/everything", "freezes/e-1/a/b", f"freezes/{'e' * 65}/all"):
        assert indexed_path(path) is None


def test_what_nobody_has_read_is_found_by_the_tasks_whose_end_is_not_proven(ledger: Ledger) -> None:
    make(ledger)
    ended = {
        "over": (State.CANCELLED,),
        "ending": (State.ISSUING, State.ENDING),
        "proven": (State.ISSUING, State.ENDING, State.CONFIRMED),
        "reopened": (State.ISSUING, State.ENDING, State.CONFIRMED, State.ENDING),
    }
    for task, states in ended.items():
        make(ledger, task)
        for state in states:
            change(ledger, Change(state.value, state=state), task)
    for n, task in enumerate(("t-1", *ended, "unknown")):
        written(ledger, n, path_of(Kept.END, "e-1", task))
    found = ledger.unread_of_unproven(Kept.END)
    assert [(one.author, one.about) for one in found] == [("e-1", "ending"), ("e-1", "reopened"), ("e-1", "t-1")]
    ledger.keep_read([replace(one, read=1, standing=DocumentStatus.VOID) for one in found])
    assert ledger.unread_of_unproven(Kept.END) == ledger.unread_of_unproven(Kept.FREEZE) == []
