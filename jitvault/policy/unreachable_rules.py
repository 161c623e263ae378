"""Rules of a policy set that can never decide anything, where their text alone says so.

Nothing is guessed: one rule covers another only if its scope is the same or wider and each of its conditions is one
of the other's too. What it takes a solver to see is not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.policy.decision import strictest
from jitvault.policy.rule import Rule


def unreachable_rules(rules: Sequence[Rule]) -> dict[str, str]:
    """Rule id → why it decides nothing, in words; each rule once."""
    found: dict[str, str] = {}
    for rule in rules:
        if rule.scope.is_impossible:
            found[rule.id] = "its condition never holds"
    alive = [rule for rule in rules if rule.id not in found]
    for n, rule in enumerate(alive):
        for m, other in enumerate(alive):
            if n == m or rule.id in found or other.id in found:
                continue
            # of two that say the same the first one stays
            if (why := _why_idle(rule, other)) and (m < n or not _why_idle(other, rule)):
                found[rule.id] = why
    return found


def _why_idle(rule: Rule, other: Rule) -> str | None:
    """Why `rule` decides nothing beside `other`."""
    if not covers(other, rule):
        return None
    if not other.permits:
        return f"{other.id} forbids whatever it {'permits' if rule.permits else 'forbids'}"
    if rule.permits and strictest(other.obligations, rule.obligations) == other.obligations:
        return f"{other.id} permits all of it and obliges to no less"
    return None


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether `wide` surely applies wherever `narrow` does."""
    return (
        wide.scope.conditions <= narrow.scope.conditions
        and _is_within(narrow.scope.principal, wide.scope.principal)
        and _is_within(narrow.scope.resource, wide.scope.resource)
        and _actions(narrow.scope.action, wide.scope.action)
    )


def _is_within(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> bool:
    """Of the principal's or the resource's part of two scopes."""
    if wide["op"] == "All" or narrow == wide:
        return True
    if wide["op"] == "is" and "in" not in wide:
        kind = narrow.get("entity_type") or (narrow["entity"]["type"] if narrow["op"] == "==" else None)
        return bool(kind == wide["entity_type"])
    if wide["op"] == "in" and narrow["op"] == "is" and "in" in narrow:
        return bool(narrow["in"].get("entity") == wide.get("entity"))
    return False


def _actions(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> bool:
    if wide["op"] == "All":
        return True
    return narrow["op"] != "All" and _named(narrow) <= _named(wide)


def _named(action: Mapping[str, Any]) -> set[str]:
    entities = action.get("entities") or [action["entity"]]
    return {str(entity["id"]) for entity in entities}
