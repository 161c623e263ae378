"""Guards that the shipped policies have, and a set of one's own may lack.

Nothing else in jitvault keeps an agent with an open finding from access, nor access to known agents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.policy.cedar_json import expressions
from jitvault.policy.decision import AGENTS
from jitvault.policy.rule import Rule

_COPY = 'docs/policy.md, "Your own set", has the rule to copy'
NO_FINDINGS_GUARD = f"no rule looks at open findings: an agent with one is granted more; {_COPY}"
NO_AGENTS_GUARD = f"no rule keeps access to members of {AGENTS}: any entity can be named as the agent; {_COPY}"


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
