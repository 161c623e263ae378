"""Test cases for a policy set: questions with the expected decisions.

A file of them is read once, strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from jitvault.errors import InvalidInput
from jitvault.formats.fields import Duration, EntityName, Level, Strict, TemplateName, validated
from jitvault.formats.strict_yaml import read_document
from jitvault.formats.time_window import format_duration
from jitvault.policy.decision import AGENTS, OPERATORS, Decision, Requirement, highest
from jitvault.policy.question import Action, HeldLeases, Kind, Moment, Principal, Question

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Names = Annotated[tuple[str, ...], Field(strict=False, max_length=64)]


class Who(Strict):
    """A Vault entity in a case; its name is its id as well."""

    name: EntityName = Field(description="The entity.")
    groups: Names = Field(default=(), description="The Vault groups that it is in.")

    def principal(self, kind: Kind) -> Principal:
        return Principal(kind, self.name, self.name, self.groups)


class CaseTemplate(Strict):
    """The access template that is requested."""

    name: TemplateName = Field(default="some-template", description="Its name.")
    tier: Level = Field(default="low", description="How risky it is.")
    data_domains: Names = Field(default=(), description="The domains of its data.")
    owner: EntityName = Field(default="data-owner", description="Who answers for it.")
    lease_budget: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Leases that a task may take.")


class Request(Strict):
    """The question of a case; whatever the case leaves out is harmless."""

    action: Literal["submit", "grant", "renew", "extend", "delegate", "approve"] = Field(
        default="grant", description="What somebody wants to do."
    )
    principal: Who = Field(
        default=Who(name="operator", groups=(OPERATORS,)), description="Who wants it: the requester or the approver."
    )
    principal_kind: Kind = Field(default="Operator", description="What the principal is.")
    agent: Who = Field(default=Who(name="agent", groups=(AGENTS,)), description="Who uses the access.")
    owner: Who = Field(default=Who(name="data-owner"), description="Who answers for the data.")
    template: CaseTemplate = Field(default=CaseTemplate(), description="What is asked for.")
    criticality: Level = Field(default="low", description="How much harm the task could do.")
    intent: str = Field(default="Count the orders.", max_length=500, description="What the agent will do and why.")
    tools: Names = Field(default=(), description="The tools that it will use.")
    window: Duration = Field(default=timedelta(minutes=15), description="For how long.")
    network: str = Field(default="", max_length=32, description="From which network; anywhere if empty.")
    labels: Names = Field(default=(), description="Labels of the task: `name` and `name=value`.")
    depth: Count = Field(default=0, description="How often it was delegated.")
    hour: Annotated[int, Field(ge=0, le=23)] = Field(default=12, description="The hour, UTC.")
    weekday: Annotated[int, Field(ge=1, le=7)] = Field(default=3, description="1 is Monday.")
    agent_leases: Count = Field(default=0, description="Leases that all else of the agent holds or may take.")
    owner_leases: Count = Field(default=0, description="The same of the owner.")
    template_leases: Count = Field(default=0, description="The same of the template.")
    findings: Count = Field(default=0, description="Open findings of the agent in the last day.")
    agent_asks: bool = Field(default=False, description="Whether the agent itself requested the task.")

    def question(self) -> Question:
        template = self.template
        return Question(
            action=Action(self.action),
            principal=self.principal.principal(self.principal_kind),
            agent=self.agent.principal("Agent"),
            owner=self.owner.principal("Operator"),
            template=template.name,
            tier=template.tier,
            data_domains=template.data_domains,
            template_owner=template.owner,
            lease_budget=template.lease_budget,
            criticality=self.criticality,
            risk=highest([template.tier, self.criticality]).value,
            intent=self.intent,
            tools=self.tools,
            window_s=int(self.window.total_seconds()),
            network=self.network,
            labels=self.labels,
            depth=self.depth,
            moment=Moment(self.hour, self.weekday),
            load=HeldLeases(self.agent_leases, self.owner_leases, self.template_leases, self.findings),
            agent_asks=self.agent_asks,
        )


class Approvals(Strict):
    group: str = Field(description="The Vault group.")
    count: Annotated[int, Field(ge=1, le=10)] = Field(description="How many of it.")


class Expected(Strict):
    """The decision that is expected.

    `rules` are all rules that decide; of the obligations only those that are named are compared.
    """

    decision: Literal["permit", "deny"] = Field(description="Whether it is permitted.")
    rules: Names | None = Field(default=None, description="The `@id`s that decide; [] where nothing permits.")
    approvals: Annotated[tuple[Approvals, ...], Field(strict=False)] | None = Field(
        default=None, description="All approvals that it takes; [] for none."
    )
    max_ttl: Duration | None = Field(default=None, description="The cap of the token's life.")
    max_window: Duration | None = Field(default=None, description="The cap of the window.")
    confirm: Literal["audit", "target"] | None = Field(default=None, description="What proves the end.")
    notify: Names | None = Field(default=None, description="Who is told.")

    def differences(self, decision: Decision) -> list[str]:
        """Return how a decision differs, one `field: expected …, got …` a line."""
        found = decision.obligations
        expected_approvals = None
        if self.approvals is not None:
            expected_approvals = _approvals(Requirement(each.group, each.count) for each in self.approvals)
        wanted = {
            "rules": None if self.rules is None else _listed(sorted(self.rules)),
            "approvals": expected_approvals,
            "max_ttl": None if self.max_ttl is None else format_duration(self.max_ttl),
            "max_window": None if self.max_window is None else format_duration(self.max_window),
            "confirm": self.confirm,
            "notify": None if self.notify is None else _listed(sorted(self.notify)),
        }
        got = {
            "decision": "permit" if decision.permitted else "deny",
            "rules": _listed(decision.rules),
            "approvals": _approvals(found.approvals),
            "max_ttl": _seconds(found.max_ttl_s),
            "max_window": _seconds(found.max_window_s),
            "confirm": found.confirm.value if found.confirm else "nothing",
            "notify": _listed(found.notify),
        }
        expected = {"decision": self.decision, **{name: value for name, value in wanted.items() if value is not None}}
        return [f"{name}: expected {value}, got {got[name]}" for name, value in expected.items() if got[name] != value]


class Case(Strict):
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="What it shows, in words.")
    request: Request = Field(default=Request(), description="What is asked.")
    expect: Expected = Field(description="What has to be decided.")


class PolicyCases(Strict):
    """Cases for one policy set."""

    api_version: Literal["jitvault.dev/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["PolicyCases"] = Field(description="What this document is.")
    cases: Annotated[tuple[Case, ...], Field(strict=False, min_length=1, max_length=500)] = Field(
        description="The cases, each with a name of its own."
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one case.

    `differences` is empty if everything was as expected.
    """

    name: str
    decision: Decision
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": not self.differences,
            "differences": list(self.differences),
            "decision": self.decision.as_json(),
        }


def parse_cases(data: bytes, source: str) -> tuple[Case, ...]:
    """Return the cases in `data` (YAML or JSON).

    Raises InvalidInput, which names `source`, line and field.
    """
    found = validated(PolicyCases, read_document(data, source=source)).cases
    names = [case.name for case in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"{source}: two cases have the name {twice[0]!r}")
    return found


def _approvals(needed: Any) -> str:
    return _listed([f"{each.count} of {each.group}" for each in sorted(needed)])


def _listed(values: Any) -> str:
    return ", ".join(values) or "none"


def _seconds(seconds: int | None) -> str:
    return "nothing" if seconds is None else format_duration(timedelta(seconds=seconds))
