"""Export a report as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

# a cell that begins with one of these is a formula to a spreadsheet, with a full-width one as well
_SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20"
# Where a cell may begin: another spreadsheet expects another separator, and then ends ours at their line ends.
_SEPARATORS = r",;|\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029"
# Spreadsheets look past blanks and quotes. Whatever else is no word is looked past here as well, up to the next
# separator: past it, each of a row of separators would read the same text again.
_FORMULA = re.compile(rf"((?:^|[{_SEPARATORS}])[^\w{_SIGNS}{_SEPARATORS}]*)(?=[{_SIGNS}])")


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a header and one line per row.

    Lists are joined with spaces, and checks read like `1+ 2+ 3-`. An apostrophe stands before each sign that would
    begin a formula.
    """
    return "".join([_line(columns), *(_line([_cell(row[name]) for name in columns]) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    # it quotes a cell that has a character of its own line end: a carriage return alone ends a row, too
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list):
        text = " ".join(f"{v['n']}{'+' if v['ok'] else '-'}" if isinstance(v, dict) else str(v) for v in value)
    elif isinstance(value, bool):
        # as JSON writes it
        text = str(value).lower()
    else:
        text = "" if value is None else str(value)
    return _FORMULA.sub(r"\1'", text)
