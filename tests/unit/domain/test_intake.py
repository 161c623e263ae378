"""Which task a document is about; nothing that cannot be a task's gets any further."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.domain.intake import REQUEST_LIFE, Wanted, is_stale, wanted


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("requests/e-1/t-1/submit", Wanted("t-1", "e-1", grants=True)),
        ("requests/e-1/t-1/grant", Wanted("t-1", "e-1", grants=True)),
        ("requests/e-1/t-1/end", Wanted("t-1", "e-1", ends=True)),
        ("decisions/e-2/t-1", Wanted("t-1")),
        ("decisions/e-2/t-1/extend/" + "0a" * 16, Wanted("t-1")),
        ("decisions/e-2/t-1/extend/" + "0a" * 17, None),
        ("requests/e-1/t-1/extend", Wanted("t-1", "e-1")),
        ("decisions/e-2/t-1/withdraw", Wanted("t-1", ends=True)),
        ("freezes/e-1/all", Wanted(freezes=True)),
        ("requests/e-1/t-1", None),
        ("requests/e-1/../submit", None),
        ("requests/e-1/T 1/submit", None),
        ("requests/e-1/" + "t" * 64 + "/submit", None),
        ("tasks/t-1", None),
        ("", None),
    ],
)
def test_what_a_document_asks_for(path: str, expected: Wanted | None) -> None:
    assert wanted(path) == expected


@given(st.text(max_size=80))
def test_a_task_id_that_comes_out_is_one_part_of_a_path(path: str) -> None:
    for prefix in ("requests/e/", "decisions/e/", ""):
        found = wanted(prefix + path)
        assert found is None or (not set(found.task_id) & set("/\\ \n%?#") and ".." not in found.task_id)


@given(st.timedeltas(timedelta(0), timedelta(days=4000)), st.timedeltas(timedelta(0), timedelta(days=4000)))
def test_a_request_that_is_too_old_is_never_young_again(age: timedelta, more: timedelta) -> None:
    written = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    assert is_stale(written, written + age) == (age >= REQUEST_LIFE)
    assert is_stale(written, written + age + more) or not is_stale(written, written + age)
