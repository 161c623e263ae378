"""Whoever edits a digested column of a task's rows is found, and nothing else is taken for an edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import LEASE, NOW, change, file_of, grant, make, revision, task
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import JSON, Boolean, Column, Integer, String, update

from jitvault.errors import JitvaultError
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, CheckRow, GrantRow, LeaseRow, RevisionRow, Row, TaskRow
from jitvault.ledger.row_digests import CHANGED_BY_RENEWAL, COLUMNS, DIGESTED, edited_rows
from jitvault.ledger.rows import TABLES
from jitvault.ledger.storage.column_types import UtcTime
from jitvault.ledger.storage.database import Database, opened
from jitvault.ledger.upkeep import Upkeep
from jitvault.model.event_chain import link
from jitvault.model.evidence import Contiguous, Quiet
from jitvault.model.kinds import EventKind
from jitvault.model.states import EndReason, State, Verdict

LEASE_ROW = LeaseRow(LEASE, "t-1", "g-t-1-1", "database/creds/app-ro", "v-1", NOW, Verdict.LIVE, None)
ROWS: dict[type, Row] = {
    RevisionRow: replace(revision(), revision=2),
    GrantRow: grant(),
    LeaseRow: LEASE_ROW,
    CheckRow: CheckRow(1, ok=True, evidence=Contiguous("audit.log", 1, 2), task_id="t-1", subject=LEASE),
}
_CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "state": st.sampled_from([state.value for state in State]),
    "end_reason": st.sampled_from([None, *(reason.value for reason in EndReason)]),
    "verdict": st.sampled_from([verdict.value for verdict in Verdict]),
    "task_id": st.just("t-2"),
    "grant_id": st.just("g-t-2-2"),
    "parent": st.sampled_from([None, "t-2"]),
    "revision": st.sampled_from([1, 3]),
    "settled": st.booleans(),
}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Ledger]]:
    """A ledger with one task of which every column has a value, and another task."""
    database = opened(str(tmp_path_factory.mktemp("digests") / "ledger.db"), create=True)
    ledger = Ledger(database)
    make(ledger, "t-2")
    change(ledger, Change(EventKind.TOKEN_CREATED, rows=(grant("t-2", 2, accessor_hmac="other", settled=True),)), "t-2")
    first = replace(task(), receipt={"payload": "x"}, dead_ms=5, confirmed_ms=6, ending_at=NOW, ends_at=NOW)
    ledger.create(first, Change(EventKind.SUBMITTED, rows=(revision(),)), at=NOW)
    change(ledger, Change(EventKind.REVISED, fields={"revision": 2}, rows=tuple(ROWS.values())))
    yield database, ledger
    ledger.close()


def values_for(column: Column[Any]) -> st.SearchStrategy[Any]:
    """Values that somebody can set the column to."""
    if column.name in _CHOICES:
        return _CHOICES[column.name]
    match column.type:
        case UtcTime():
            return st.integers(-10_000, 10_000).map(lambda n: NOW + timedelta(hours=n, microseconds=n))
        case JSON():
            return st.dictionaries(st.text(max_size=3), st.integers(-9, 9) | st.booleans(), max_size=2)
        case Boolean():
            return st.booleans()
        case Integer():
            return st.integers(0, 10_000)
        case String():
            return st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)
    return st.binary(max_size=9)


@st.composite
def edits(draw: st.DrawFn, columns: dict[type, tuple[str, ...]]) -> tuple[type, str, Any]:
    kind, name = draw(st.sampled_from([(kind, name) for kind, names in columns.items() for name in names]))
    column = TABLES[kind].c[name]
    value = draw(values_for(column))
    assume(column.nullable or value is not None)
    return kind, name, value


def written(kind: type, ledger: Ledger) -> Row | TaskRow:
    return file_of(ledger).task if kind is TaskRow else ROWS[kind]


def set_column(database: Database, row: Row | TaskRow, name: str, value: Any, *, now: dict[str, Any]) -> None:
    table = TABLES[type(row)]
    keys = {c.name: now.get(c.name, getattr(row, c.name)) for c in table.primary_key}
    found = database.write(
        lambda c: c.execute(update(table).where(*(table.c[k] == v for k, v in keys.items())).values({name: value}))
    )
    assert found.rowcount == 1


# its own id cannot be changed while other rows refer to it; grants and leases keep theirs for the same reason
EDITABLE = {
    kind: tuple(name for name in names if (kind, name) != (TaskRow, "task_id")) for kind, names in DIGESTED.items()
}
REFERRED = {(GrantRow, "grant_id")}


@settings(max_examples=200, deadline=None)
@given(edit=edits({k: tuple(n for n in names if (k, n) not in REFERRED) for k, names in EDITABLE.items()}))
def test_an_edit_of_any_digested_column_is_found(held: tuple[Database, Ledger], edit: tuple[type, str, Any]) -> None:
    database, ledger = held
    kind, name, value = edit
    row = written(kind, ledger)
    before = getattr(row, name)
    assume(value != before)
    try:
        set_column(database, row, name, value, now={})
    except JitvaultError:
        # two rows would have one key, which the database itself refuses
        reject()
    try:
        found = edited_rows(file_of(ledger))
    except JitvaultError:
        found = ["it cannot be read"]
    finally:
        set_column(database, row, name, before, now={name: value})
    assert found
    assert edited_rows(file_of(ledger)) == []


@settings(max_examples=60, deadline=None)
@given(edit=edits({kind: tuple(sorted(names)) for kind, names in CHANGED_BY_RENEWAL.items()}))
def test_what_a_renewal_changes_is_no_edit(held: tuple[Database, Ledger], edit: tuple[type, str, Any]) -> None:
    database, ledger = held
    kind, name, value = edit
    row = written(kind, ledger)
    set_column(database, row, name, value, now={})
    found = edited_rows(file_of(ledger))
    set_column(database, row, name, getattr(row, name), now={})
    assert found == []


@pytest.mark.parametrize("kind", [GrantRow, LeaseRow, CheckRow])
def test_a_row_that_no_event_wrote_and_one_that_is_missing_are_found(held: tuple[Database, Ledger], kind: type) -> None:
    record: Any = file_of(held[1])
    part = TABLES[kind].name
    (row,) = getattr(record, part)
    key = {GrantRow: "grant_id", LeaseRow: "lease_id", CheckRow: "subject"}[kind]
    another = structs.replace if kind is CheckRow else replace
    more = replace(record, **{part: (row, another(row, **{key: "another"}))})
    assert [problem.partition(",")[2] for problem in edited_rows(more)] == [" and no event wrote it"]
    assert edited_rows(replace(record, **{part: ()}))[0].endswith("is missing")


verdicts = st.sampled_from(list(Verdict))
changed_rows = st.one_of(
    st.builds(lambda v, at: grant(verdict=v, expires_at=NOW + timedelta(microseconds=at)), verdicts, st.integers(0, 9)),
    st.builds(lambda v, n: replace(LEASE_ROW, verdict=v, lease_id=f"{LEASE}{n}"), verdicts, st.integers(0, 2)),
    st.builds(
        lambda n, ok, ms: CheckRow(n, ok, Quiet(ms), task_id="t-1", subject=LEASE),
        st.integers(1, 7),
        st.booleans(),
        st.integers(0, 5),
    ),
)
changes = st.builds(
    Change,
    st.sampled_from([EventKind.JUDGED, EventKind.CONFIRMED, EventKind.RENEW_INTENDED]),
    fields=st.fixed_dictionaries(
        {}, optional={"ends_at": st.just(NOW), "dead_ms": st.integers(0, 9), "due_at": st.none()}
    ),
    rows=st.lists(
        changed_rows, max_size=4, unique_by=lambda row: (type(row), getattr(row, "lease_id", getattr(row, "n", 0)))
    ),
)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger whose task the examples change, one after the other."""
    ledger = Ledger(opened(str(tmp_path_factory.mktemp("busy") / "ledger.db"), create=True))
    make(ledger)
    change(ledger, Change(EventKind.TOKEN_CREATED, rows=(grant(),)))
    yield ledger
    ledger.close()


