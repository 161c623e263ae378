"""Rows in columns: one line a row in a pipe, and what matters most on a narrow terminal."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.cli.views.console import PlainConsole
from jitvault.cli.views.listing import Cell, Column, Row, print_listing

COLUMNS = [Column("task"), Column("state"), Column("agent", spare=1), Column("template", spare=2), Column("waits for")]
ROWS: list[Row] = [
    ["count-orders", Cell("active", "bold"), "research-agent", "postgres-readonly", ""],
    [
        "fix",
        "pending_approval",
        "research-agent",
        "postgres-readwrite",
        "1 of jitvault-approvers, 1 of jitvault-security",
    ],
]


def printed(rows: list[Row], *, width: int | None, columns: list[Column] = COLUMNS) -> list[str]:
    """The lines on a terminal of that width, or in a pipe without one."""
    file = io.StringIO()
    console = PlainConsole()
    console.file = file
    console._force_terminal = width is not None
    console.width = width or 80
    print_listing(console, columns, rows)
    return file.getvalue().splitlines()


def test_a_pipe_gets_every_column_and_one_line_a_row() -> None:
    head, first, second = printed(ROWS, width=None)
    assert head.split() == ["task", "state", "agent", "template", "waits", "for"]
    assert first.split() == ["count-orders", "active", "research-agent", "postgres-readonly", "-"]
    assert second.endswith("postgres-readwrite  1 of jitvault-approvers, 1 of jitvault-security")
    assert {line.index("research-agent") for line in (first, second)} == {head.index("agent")}


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (130, ["task", "state", "agent", "template", "waits for"]),
        (100, ["task", "state", "agent", "template", "waits for"]),
        (80, ["task", "state", "agent", "waits for"]),
        (60, ["task", "state", "waits for"]),
    ],
)
def test_a_narrow_terminal_does_without_what_matters_least(width: int, titles: list[str]) -> None:
    lines = printed(ROWS, width=width)
    assert [title.strip() for title in lines[0].split("  ") if title.strip()] == titles
    assert max(map(len, lines)) <= width
    said = " ".join(" ".join(lines).split())
    assert "1 of" in said and said.count("jitvault-") == 2, "the last column is folded, not cut"


def test_what_is_never_left_out_is_left_to_the_terminal_to_break() -> None:
    (_, _, first, *_) = printed(ROWS, width=20)
    assert first == "count-orders  active"


def test_a_column_without_content_takes_no_room_on_a_terminal() -> None:
    lines = printed([ROWS[0]], width=80)
    assert lines[0].split() == ["task", "state", "agent", "template"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_text_begins_a_line_or_reaches_the_terminal_as_a_command(text: str) -> None:
    for width in (None, 60):
        lines = printed([["a", text, "", "", text], ["b", "", "", "", "end"]], width=width)
        assert lines[-1].startswith("b ")
        assert not any(unicodedata.category(c) == "Cc" for line in lines for c in line)
    assert len(printed([["a", text, "", "", text]], width=None)) == 2
