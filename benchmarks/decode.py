"""How fast the audit stream is read."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternate, milliseconds, ratio
from jitvault.audit.decoding import decode
from jitvault.audit.file import FileSource
from jitvault.domain.observation import Place

LINES = 100_000
RELEVANT = LINES // 50
TIMES = 5


def run(audit_file: Path, directory: Path) -> list[Figure]:
    """The audit source over 100,000 lines of which 2 % matter, against json.loads of each line.

    The lines are the server's own, from the run so far, each with a request id of its own. What the source
    finds in them is counted; what the ledger does with it is not part of this.
    """
    path = directory / "audit.log"
    with path.open("wb") as file:
        file.writelines(_lines(audit_file))
    rates = alternate(TIMES, lambda: _rate(lambda: _by_source(path)), lambda: _rate(lambda: _by_json(path)))
    own, reference = rates
    mean = path.stat().st_size // LINES
    path.unlink()
    said = f"json.loads of the same {LINES:,} lines of {mean:,} bytes on average, {TIMES} pairs"
    return [
        Figure("audit_decode_lines_per_s", median(own), "lines/s", said, better="higher"),
        Figure("json_decode_lines_per_s", median(reference), "lines/s", "itself", better="higher"),
        Figure("audit_decode_ratio", ratio(own, reference), "ratio", said, better="higher"),
    ]


def _lines(audit_file: Path) -> Iterator[bytes]:
    """The server's lines over and over: 1 of 50 is one that matters."""
    relevant: list[bytes] = []
    others: list[bytes] = []
    with audit_file.open("rb") as file:
        for n, line in enumerate(file):
            (relevant if decode(line, Place("bench", 1, n)) else others).append(line)
    ours, theirs = itertools.cycle(relevant), itertools.cycle(others)
    for n in range(LINES):
        line = next(ours) if n % (LINES // RELEVANT) == 0 else next(theirs)
        known = json.loads(line)["request"].get("id", "")
        yield line.replace(known.encode(), str(uuid.uuid4()).encode()) if known else line


def _rate(read: Callable[[], None]) -> float:
    return LINES / milliseconds(read) * 1000


def _by_source(path: Path) -> None:
    source = FileSource(path, name="bench")
    lines = found = 0
    for batch in source.read(replace(source.start(), offset=0)):
        lines += batch.lines
        found += len(batch.observations)
        if batch.gaps:
            raise RuntimeError(f"the source found a gap: {batch.gaps[0]}")
    if (lines, found) != (LINES, RELEVANT):
        raise RuntimeError(f"the source read {lines} lines and found {found}")


def _by_json(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
