"""Export a report as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

# a cell that begins with one of these is a formula to a spreadsheet
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a header and one line per row.

    Lists are joined with spaces, and checks read like `1+ 2+ 3-`.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, list):
        text = " ".join(f"{v['n']}{'+' if v['ok'] else '-'}" if isinstance(v, dict) else str(v) for v in value)
    else:
        text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) else text
