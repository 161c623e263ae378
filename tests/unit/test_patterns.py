"""Every regular expression in the code takes time that grows with the length of its text, and no faster.

Strangers choose what they run on: whatever reaches Vault stands in the audit log. The hostile texts are made from each
expression's own parts, so that a new one is tried without anybody thinking of a text for it.
"""

from __future__ import annotations

import ast
import importlib
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import jitvault

try:
    from re import _parser as parser  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover
    import sre_parse as parser  # type: ignore[no-redef]

ROOT = Path(jitvault.__file__).parent
ANYWHERE = frozenset({"search", "sub", "subn", "split", "findall", "finditer"})
WAYS = ANYWHERE | {"match", "fullmatch"}
SHORT, LONG = 2_000, 16_000
# a step of a linear expression is some 10 to 100 ns; a quadratic one takes 100 ms and more for the long text
FLOOR_S = 0.0004
GROWTH = 2.5 * LONG / SHORT
CAP_S = 0.3
# texts that hurt a pattern whatever it looks for
GENERIC = (" ", "a", "0", ".", "/", "-", "a/", "a.", "\\", '"', "\n", "\t ", "\u00e9")
TAILS = ("", "\x00", "!", "\n!")
# the resolvers of YAML call them so
CALLED = {"_INT": "match", "_FLOAT": "match"}
# what is put together where it is used
LOCAL = {
    ("jitvault.audit.files.log_directory", "match"): r"[-._]\d{4}|[.]\d+\.log",
    ("jitvault.formats.fields", "fullmatch"): "",
    ("jitvault.provision.who_may", "fullmatch"): "jitvault/data/requests/[^/]+/[^/]+/.*",
}


@dataclass(frozen=True)
class Expression:
    where: str
    pattern: re.Pattern[Any]
    anywhere: bool

    def run(self, text: str) -> None:
        subject = text if isinstance(self.pattern.pattern, str) else text.encode("latin-1", errors="replace")
        if self.anywhere:
            deque_of(self.pattern.finditer(subject))
        else:
            self.pattern.match(subject)
            self.pattern.fullmatch(subject)


def deque_of(found: Iterator[object]) -> None:
    for _ in found:
        pass


# -- which there are --------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[ModuleType, ast.Module]]:
    for file in sorted(ROOT.rglob("*.py")):
        if "migrations" in file.parts or file.name == "__main__.py":
            continue
        name = ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        yield importlib.import_module(name), ast.parse(file.read_text())


