"""What conditions of rules name: unknown levels and templates, networks, and missing guards.

The levels are a risk, a tier and a criticality. Cedar knows all three as strings, and a template by its name alone, so
`context.risk == "medum"` and `resource == AccessTemplate::"postgres-readnly"` validate, and never hold. The guards are
those that the shipped policies have, and a set of one's own may lack: nothing else in jitvault keeps an agent with an
open finding from access, nor access to known agents.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jitvault.formats.did_you_mean import nearest
from jitvault.policy.cedar_json import entity_ids, expressions
from jitvault.policy.decision import AGENTS, Level
from jitvault.policy.rule import Rule

_LEVELS = tuple(level.value for level in Level)
# each has its name on one side and a literal, or a set of literals, on the other
_COMPARISONS = ("==", "!=", "contains")
_NAMES = frozenset({"risk", "tier", "criticality"})
_TYPE = "AccessTemplate"
_COPY = 'docs/policy.md, "Your own set", has the rule to copy'
NO_FINDINGS_GUARD = f"no rule looks at open findings: an agent with one is granted more; {_COPY}"
NO_AGENTS_GUARD = f"no rule keeps access to members of {AGENTS}: any entity can be named as the agent; {_COPY}"


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


def unknown_templates(rules: Sequence[Rule], templates: Collection[str], place: str) -> list[str]:
    """Return each name of no template that a rule has, in words, once.

    `place` says where the templates come from.
    """
    found: dict[str, None] = {}
    for rule in rules:
        conditions = [json.loads(condition) for condition in sorted(rule.scope.conditions)]
        for name in entity_ids([rule.scope.resource, *conditions], _TYPE):
            if name not in templates:
                found[_told_of_template(rule.id, name, templates, place)] = None
    return list(found)


def _told_of_template(rule: str, name: str, templates: Collection[str], place: str) -> str:
    shown = json.dumps(name, ensure_ascii=True)[:80]
    meant = nearest(name, sorted(templates))
    return f"rule {rule} names the template {shown}, and there is none of that name in {place}{meant}"


def missing_guards(rules: Sequence[Rule]) -> list[str]:
    """Return the guards that no rule has, in words.

    A guard is any condition about it, also one of a permit: whether it covers enough is not judged. A set that permits
    nothing needs none.
    """
    if not any(rule.permits for rule in rules):
        return []
    found_in_rules = [
        expression
        for rule in rules
        for condition in sorted(rule.scope.conditions)
        for expression in expressions(json.loads(condition))
    ]
    found = []
    if not any(_is_of_context(expression, "findings") for expression in found_in_rules):
        found.append(NO_FINDINGS_GUARD)
    if not any(_is_agent_in_agents(expression) for expression in found_in_rules):
        found.append(NO_AGENTS_GUARD)
    return found


def _is_of_context(expression: object, name: str) -> bool:
    return expression == {".": {"left": {"Var": "context"}, "attr": name}}


def _is_agent_in_agents(expression: Mapping[str, Any]) -> bool:
    """Return whether this is `context.agent in Group::"jitvault-agents"`.

    The group may be one of a set.
    """
    inner = expression.get("in")
    if not isinstance(inner, Mapping) or not _is_of_context(inner.get("left"), "agent"):
        return False
    group = {"__entity": {"type": "Group", "id": AGENTS}}
    return any(each.get("Value") == group for each in expressions(inner.get("right")))
