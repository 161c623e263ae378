"""Explain policy's decision, and find changes that would be permitted.

Single changes are found by asking policy itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, product
from typing import Any

from msgspec import structs

from jitvault.formats.time_window import format_duration, format_instant
from jitvault.model.decision_input import DecisionInput
from jitvault.model.revision_content import TemplateFacts
from jitvault.model.spec import TaskSpec
from jitvault.model.template import AccessTemplate
from jitvault.policy.cases import CaseTemplate, Request, Who
from jitvault.policy.decision import OPERATORS, Decision, Level, highest
from jitvault.policy.interface import Authorizer
from jitvault.policy.question import Action, HeldLeases, Question
from jitvault.policy.risk_of_rules import may_permit
from jitvault.policy.rule import Rule

_WEEK_H = 7 * 24
_SHORT = timedelta(minutes=1)
_LONG = timedelta(hours=8)
_KEPT = (Action.GRANT, Action.RENEW)
_WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (480, 240, 120, 60, 30, 15))


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and each single change that would make it a permit.

    The changes are in words, and there are some only where the decision is a denial.
    """

    decision: Decision
    instead: tuple[str, ...]


def explain(authorizer: Authorizer, asked: DecisionInput, networks: Iterable[str] = ()) -> Explanation:
    """Return the decision as of now.

    For a denial, the changes that would help are returned with it. `networks` are those that the policies name.
    """
    decision = for_another_agent(authorizer, asked, _decide(authorizer, asked))
    if decision.permitted:
        return Explanation(decision, ())
    return Explanation(decision, tuple(words for words, other in _changes(authorizer, asked, networks) if other))


def for_another_agent(authorizer: Authorizer, asked: DecisionInput, decision: Decision) -> Decision:
    """Return a denial with its reason where an agent asks for another one.

    The reason is that of the shipped policies. It is given where policy permits the same request for the agent that
    asks, and so is not the reason of a denial that other policies have. Every other decision is returned as it is.
    """
    if decision.permitted or decision.rules or not asked.is_for_another_agent:
        return decision
    if not _decide(authorizer, asked.for_its_requester()).permitted:
        return decision
    why = f"{asked.requester.name} asks, the spec is for {asked.agent.name}, and an agent asks for itself alone"
    return structs.replace(decision, reasons=(*decision.reasons, why))


def grantable_not_renewable(authorizer: Authorizer, templates: Iterable[AccessTemplate]) -> list[str]:
    """Return the templates that can be granted but not renewed, in words.

    For each template and criticality, policy is asked about an operator's task without labels, on a working day at
    noon. The window is the template's whole window and one minute; the requester is in the operators' group alone, and
    in every group that the policies name.
    """
    found = []
    for template in templates:
        levels = [level.value for level in Level if _ends_at_once(authorizer, template, level.value)]
        if levels:
            found.append(
                f"{template.name} can be granted and not renewed (criticality {', '.join(levels)}): "
                "such a task ends as policy at its next look"
            )
    return found


def uncovered_risks(authorizer: Authorizer, rules: Iterable[Rule], templates: Iterable[AccessTemplate]) -> list[str]:
    """Return each risk of which no rule says anything, in words.

    Policy is asked whether an operator may be granted each template, and a template of that tier that no rule names. A
    risk that a rule forbids is covered, and so is one that a rule permits to one agent, from one network or the like:
    that is read from the rules' text.
    """
    templates = list(templates)
    tiers = {template.name: template.spec.tier for template in templates}
    asked_for = [(_as_case(template), template.spec.max_window) for template in templates]
    covered = {level for level in Level if any(may_permit(rule, level.value, tiers) for rule in rules)}
    return [
        f"no rule covers the risk {level}: nothing of it is ever granted"
        for level in Level
        if level not in covered
        and not _is_covered(authorizer, [*asked_for, (CaseTemplate(tier=level.value), _LONG)], level)
    ]


def _is_covered(authorizer: Authorizer, asked_for: Iterable[tuple[CaseTemplate, timedelta]], risk: Level) -> bool:
    """Return whether any rule decides about a grant of this risk."""
    return any(
        authorizer.decide([question]).rules
        for template, longest in asked_for
        for level in Level
        for question in _grants(authorizer, template, level.value, longest)
        if question.risk == risk
    )


def _ends_at_once(authorizer: Authorizer, template: AccessTemplate, level: str) -> bool:
    """Return whether a task of the template can be granted but not renewed."""
    for asked in _grants(authorizer, _as_case(template), level, template.spec.max_window):
        permitted = [authorizer.decide([replace(asked, action=action)]).permitted for action in _KEPT]
        if permitted == [True, False]:
            return True
    return False