def is_re(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re"


def ways_by_name(trees: Iterable[ast.Module]) -> dict[str, set[str]]:
    """How the compiled expressions are used, by the names that they have."""
    found: dict[str, set[str]] = defaultdict(set)
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in WAYS:
                found[node.value.id].add(node.attr)
    return found


@cache
def expressions() -> tuple[Expression, ...]:
    return tuple({(e.pattern, e.anywhere): e for e in _found()}.values())


def _found() -> Iterator[Expression]:
    every = list(modules())
    used = ways_by_name(tree for _, tree in every)
    for module, tree in every:
        names, bound = _names(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "Name" and call.args:
                yield _expression(module, call, {"fullmatch"})
            elif is_re(call.func) and call.func.attr in WAYS:  # type: ignore[attr-defined]
                yield _expression(module, call, {call.func.attr})  # type: ignore[attr-defined]
            elif is_re(call.func) and call.func.attr == "compile":  # type: ignore[attr-defined]
                ways = bound.get(call) or used.get(names.get(call, "")) or {CALLED.get(_label(tree, call), "search")}
                yield _expression(module, call, ways)


def _names(tree: ast.Module) -> tuple[dict[ast.Call, str], dict[ast.Call, set[str]]]:
    """The name of each expression that is compiled, and the method of those of which only that is kept."""
    names: dict[ast.Call, str] = {}
    bound: dict[ast.Call, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            names[node.value] = node.targets[0].id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and node.attr in WAYS:
            bound[node.value] = {node.attr}
    return names, bound


def _label(tree: ast.Module, call: ast.Call) -> str:
    """The name that stands before the expression in a pair."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and call in node.elts and isinstance(node.elts[0], ast.Name):
            return node.elts[0].id
    return ""


def _expression(module: ModuleType, call: ast.Call, ways: set[str]) -> Expression:
    source, where = call.args[0], f"{module.__name__}:{call.lineno}"
    try:
        text = eval(compile(ast.Expression(source), where, "eval"), vars(module))
    except NameError:
        text = LOCAL[module.__name__, *ways]
    is_compile = isinstance(call.func, ast.Attribute) and call.func.attr == "compile"
    flags = call.args[1:2] if is_compile else []
    known = [eval(compile(ast.Expression(flag), where, "eval"), vars(module)) for flag in flags]
    return Expression(where, re.compile(text, *known), bool(ways & ANYWHERE))


# -- what hurts them --------------------------------------------------------------------------------------


def hostile(pattern: str | bytes) -> set[tuple[str, str]]:
    """Beginnings, and what to repeat after them: from the parts of the expression, and from what hurts any."""
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    found: set[tuple[str, str]] = {("", one) for one in GENERIC}
    _walk(parser.parse(text), "", found)
    whole = _sample(parser.parse(text))
    return {(head, pump) for head, pump in found if pump} | ({("", whole)} if whole else set())


def _walk(items: Any, before: str, found: set[tuple[str, str]]) -> None:
    """Each repetition with what leads to it: repeat what it repeats, and what stands before it."""
    for op, value in items:
        name = str(op)
        if name.endswith("REPEAT"):
            body = _sample(value[2])
            found |= {(before, body), ("", before + body), ("", before), (before, " "), (before, "a")}
            _walk(value[2], before, found)
        for part in _parts(name, value):
            _walk(part, before, found)
        before += _sample([(op, value)])
        found.add(("", before))


def _parts(name: str, value: Any) -> list[Any]:
    if name == "SUBPATTERN":
        return [value[3]]
    if name == "BRANCH":
        return list(value[1])
    if name in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    return [value] if name == "ATOMIC_GROUP" else []


def _sample(items: Any) -> str:
    """A short text that the items take."""
    return "".join(_one(str(op), value) for op, value in items)


def _one(name: str, value: Any) -> str:
    if name == "LITERAL":
        return chr(value)
    if name == "IN":
        return _member(value)
    if name in ("ANY", "NOT_LITERAL"):
        return "a" if value != ord("a") else "b"
    if name.endswith("REPEAT"):
        return _sample(value[2]) * max(1, min(value[0], 80))
    if name == "BRANCH":
        return _sample(value[1][0])
    return _sample(part) if name in ("SUBPATTERN", "ATOMIC_GROUP") and (part := _parts(name, value)[0]) else ""


def _member(members: Any) -> str:
    """A character of a class: of one that says what is not in it, one that is usual."""
    if str(members[0][0]) == "NEGATE":
        accepted = re.compile("[^" + "".join(_as_class(op, value) for op, value in members[1:]) + "]")
        return next(c for c in chain("a0 .-_!\u00e9\x01\n\x00", map(chr, range(256))) if accepted.match(c))
    op, value = members[0]
    if str(op) == "CATEGORY":
        return {"SPACE": " ", "DIGIT": "0", "WORD": "a"}.get(str(value).rpartition("_")[2], "a")
    return chr(value if str(op) == "LITERAL" else value[0])


def _as_class(op: Any, value: Any) -> str:
    if str(op) == "CATEGORY":
        return {"SPACE": r"\s", "DIGIT": r"\d", "WORD": r"\w"}.get(str(value).rpartition("_")[2], "")
    return re.escape(chr(value)) if str(op) == "LITERAL" else f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"


# -- what they cost ---------------------------------------------------------------------------------------


class TooSlow(Exception):
    pass


@contextmanager
def capped(seconds: float) -> Iterator[None]:
    """End an expression that does not come to an end: the engine looks for signals while it works."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def cost(run: Callable[[str], None], text: str) -> float:
    """Of this thread alone: what others do on the machine hardly counts."""
    begun = time.thread_time()
    run(text)
    return time.thread_time() - begun


def slow_on(expression: Expression) -> str:
    """A text on which the expression is slow, and how slow; empty where there is none."""
    for head, pump in sorted(hostile(expression.pattern.pattern)):
        for tail in TAILS:
            if why := grows_too_fast(expression, head, pump, tail):
                return f"{head[:60]!r} + n * {pump[:60]!r} + {tail!r}: {why}"
    return ""


def grows_too_fast(expression: Expression, head: str, pump: str, tail: str) -> str:
    """Why the cost of a text grows faster than its length; empty where it does not. What is slow is tried again."""

    def text(length: int) -> str:
        return head + pump * (length // len(pump)) + tail

    for _ in range(3):
        try:
            with capped(CAP_S):
                # an expression that is exponential is found here, before the long texts
                expression.run(text(30))
                short, long = cost(expression.run, text(SHORT)), cost(expression.run, text(LONG))
        except TooSlow:
            return f"more than {CAP_S} s"
        if long <= GROWTH * max(short, FLOOR_S):
            return ""
    return f"{short * 1e3:.2f} ms for {SHORT} characters, {long * 1e3:.2f} ms for {LONG}"


@pytest.mark.parametrize("part", sorted(file.stem for file in ROOT.iterdir() if not file.name.startswith("__")))
def test_an_expression_takes_no_longer_than_in_proportion(part: str) -> None:
    """Of one package at a time. Who only collects tests does not look for the expressions."""
    of_this = [e for e in expressions() if f"{e.where.replace(':', '.')}.".startswith(f"jitvault.{part}.")]
    assert {(e.where, e.pattern.pattern): why for e in of_this if (why := slow_on(e))} == {}


def test_every_expression_is_of_a_package() -> None:
    parts = {file.stem for file in ROOT.iterdir()}
    assert {e.where.split(":")[0].split(".")[1] for e in expressions()} <= parts


@pytest.mark.parametrize("pattern", [r"(\s*\*?\s*denied)+\s*", "ALERT.*X", "(a+)+b", "[0-9]*[0-9a]*z", "x.*y.*z"])
def test_a_bad_expression_is_found(pattern: str) -> None:
    assert slow_on(Expression("", re.compile(pattern), anywhere=True))


def test_they_are_all_found() -> None:
    there = {e.where.partition(":")[0] for e in expressions()}
    assert {
        "jitvault.audit.classify",
        "jitvault.audit.decoding.json_tokens",
        "jitvault.formats.fields",
        "jitvault.http.connection",
    } <= there
