"""A mutation, and the tables that they are kept in."""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Stale(Exception):
    """The code that a mutation breaks is no longer there, or not in one place alone."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break the code: in `file`, what reads `old` becomes `new`.

    `within` is the qualified name of the function or class that `old` stands in once, or a constant's; where it is
    empty, `old` stands once in the file. White space is not compared, so that a text may move, be indented otherwise,
    and be broken into other lines. The first line of `new` goes where `old` begins, and further lines keep their
    indentation relative to it.

    `breaks` says which numbered check or rule that takes away, `tests` are pytest's words for the tests that turn red.
    """

    table: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    within: str = ""

    def applied(self, text: str) -> str:
        """Return a file's text with the mutation in it. Raises Stale."""
        begin, end = scope(text, self.within)
        found = list(_places(text, self.old, begin, end))
        where = f"{self.within} of {self.file}" if self.within else self.file
        if len(found) != 1:
            raise Stale(f"its old text occurs {len(found)} times in {where}")
        ((begin, end),) = found
        line = text[text.rfind("\n", 0, begin) + 1 : end]
        margin = line[: len(line) - len(line.lstrip())]
        first, *others = textwrap.dedent(self.new.strip("\n").rstrip()).split("\n")
        outer = margin[len(first) - len(first.lstrip()) :]
        broken = text[:begin] + "\n".join([first.lstrip(), *(outer + other for other in others)]) + text[end:]
        if broken == text:
            raise Stale("it changes nothing")
        return broken

    def why_stale(self, root: Path) -> str:
        """Why it cannot be applied to the checkout at `root`; empty where it can."""
        try:
            self.applied((root / self.file).read_text())
        except Stale as stale:
            return str(stale)
        missing = [test for test in self.tests if not (root / test.partition("::")[0]).exists()]
        return f"there is no {missing[0]}" if missing else ""


def scope(text: str, within: str) -> tuple[int, int]:
    """Return where the named function, class or constant begins and ends. Raises Stale."""
    if not within:
        return 0, len(text)
    found = [lines for name, lines in _definitions(text) if name == within]
    if len(found) != 1:
        raise Stale(f"{within} is defined {len(found)} times")
    ((first, last),) = found
    lines = text.split("\n")
    return len("\n".join(lines[: first - 1])), len("\n".join(lines[:last]))


@lru_cache(None)
def _definitions(text: str) -> tuple[tuple[str, tuple[int, int]], ...]:
    """Return each definition's qualified name, with its first line and its last."""
    return tuple((name, (_first_line(node), node.end_lineno or 0)) for name, node in _named(ast.parse(text), ""))


def _first_line(node: ast.stmt) -> int:
    return min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))


def _named(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each definition below a node, with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name, child
            yield from _named(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            yield from ((prefix + name, child) for name in names)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _named(child, prefix)


def _places(text: str, wanted: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the text has what is wanted, white space apart."""
    at = [n for n in range(begin, end) if not text[n].isspace()]
    compact, wanted = "".join(text[n] for n in at), "".join(wanted.split())
    found = compact.find(wanted)
    while found >= 0:
        yield at[found], at[found + len(wanted) - 1] + 1
        found = compact.find(wanted, found + 1)


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
