"""Rules of a policy set whose text shows that they never decide.

Nothing is guessed: one rule covers another only if its scope is equal or wider and each of its conditions is one
of the other's too. What only a solver could see is not found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.policy.decision import strictest
from jitvault.policy.rule import Rule


def unreachable_rules(rules: Sequence[Rule]) -> dict[str, str]:
    """Return why a rule decides nothing, in words, by rule id; each rule once."""
    found: dict[str, str] = {}
    for rule in rules:
        if rule.scope.is_impossible:
            found[rule.id] = "its condition never holds"
    alive = [rule for rule in rules if rule.id not in found]
    for n, rule in enumerate(alive):
        for m, other in enumerate(alive):
            if n == m or rule.id in found or other.id in found:
                continue
            # of two equal rules the first one stays
            why = _why_idle(rule, other)
            if why and (m < n or not _why_idle(other, rule)):
                found[rule.id] = why
    return found


def _why_idle(rule: Rule, other: Rule) -> str | None:
    """Return why `rule` decides nothing beside `other`, or None."""
    if not covers(other, rule):
        return None
    if not other.permits:
        return f"{other.id} forbids whatever it {'permits' if rule.permits else 'forbids'}"
    if rule.permits and strictest(other.obligations, rule.obligations) == other.obligations:
        return f"{other.id} permits all of it and obliges to no less"
    return None


def covers(wide: Rule, narrow: Rule) -> bool:
    """Return whether `wide` certainly applies wherever `narrow` does."""
    return (
        wide.scope.conditions <= narrow.scope.conditions
        and _is_within(narrow.scope.principal, wide.scope.principal)
        and _is_within(narrow.scope.resource, wide.scope.resource)
        and _actions(narrow.scope.action, wide.scope.action)
    )


def _is_within(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> bool:
    """Return whether one scope's principal or resource is within the other's."""
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
    return narrow["op"] != "All" and _action_ids(narrow) <= _action_ids(wide)


def _action_ids(action: Mapping[str, Any]) -> set[str]:
    entities = action.get("entities") or [action["entity"]]
    return {str(entity["id"]) for entity in entities}
