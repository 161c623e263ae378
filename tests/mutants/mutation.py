"""A mutation, and the tables that they are kept in."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break the code: in `file` the text `old`, which occurs once, becomes `new`.

    `breaks` says which numbered check or rule that takes away, `tests` are pytest's words for the tests that turn red.
    """

    table: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def why_stale(self, root: Path) -> str:
        """Why it cannot be applied to the checkout at `root`; empty where it can."""
        found = (root / self.file).read_text().count(self.old)
        if found != 1:
            return f"its old text occurs {found} times in {self.file}"
        if self.old == self.new:
            return "it changes nothing"
        missing = [test for test in self.tests if not (root / test.partition("::")[0]).exists()]
        return f"there is no {missing[0]}" if missing else ""


def mutations() -> list[Mutation]:
    """Of all tables. A table's own `file` and `tests` are those of its mutations that name none."""
    found = []
    for path in sorted(HERE.glob("*.toml")):
        table = tomllib.loads(path.read_text())
        given = {"file": table.get("file", ""), "tests": table.get("tests", [])}
        for row in table["mutation"]:
            fields = {**given, **row}
            found.append(Mutation(**{**fields, "table": path.stem, "tests": tuple(fields["tests"])}))
    return found
