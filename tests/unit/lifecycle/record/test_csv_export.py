"""No cell of a report is a formula, whatever separates the cells in the spreadsheet that opens it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jitvault.lifecycle.record.csv_export import as_csv

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
HOSTILE = st.text(st.sampled_from([*SIGNS, *",;\t\r\n|\"' \xa0\u200b\ufeffx1", "\u2028"]), max_size=12)
OPENED = '=HYPERLINK("https://example.org")'


def begins(cell: str) -> str:
    """Return the first character that a spreadsheet looks at: blanks, quotes and what is invisible are no content.

    An apostrophe is: it makes a text of the cell.
    """
    return next((c for c in cell if c != '"' and unicodedata.category(c)[0] not in "ZC"), "")


def opened(text: str, delimiter: str, *, quoted: bool, trimmed: bool) -> list[str]:
    """Return the cells as a spreadsheet with that delimiter has them, also one that knows no quotation marks."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, skipinitialspace=trimmed)
    return [cell for row in lines for cell in row]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("trimmed", [True, False])
@given(cells=st.lists(HOSTILE, min_size=1, max_size=4))
@example(cells=["x", f"y;{OPENED}"])
@example(cells=["x", f'y;"{OPENED}'])
@example(cells=["x", f"y\n{OPENED}"])
@example(cells=["\uff1d1+1"])
def test_no_cell_begins_with_the_sign_of_a_formula(
    delimiter: str, quoted: bool, trimmed: bool, cells: list[str]
) -> None:
    names = [f"c{n}" for n in range(len(cells))]
    text = as_csv([dict(zip(names, cells, strict=True))], names)
    firsts = [begins(cell) for cell in opened(text, delimiter, quoted=quoted, trimmed=trimmed)]
    assert not [first for first in firsts if first and first in SIGNS]


@given(cells=st.lists(HOSTILE | st.text(), min_size=1, max_size=4))
def test_what_was_written_can_be_read_back(cells: list[str]) -> None:
    """As docs/auditors.md says: one apostrophe before a sign is taken away again."""
    names = [f"c{n}" for n in range(len(cells))]
    _, row = csv.reader(io.StringIO(as_csv([dict(zip(names, cells, strict=True))], names), newline=""))
    signs = re.escape(SIGNS)
    before = re.compile(rf"((?:^|[,;|\t-\r\x1c-\x1e\x85\u2028\u2029])[^\w{signs}]*)'(?=[{signs}])")
    assert [before.sub(r"\1", cell) for cell in row] == cells


def test_prose_and_numbers_are_as_they_were() -> None:
    row = {
        "why": "it is slow - 50% of a+b, mail x@example.org; a=b",
        "checks": [{"n": 1, "ok": True}],
        "n": -5,
        "asked": False,
    }
    assert as_csv([row], list(row)).splitlines()[1] == f'"{row["why"]}",1+,\'-5,false'