@settings(max_examples=50, deadline=None)
@given(step=changes)
def test_what_the_ledger_writes_is_never_taken_for_an_edit(busy: Ledger, step: Change) -> None:
    with busy.claim("t-1") as claim:
        record = busy.change(file_of(busy), step, claim=claim, at=NOW)
    assert edited_rows(record) == edited_rows(file_of(busy)) == []


def test_what_a_renewal_writes_is_no_edit_and_makes_no_event(held: tuple[Database, Ledger]) -> None:
    ledger = held[1]
    record = file_of(ledger)
    rows = (replace(record.grants[-1], renew_at=NOW), replace(LEASE_ROW, renew_at=NOW + timedelta(hours=1)))
    with ledger.claim("t-1") as claim:
        after = ledger.keep_up(record, Upkeep("t-1", claim, rows, {"due_at": NOW}))
    assert after == file_of(ledger) != record and after.events == record.events
    assert edited_rows(after) == []


def test_digests_of_other_columns_are_refused(held: tuple[Database, Ledger]) -> None:
    record = file_of(held[1])
    last = record.events[-1]
    body = {"rows": {"columns": COLUMNS + 1, "digests": {}}}
    event = link("t-1", last.seq + 1, last.hash, "noted", last.at, body)
    problems = edited_rows(replace(record, events=(*record.events, event)))
    assert problems == [f"event {event.seq} has digests of columns that this version does not know"]


def test_a_change_of_the_digested_columns_raises_their_version() -> None:
    """These are the columns of version 1: whoever changes them raises `COLUMNS` and `GENERATION`."""
    left_out = {
        kind.__name__: sorted({column.name for column in TABLES[kind].c} - set(names))
        for kind, names in DIGESTED.items()
    }
    assert (COLUMNS, left_out) == (
        1,
        {
            "TaskRow": ["claim_epoch", "claim_until", "due_at", "head", "keeper", "seq", "version"],
            "RevisionRow": [],
            "GrantRow": ["renew_at"],
            "LeaseRow": ["renew_at"],
            "CheckRow": [],
        },
    )
    assert [len(names) for names in DIGESTED.values()] == [14, 5, 23, 8, 5]
