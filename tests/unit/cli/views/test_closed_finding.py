"""How `findings list` says who closed a finding: its own words are told from the reason, which is another's."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

from jitvault.cli.views.findings import closed_line

REASON = "the clock of the host was wrong by an hour, and it was set"
ROW: dict[str, Any] = {
    "closed_at": "2030-01-31T09:00:00Z",
    "closed_by": "ines",
    "closed_by_entity": "0f" * 16,
    "closed_why": REASON,
}
SAID = f"closed 2030-01-31 09:00:00 UTC by ines (entity {'0f' * 16}):"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [50, 80, 120])
def test_only_the_lines_of_the_reason_are_marked(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = closed_line(ROW, Terminal()).split("\n")
    marked = [line.partition("| ")[2] for line in lines if "|" in line]
    assert " ".join(line.strip() for line in lines if "|" not in line) == SAID
    assert " ".join(marked) == REASON and all(len(line) <= width for line in lines)


def test_it_is_one_line_where_that_fits_and_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert closed_line(ROW, Terminal()) == closed_line(ROW, StringIO()) == f"      {SAID} {REASON}"
