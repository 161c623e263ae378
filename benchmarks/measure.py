"""What a figure is, and how two things are measured against each other on a noisy machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["lower", "higher"]


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
