"""Which format a report has: as chosen, or by the ending of its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitvault.cli.commands.reading.report import ReportFormat, _format_of
from jitvault.errors import UsageError

JSON, CSV = ReportFormat.JSON, ReportFormat.CSV


@pytest.mark.parametrize(
    ("chosen", "out", "expected"),
    [
        (None, None, JSON),
        (None, "r.json", JSON),
        (None, "R.CSV", CSV),
        (None, "report", JSON),
        (CSV, "r.pdf", CSV),
        (CSV, "r.json", None),
        (None, "r.pdf", None),
        (None, "week.csv.gz", None),
    ],
)
def test_the_format_is_the_chosen_one_or_that_of_the_ending(
    chosen: ReportFormat | None, out: str | None, expected: ReportFormat | None
) -> None:
    file = Path(out) if out else None
    if expected is not None:
        assert _format_of(chosen, file) is expected
        return
    with pytest.raises(UsageError) as caught:
        _format_of(chosen, file)
    assert str(out) in str(caught.value) and caught.value.hint
