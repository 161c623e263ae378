"""Literals with which rules compare: levels that are none, and networks.

The levels are a risk, a tier and a criticality. Cedar knows all three as strings, so `context.risk == "medum"`
validates, and never holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jitvault.formats.did_you_mean import nearest
from jitvault.policy.cedar_json import expressions
from jitvault.policy.decision import Level
from jitvault.policy.rule import Rule

_LEVELS = tuple(level.value for level in Level)
# each has its name on one side and a literal, or a set of literals, on the other
_COMPARISONS = ("==", "!=", "contains")
_NAMES = frozenset({"risk", "tier", "criticality"})


def unknown_levels(rules: Sequence[Rule]) -> list[str]:
    """Return each comparison with a literal that is no level, in words, once."""
    found: dict[str, None] = {}
    for rule, name, literal in _comparisons(rules):
        if name in _NAMES and literal not in _LEVELS:
            found[_told(rule.id, name, literal)] = None
    return list(found)


def networks_named(rules: Iterable[Rule]) -> frozenset[str]:
    """Return the networks that rules compare a task's network with."""
    return frozenset(literal for _, name, literal in _comparisons(rules) if name == "network" and literal)


def _comparisons(rules: Iterable[Rule]) -> Iterator[tuple[Rule, str, str]]:
    """Yield each rule with an attribute and a literal that it compares."""
    for rule in rules:
        for condition in sorted(rule.scope.conditions):
            yield from ((rule, name, literal) for name, literal in _compared(json.loads(condition)))


def _told(rule: str, name: str, literal: str) -> str:
    shown = json.dumps(literal, ensure_ascii=True)[:60]
    return f"rule {rule} compares {name} with {shown}, which is none of {', '.join(_LEVELS)}{nearest(literal, _LEVELS)}"


def _compared(value: object) -> Iterator[tuple[str, str]]:
    """Yield each attribute with a literal that it is compared with, wherever the comparison is."""
    for expression in expressions(value):
        for operator in _COMPARISONS:
            if isinstance(inner := expression.get(operator), Mapping):
                yield from _sides(inner.get("left"), inner.get("right"))


def _sides(left: Any, right: Any) -> Iterator[tuple[str, str]]:
    for one, other in ((left, right), (right, left)):
        name = _attribute(one)
        if name is not None:
            yield from ((name, literal) for literal in _literals(other))


def _attribute(value: Any) -> str | None:
    """Return `risk` for `context.risk` in Cedar's JSON, else None."""
    if not isinstance(value, Mapping) or not isinstance(value.get("."), Mapping):
        return None
    name = value["."].get("attr")
    return name if isinstance(name, str) else None


def _literals(value: Any) -> Iterator[str]:
    """Yield the strings of a literal, or of a set of literals."""
    if not isinstance(value, Mapping):
        return
    if isinstance(value.get("Value"), str):
        yield value["Value"]
    for member in value.get("Set") or ():
        yield from _literals(member)
