"""Which task a document is about; nothing that cannot be a task's gets any further."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.paths import (
    REQUEST_LIFE,
    DocumentEffect,
    TaskParties,
    WorkItem,
    document_at,
    effect_of,
    is_stale,
    look_at,
    stands_until,
    vault_path,
    work_item_for,
)
from jitvault.formats.time_window import Window
from jitvault.model.states import State


@pytest.mark.parametrize(
    ("document", "there"),
    [
        ("inbox/e-1/t-1", "jitvault-inbox/data/e-1/t-1"),
        ("inbox/e-1/", "jitvault-inbox/data/e-1/"),
        ("tasks/inbox/t-1", "jitvault/data/tasks/inbox/t-1"),
        ("inboxes", "jitvault/data/inboxes"),
    ],
)
def test_inboxes_alone_lie_in_a_mount_of_their_own(document: str, there: str) -> None:
    assert vault_path("data", document) == there


@given(st.sampled_from(["data", "metadata", "destroy"]), st.text() | st.text().map("inbox/".__add__))
def test_where_vault_has_a_document_says_which_it_is(part: str, document: str) -> None:
    assert document_at(vault_path(part, document)) == document


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("requests/e-1/t-1/submit", WorkItem("t-1", "e-1", requests=True, submits=True, grants=True)),
        ("requests/e-1/t-1/grant", WorkItem("t-1", "e-1", requests=True, grants=True)),
        ("requests/e-1/t-1/end", WorkItem("t-1", "e-1", requests=True, ends=True)),
        ("decisions/e-2/t-1", WorkItem("t-1", "e-2")),
        ("decisions/e-2/t-1/extend/" + "0a" * 16, WorkItem("t-1", "e-2")),
        ("decisions/e-2/t-1/extend/" + "0a" * 17, None),
        ("requests/e-1/t-1/extend", WorkItem("t-1", "e-1", requests=True)),
        ("decisions/e-2/t-1/withdraw", WorkItem("t-1", "e-2", ends=True)),
        # its author can make any number of these
        ("decisions/e-2/t-1/withdraw/" + "0a" * 16, None),
        ("freezes/e-1/all", WorkItem(freezes=True)),
        ("requests/e-1/t-1", None),
        ("requests/e-1/../submit", None),
        ("requests/e-1/T 1/submit", None),
        ("requests/e-1/" + "t" * 64 + "/submit", None),
        ("tasks/t-1", None),
        ("", None),
    ],
)
def test_what_a_document_asks_for(path: str, expected: WorkItem | None) -> None:
    assert work_item_for(path) == expected


@given(st.text(max_size=80))
def test_a_task_id_that_comes_out_is_one_part_of_a_path(path: str) -> None:
    for prefix in ("requests/e/", "decisions/e/", ""):
        found = work_item_for(prefix + path)
        assert found is None or (not set(found.task_id) & set("/\\ \n%?#") and ".." not in found.task_id)


@given(st.timedeltas(timedelta(0), timedelta(days=4000)), st.timedeltas(timedelta(0), timedelta(days=4000)))
def test_a_request_that_is_too_old_is_never_young_again(age: timedelta, more: timedelta) -> None:
    written = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    assert is_stale(written, written + age) == (age >= REQUEST_LIFE)
    assert is_stale(written, written + age + more) or not is_stale(written, written + age)


_LATER = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


@given(st.none() | _LATER, st.none() | _LATER, _LATER)
def test_every_request_has_an_end_and_is_looked_at_until_then(
    opens_in: timedelta | None, ends_in: timedelta | None, age: timedelta
) -> None:
    written = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    opens = written + opens_in if opens_in else None
    length = None if ends_in else timedelta(hours=1)
    window = Window(for_=length, until=written + ends_in if ends_in else None, not_before=opens)
    end, look = stands_until(window, written), look_at(window, written, written + age)
    assert end == (window.until or (opens or written) + REQUEST_LIFE)
    assert look == (opens if opens and not window.opens(written + age) else end)


def how(path: str, state: State | None, *, is_operator: bool = False, is_lost: bool = False) -> DocumentEffect:
    """What follows from a document of one of the requester, an approver, and somebody else."""
    asks = work_item_for(path)
    assert asks
    task = TaskParties(state, may_end={"requester", "agent"}, approved_by={"approver"}) if state else None
    return effect_of(asks, task, is_operator=is_operator, is_lost=is_lost)


@pytest.mark.parametrize(
    ("path", "state", "expected"),
    [
        ("requests/agent/t-1/end", State.ACTIVE, DocumentEffect.END),
        ("requests/agent/t-1/end", State.PENDING_APPROVAL, DocumentEffect.LOOK),
        # each further one would bring it back before its pause is over
        ("requests/agent/t-1/end", State.ENDING, DocumentEffect.LOOK),
        ("requests/else/t-1/end", State.ACTIVE, DocumentEffect.LOOK),
        ("requests/else/t-1/end", State.SEALED, DocumentEffect.NOTHING),
        ("requests/requester/t-1/grant", State.SEALED, DocumentEffect.LOOK),
        ("requests/else/t-1/end", None, DocumentEffect.NOTHING),
        ("requests/else/t-1/grant", None, DocumentEffect.NOTHING),
        ("requests/else/t-1/submit", None, DocumentEffect.LOOK),
        ("decisions/approver/t-1/withdraw", State.ACTIVE, DocumentEffect.END),
        ("decisions/requester/t-1/withdraw", State.ACTIVE, DocumentEffect.LOOK),
        ("decisions/approver/t-1", State.PENDING_APPROVAL, DocumentEffect.LOOK),
        ("decisions/approver/t-1", None, DocumentEffect.NOTHING),
    ],
)
def test_only_whoever_may_end_what_is_held_is_urgent(path: str, state: State | None, expected: DocumentEffect) -> None:
    assert how(path, state) == expected


def test_the_end_of_a_task_that_the_ledger_lost_is_looked_at_whoever_asks() -> None:
    assert how("requests/agent/t-1/end", None, is_lost=True) is DocumentEffect.LOOK
    for other in ("requests/agent/t-1/grant", "decisions/approver/t-1"):
        assert how(other, None, is_lost=True) is DocumentEffect.NOTHING


def test_what_a_later_claim_has_done_is_not_looked_at_again() -> None:
    asks = WorkItem("t-1", "requester", requests=True, ends=True, since=3)
    for done, expected in ((None, DocumentEffect.END), (3, DocumentEffect.END), (4, DocumentEffect.NOTHING)):
        assert effect_of(asks, TaskParties(State.ACTIVE, {"requester"}, (), done), is_operator=False) is expected


@pytest.mark.parametrize("state", [None, *State])
def test_an_operators_end_comes_first_wherever_access_may_be_left(state: State | None) -> None:
    first = state in {State.ISSUING, State.ISSUED, State.ACTIVE, State.ENDING}
    assert (how("requests/olga/t-1/end", state, is_operator=True) is DocumentEffect.REVOKE) == first
    assert how("requests/olga/t-1/end", None, is_operator=True) is DocumentEffect.LOOK, "a loss is reported"
    assert how("requests/olga/t-1/extend", state, is_operator=True) is not DocumentEffect.REVOKE
