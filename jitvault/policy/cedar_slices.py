"""The part of a policy set that can apply to a question.

A rule for another template or another action decides nothing, and Cedar looks at each rule anew every time. What is
left out here is only what names another one with `==`: any other scope is Cedar's to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cedarpy

from jitvault.policy.question import Question
from jitvault.policy.rule import Rule, Scope


@dataclass(frozen=True)
class Slice:
    """Rules as Cedar takes them, and each by the name that Cedar gives it there."""

    handle: cedarpy.PolicySet
    rules: Mapping[str, Rule]


class Slices:
    """The slices of one policy set; those that are asked for again are kept."""

    def __init__(self, whole: Slice, policies: Mapping[str, Any]) -> None:
        """`policies` has the same rules in Cedar's JSON form, by the same names."""
        self._whole, self._policies = whole, policies
        self._made = lru_cache(maxsize=256)(self._make)

    def of(self, questions: Iterable[Question]) -> Slice:
        """Every rule that can apply to one of the questions."""
        asked = [(question.action.value, question.template) for question in questions]
        names = tuple(
            name
            for name, rule in self._whole.rules.items()
            if any(_can_apply(rule.scope, action, template) for action, template in asked)
        )
        return self._whole if len(names) == len(self._whole.rules) else self._made(names)

    def _make(self, names: tuple[str, ...]) -> Slice:
        texts = [
            cedarpy.policies_from_json_str(
                json.dumps({"staticPolicies": {name: self._policies[name]}, "templates": {}, "templateLinks": []})
            )
            for name in names
        ]
        # Cedar counts the policies of a text as they stand in it
        rules = {f"policy{number}": self._whole.rules[name] for number, name in enumerate(names)}
        return Slice(cedarpy.PolicySet.from_str("\n".join(texts)), rules)


def _can_apply(scope: Scope, action: str, template: str) -> bool:
    return _may_be(scope.action, action) and _may_be(scope.resource, template)


def _may_be(scope: Mapping[str, Any], name: str) -> bool:
    return bool(scope["op"] != "==" or scope["entity"]["id"] == name)
