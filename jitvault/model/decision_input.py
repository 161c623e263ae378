"""The values that questions to policy are built from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.model.revision_content import TemplateFacts
from jitvault.model.spec import TaskSpec
from jitvault.policy.decision import AGENTS, OPERATORS, highest
from jitvault.policy.question import Action, HeldLeases, Moment, Principal, Question

TO_ISSUE = (Action.SUBMIT, Action.GRANT)
"""The actions that policy has to permit before an issue: the request itself, and the grant at this moment."""


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """The values that questions to policy are built from.

    `access` are the entries of a revision, or what policy asks of the templates of a spec. `loads` says how many
    leases other tasks hold, by template. `requester` answers for the task; for a delegated task this is the requester
    of the first task. `delegator` delegates it. `depth` is the number of ancestors.
    """

    spec: TaskSpec
    access: Sequence[TemplateFacts]
    requester: Principal
    agent: Principal
    owner: Principal
    loads: Mapping[str, HeldLeases]
    depth: int
    at: datetime
    delegator: Principal | None = None
    agent_asks: bool = False
    """Whether the first task of the chain was requested by its own agent."""
    window_s: int | None = None
    """The whole window of a task that is extended; otherwise the spec's window counts."""

    @property
    def is_for_another_agent(self) -> bool:
        """Whether an agent, who is no operator, asks for another one."""
        groups = self.requester.groups
        is_agent = AGENTS in groups and OPERATORS not in groups
        return is_agent and not self.depth and self.requester.entity != self.agent.entity

    def for_its_requester(self) -> DecisionInput:
        """Return the same request with its requester as the agent."""
        return replace(self, agent=replace(self.requester, kind="Agent"), agent_asks=True)

    def to_issue(self) -> list[Question]:
        """Return every question that policy has to permit before an issue."""
        delegation = self.questions((Action.DELEGATE,), self.delegator) if self.delegator else []
        return [*self.questions(TO_ISSUE), *delegation]

    def questions(self, actions: Iterable[Action], principal: Principal | None = None) -> list[Question]:
        """Return one question for each access and action.

        `principal` is who acts, where that is not the requester.
        """
        body = self.spec.spec
        return [
            Question(
                action=action,
                principal=principal or self.requester,
                agent=self.agent,
                owner=self.owner,
                template=entry.template,
                tier=entry.tier,
                data_domains=tuple(entry.data_domains),
                template_owner=entry.template_owner,
                lease_budget=entry.lease_budget,
                criticality=body.criticality,
                risk=highest([*(e.tier for e in self.access), body.criticality]).value,
                intent=body.intent,
                tools=tuple(body.tools),
                window_s=self._window_s(),
                network=body.network or "",
                labels=labels_of(self.spec.metadata.labels),
                depth=self.depth,
                moment=Moment.of(self.at),
                load=self._load(entry),
                agent_asks=self.agent_asks,
            )
            for entry in self.access
            for action in actions
        ]

    def _load(self, entry: TemplateFacts) -> HeldLeases:
        """Return the leases held besides this access.

        The lease budgets of the task's other accesses count as held, since all of them are issued.
        """
        load = self.loads.get(entry.template, HeldLeases())
        whole = sum(other.lease_budget for other in self.access)
        alike = sum(other.lease_budget for other in self.access if other.template == entry.template)
        own = entry.lease_budget
        return replace(
            load,
            agent_leases=load.agent_leases + whole - own,
            owner_leases=load.owner_leases + whole - own,
            template_leases=load.template_leases + alike - own,
        )

    def _window_s(self) -> int:
        if self.window_s is not None:
            return self.window_s
        window = self.spec.window
        start = max(filter(None, (self.at, window.not_before)))
        return int((window.for_ or window.closes_at(start) - start).total_seconds())


def labels_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return each label by its name alone and as `name=value`.

    Policies ask for one or the other.
    """
    return tuple(sorted({*labels, *(f"{name}={value}" for name, value in labels.items())}))