def _as_case(template: AccessTemplate) -> CaseTemplate:
    body = template.spec
    return CaseTemplate(
        name=template.name,
        tier=body.tier,
        data_domains=body.data_domains,
        owner=template.metadata.owner,
        lease_budget=body.lease_budget,
    )


def _grants(authorizer: Authorizer, template: CaseTemplate, level: str, longest: timedelta) -> Iterator[Question]:
    """Yield questions about the grant of a template at one criticality.

    They are for the longest window and for a minute, by an operator in the operators' group alone, and in every group
    that the policies name.
    """
    group_sets = {(OPERATORS,), tuple(sorted({OPERATORS, *authorizer.groups}))}
    for groups, window in product(sorted(group_sets), (longest, _SHORT)):
        asked = Request(principal=Who(name="operator", groups=groups), template=template).question()
        yield replace(
            asked,
            criticality=level,
            risk=highest([template.tier, level]).value,
            window_s=window // timedelta(seconds=1),
        )


def template_facts(template: AccessTemplate) -> TemplateFacts:
    """Return what policy asks of a template."""
    body = template.spec
    return TemplateFacts(
        template=template.name,
        template_owner=template.metadata.owner,
        tier=body.tier,
        data_domains=list(body.data_domains),
        lease_budget=body.lease_budget,
    )


def _decide(authorizer: Authorizer, asked: DecisionInput) -> Decision:
    return authorizer.decide(asked.to_issue())


def _changes(authorizer: Authorizer, asked: DecisionInput, networks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield each change in words, and whether it would be permitted."""
    for words, other in chain(_others(asked), _in_networks(asked, networks)):
        yield words, _decide(authorizer, other).permitted
    at = _next_time(authorizer, asked)
    if at is not None:
        yield f"to ask again at {at}", True
    window = asked.spec.spec.window.for_
    for length in _WINDOWS:
        if not window or length >= window:
            continue
        shorter = asked.spec.spec.window.model_copy(update={"for_": length})
        if _decide(authorizer, replace(asked, spec=_with(asked.spec, window=shorter))).permitted:
            yield f"a window of {format_duration(length)}", True
            break


def _others(asked: DecisionInput) -> Iterator[tuple[str, DecisionInput]]:
    """Yield changes to the request, its author or the counts, in words."""

    def loads(**changes: int) -> Mapping[str, HeldLeases]:
        return {name: replace(load, **changes) for name, load in asked.loads.items()}

    if any(load.findings for load in asked.loads.values()):
        close = f"`jitvault findings close --agent {asked.agent.name} --reason WHY`"
        words = f"no open finding: {close} with the worker's identity, once it was looked into"
        yield words, replace(asked, loads=loads(findings=0))
    if any(load.agent_leases or load.owner_leases or load.template_leases for load in asked.loads.values()):
        nothing = loads(agent_leases=0, owner_leases=0, template_leases=0)
        yield "other tasks to end first, which hold leases", replace(asked, loads=nothing)
    if OPERATORS not in asked.requester.groups:
        groups = (*asked.requester.groups, OPERATORS)
        yield f"a requester in {OPERATORS}", replace(asked, requester=replace(asked.requester, groups=groups))
    if asked.is_for_another_agent:
        yield f"the agent {asked.requester.name}, who asks", asked.for_its_requester()
    levels = tuple(level.value for level in Level)
    for level in reversed(levels[: levels.index(asked.spec.spec.criticality)]):
        yield f"criticality {level}", replace(asked, spec=_with(asked.spec, criticality=level))
    for name in asked.spec.metadata.labels:
        labels = {key: value for key, value in asked.spec.metadata.labels.items() if key != name}
        metadata = asked.spec.metadata.model_copy(update={"labels": labels})
        yield f"no label {name}", replace(asked, spec=asked.spec.model_copy(update={"metadata": metadata}))


def _in_networks(asked: DecisionInput, networks: Iterable[str]) -> Iterator[tuple[str, DecisionInput]]:
    """Yield the request from each other network, and from anywhere, in words."""
    present = asked.spec.spec.network
    for name in sorted({*networks} - {present}):
        yield f"the network {name}", replace(asked, spec=_with(asked.spec, network=name))
    if present:
        yield "no network", replace(asked, spec=_with(asked.spec, network=None))


def _next_time(authorizer: Authorizer, asked: DecisionInput) -> str | None:
    """Return the next full hour at which it would be permitted, within a week."""
    hour = asked.at.replace(minute=0, second=0, microsecond=0)
    for n in range(1, _WEEK_H + 1):
        later = replace(asked, at=hour + timedelta(hours=n))
        if _decide(authorizer, later).permitted:
            return format_instant(later.at)
    return None


def _with(spec: TaskSpec, **changes: Any) -> TaskSpec:
    return spec.model_copy(update={"spec": spec.spec.model_copy(update=changes)})
