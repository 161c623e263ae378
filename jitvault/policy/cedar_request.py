"""A question in Cedar's terms: the request, and the entities it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.policy.question import Principal, Question

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
