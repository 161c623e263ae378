"""`python -m benchmarks.code_lines`: count the lines of code below `jitvault/`, package by package.

A line counts where a token of code stands on it: comments, blank lines and docstrings do not. A name after the command
counts another tree: `python -m benchmarks.code_lines ../before/jitvault`. `--forms` also counts ternaries, assignments
of tuples to tuples, and comprehensions.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jitvault

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def main(arguments: list[str]) -> None:
    """Print the count of each package and of the whole tree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.code_lines")
    parser.add_argument("tree", nargs="?", type=Path, default=Path(jitvault.__file__).parent)
    parser.add_argument("--forms", action="store_true")
    chosen = parser.parse_args(arguments)
    lines: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for file in sorted(chosen.tree.rglob("*.py")):
        text = file.read_text()
        lines[_package(file.relative_to(chosen.tree))] += code_lines(text)
        forms.update(used_forms(text))
    for package, count in lines.most_common():
        print(f"{count:7,}  {package}")
    print(f"{lines.total():7,}  in all")
    if chosen.forms:
        for form, count in sorted(forms.items()):
            print(f"{count:7,}  {form}")


def code_lines(text: str) -> int:
    """Return how many lines of a module hold code that is no docstring."""
    lines = set(_lines_with_tokens(text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def used_forms(text: str) -> Iterator[str]:
    """Yield the name of each ternary, assignment of a tuple to a tuple and comprehension in a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.IfExp):
            yield "ternaries"
        elif isinstance(node, _COMPREHENSIONS):
            yield "comprehensions"
        elif isinstance(node, ast.Assign) and _are_tuples(node.targets[0], node.value):
            yield "tuple assignments"


def _lines_with_tokens(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            # a string of several lines is code on each of them
            yield from range(token.start[0], token.end[0] + 1)


def _are_tuples(*nodes: ast.expr) -> bool:
    return all(isinstance(node, ast.Tuple) for node in nodes)


def _package(file: Path) -> str:
    return file.parts[0] if len(file.parts) > 1 else "."


if __name__ == "__main__":
    main(sys.argv[1:])
