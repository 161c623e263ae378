"""What a figure is, and how two things are measured against each other on a noisy machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

Better = Literal["lower", "higher"]
_MB, _TICKS = 2**20, os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `against` says what was measured beside it in the same run, in words.

    A figure without a bar is there to be read: it is always ok.
    """

    name: str
    value: float
    unit: str
    against: str
    better: Better = "lower"
    bar: float | None = None

    @property
    def ok(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "bar": self.bar,
            "better": self.better,
            "ok": self.ok,
        }


def rounded(value: float) -> float:
    """Three decimals below a hundred, none above: more is noise."""
    return round(value, 3) if abs(value) < 100 else round(value)


def milliseconds(act: Callable[[], object]) -> float:
    """How long `act` takes, by the wall."""
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1000


def alternate(times: int, *sides: Callable[[], float]) -> list[list[float]]:
    """The measures of each side, taken in turn, A B A B …, so that the machine's drift hits all alike.

    Each side is run once before, and that measure is thrown away.
    """
    taken = [[side() for side in sides] for _ in range(times + 1)]
    return [list(measures) for measures in zip(*taken[1:], strict=True)]


def ratio(measured: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of neighbours: what both met at the same moment cancels."""
    return median(a / b for a, b in zip(measured, reference, strict=True))


@dataclass
class Process:
    """What a process uses: seconds of processor while it is `measured`, and the most memory that it ever had."""

    pid: int
    used_s: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        before = cpu_s(self.pid)
        yield
        self.used_s = cpu_s(self.pid) - before

    @property
    def peak_mb(self) -> float:
        line = next(s for s in Path(f"/proc/{self.pid}/status").read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / _MB


def cpu_s(pid: int) -> float:
    """The seconds of processor that a process has used so far."""
    # after the name, which may hold anything; utime and stime are the 14th and 15th of all
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
