"""A question in Cedar's terms.

It has the request, the entities that the request names, and the rules that can apply to it. A rule for another template
or another action decides nothing, and Cedar evaluates every rule each time. Only rules that name another template or
action with `==` are left out: Cedar judges any other scope.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cedarpy

from jitvault.policy.question import Principal, Question
from jitvault.policy.rule import Rule, Scope

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Named:
    """The people and the template of a question, with what Cedar needs."""

    people: tuple[Principal, ...]
    template: str
    tier: str
    data_domains: tuple[str, ...]
    owner: str
    lease_budget: int

    @classmethod
    def by(cls, question: Question) -> Named:
        return cls(
            people=(question.principal, question.agent, question.owner),
            template=question.template,
            tier=question.tier,
            data_domains=question.data_domains,
            owner=question.template_owner,
            lease_budget=question.lease_budget,
        )


def request_of(question: Question) -> Json:
    return {
        "principal": _person(question.principal),
        "action": _uid("Action", question.action.value),
        "resource": _uid("AccessTemplate", question.template),
        "context": {
            "agent": {"__entity": _person(question.agent)},
            "owner": {"__entity": _person(question.owner)},
            "criticality": question.criticality,
            "risk": question.risk,
            "intent": question.intent,
            "tools": list(question.tools),
            "window_s": question.window_s,
            "network": question.network,
            "labels": list(question.labels),
            "depth": question.depth,
            "hour": question.moment.hour,
            "weekday": question.moment.weekday,
            "agent_leases": question.load.agent_leases,
            "owner_leases": question.load.owner_leases,
            "template_leases": question.load.template_leases,
            "findings": question.load.findings,
            "agent_asks": question.agent_asks,
        },
    }


def entities_of(named: Iterable[Named]) -> list[Json]:
    """Return each named person, group and template once."""
    people: dict[tuple[str, str], list[Principal]] = {}
    templates: dict[str, Json] = {}
    for each in named:
        for person in each.people:
            people.setdefault((person.kind, person.entity), []).append(person)
        templates[each.template] = {
            "tier": each.tier,
            "data_domains": list(each.data_domains),
            "owner": each.owner,
            "lease_budget": each.lease_budget,
        }
    groups = sorted({group for same in people.values() for person in same for group in person.groups})
    return [
        *(_entity(_uid("Group", group), {}) for group in groups),
        *(_entity(_person(same[0]), {"name": same[0].name}, _groups(same)) for same in people.values()),
        *(_entity(_uid("AccessTemplate", name), attributes) for name, attributes in templates.items()),
    ]


def _groups(same: Sequence[Principal]) -> list[Json]:
    return [_uid("Group", group) for group in sorted({group for person in same for group in person.groups})]


def _entity(uid: Json, attributes: Json, parents: Sequence[Json] = ()) -> Json:
    return {"uid": uid, "attrs": attributes, "parents": list(parents)}


def _person(person: Principal) -> Json:
    return _uid(person.kind, person.entity)


def _uid(kind: str, name: str) -> Json:
    return {"type": kind, "id": name}


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
