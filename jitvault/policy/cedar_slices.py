"""The part of a policy set that can apply to a question.

A rule for another template or another action decides nothing, and Cedar evaluates every rule each time. Only rules
that name another template or action with `==` are left out here: Cedar judges any other scope.
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
    """Rules in Cedar's form, and each rule by its name there."""

    handle: cedarpy.PolicySet
    rules: Mapping[str, Rule]


class Slices:
    """The slices of one policy set, cached."""

    def __init__(self, whole: Slice, policies: Mapping[str, Any]) -> None:
        """Hold the whole set.

        `policies` has its rules in Cedar's JSON form, by name.
        """
        self._whole = whole
        self._policies = policies
        self._made = lru_cache(maxsize=256)(self._make)

    def of(self, questions: Iterable[Question]) -> Slice:
        """Return a slice with every rule that can apply to one of the questions."""
        subjects = [(question.action.value, question.template) for question in questions]
        names = tuple(
            name
            for name, rule in self._whole.rules.items()
            if any(_can_apply(rule.scope, action, template) for action, template in subjects)
        )
        return self._whole if len(names) == len(self._whole.rules) else self._made(names)

    def _make(self, names: tuple[str, ...]) -> Slice:
        texts = [
            cedarpy.policies_from_json_str(
                json.dumps({"staticPolicies": {name: self._policies[name]}, "templates": {}, "templateLinks": []})
            )
            for name in names
        ]
        # Cedar numbers the policies of a text in the order of the text.
        rules = {f"policy{number}": self._whole.rules[name] for number, name in enumerate(names)}
        return Slice(cedarpy.PolicySet.from_str("\n".join(texts)), rules)


def _can_apply(scope: Scope, action: str, template: str) -> bool:
    return _may_be(scope.action, action) and _may_be(scope.resource, template)


def _may_be(scope: Mapping[str, Any], name: str) -> bool:
    return bool(scope["op"] != "==" or scope["entity"]["id"] == name)
