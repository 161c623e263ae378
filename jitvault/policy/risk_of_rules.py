"""Whether a permit can apply to a grant of a given risk, by its text.

A rule may name one agent, one network or one hour, and no question that somebody thinks of has all of them. So the
rule's conditions are evaluated with the risk known and everything else unknown (Kleene's logic with three values).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jitvault.policy.decision import Level, highest
from jitvault.policy.question import Action
from jitvault.policy.rule import Rule

_TEMPLATE = "AccessTemplate"


def may_permit(rule: Rule, risk: str, tiers: Mapping[str, str]) -> bool:
    """Return whether a permit can apply to a grant of `risk`.

    `tiers` are the tiers of the templates in use by name. False is certain; true means that nothing in the text rules
    it out. A rule about a template that there is not applies to nothing.
    """
    if not rule.permits or not _is_about_grants(rule.scope.action):
        return False
    conditions = [json.loads(condition) for condition in rule.scope.conditions]
    return any(
        all(_holds(condition, known) is not False for condition in conditions)
        for known in _facts(rule.scope.resource, risk, tiers)
    )


def _is_about_grants(action: Mapping[str, Any]) -> bool:
    named = [action.get("entity"), *(action.get("entities") or ())]
    return action.get("op") == "All" or any(entity and entity.get("id") == Action.GRANT.value for entity in named)


def _facts(resource: Mapping[str, Any], risk: str, tiers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Yield each tier and criticality that make up the risk."""
    entity = resource.get("entity") or {}
    levels = [level.value for level in Level]
    possible = levels
    if resource.get("op") == "==" and entity.get("type") == _TEMPLATE:
        possible = [tiers[entity["id"]]] if entity.get("id") in tiers else []
    for tier in possible:
        for criticality in levels:
            if highest([tier, criticality]).value == risk:
                yield {"risk": risk, "tier": tier, "criticality": criticality}


def _holds(condition: Mapping[str, Any], known: Mapping[str, str]) -> bool | None:
    """Return whether a `when` or `unless` holds, None where that is unknown."""
    value = _truth(condition["body"], known)
    return _not(value) if condition["kind"] == "unless" else value


def _truth(expression: Any, known: Mapping[str, str]) -> bool | None:
    """Return an expression's truth, None where more has to be known."""
    if not isinstance(expression, Mapping):
        return None
    if isinstance(expression.get("Value"), bool):
        return bool(expression["Value"])
    for operator, inner in expression.items():
        if operator == "!":
            return _not(_truth(inner["arg"], known))
        if operator in ("&&", "||"):
            return _joined(operator, _truth(inner["left"], known), _truth(inner["right"], known))
        if operator in ("==", "!="):
            return _compared(operator, _text(inner["left"], known), _text(inner["right"], known))
        if operator == "contains":
            return _contained(inner["left"], _text(inner["right"], known))
    return None


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _joined(operator: str, left: bool | None, right: bool | None) -> bool | None:
    """Return `left && right` or `left || right`: one side can decide alone."""
    decisive = operator == "||"
    if decisive in (left, right):
        return decisive
    return None if None in (left, right) else not decisive


def _compared(operator: str, left: str | None, right: str | None) -> bool | None:
    if left is None or right is None:
        return None
    return (left == right) == (operator == "==")


def _contained(members: Any, text: str | None) -> bool | None:
    """Return whether a set of literals has the text."""
    texts = [_text(member, {}) for member in members.get("Set", (None,))]
    return None if text is None or None in texts else text in texts


def _text(expression: Any, known: Mapping[str, str]) -> str | None:
    """Return the string that an expression is, None where it is unknown."""
    if not isinstance(expression, Mapping):
        return None
    if isinstance(expression.get("Value"), str):
        return str(expression["Value"])
    inner = expression.get(".")
    if not isinstance(inner, Mapping):
        return None
    # `tier` is the resource's; nothing else of that name can be asked for
    return known.get(inner["attr"]) if "Var" in inner["left"] else None
