from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import jitvault
from jitvault.formats.rfc3339 import rfc3339

PACKAGE = Path(jitvault.__file__).parent
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2000, 1, 2), datetime(2999, 12, 30), timezones=OFFSETS)  # noqa: DTZ001 - naive bounds


class _Document(msgspec.Struct):
    at: datetime


@given(TIMES)
def test_a_time_has_the_form_of_the_times_in_a_struct_and_is_read_back_exactly(at: datetime) -> None:
    text = rfc3339(at)
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == at
    assert msgspec.to_builtins(_Document(at.astimezone(UTC))) == {"at": text}


def test_times_are_written_in_one_place() -> None:
    elsewhere = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "isoformat"
    ]
    assert elsewhere == []
