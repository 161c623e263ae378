"""The question to a policy.

It asks whether a principal may do something with a template, now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

Kind = Literal["Operator", "Agent"]


class Action(StrEnum):
    """What the principal wants to do.

    The `depth` of a question says how far the task was delegated.
    """

    SUBMIT = "submit"
    GRANT = "grant"
    RENEW = "renew"
    EXTEND = "extend"
    DELEGATE = "delegate"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Principal:
    """A Vault entity with a part in the question.

    `groups` are those of its groups that policies name.
    """

    kind: Kind
    entity: str
    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldLeases:
    """The leases that are held besides the requested access, and findings.

    The counts are of leases that exist or may still be taken. A task that holds access counts with its whole lease
    budget until all of it is proven dead: it can take as many at any time. `findings` are the agent's open ones of
    the last day.
    """

    agent_leases: int = 0
    owner_leases: int = 0
    template_leases: int = 0
    findings: int = 0

    def without(self, leases: int, by_template: int) -> HeldLeases:
        """Return the counts without one task's leases.

        `by_template` of its leases count for the template.
        """
        return HeldLeases(
            max(0, self.agent_leases - leases),
            max(0, self.owner_leases - leases),
            max(0, self.template_leases - by_template),
            self.findings,
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """When the question is asked, in UTC.

    `hour` is 0 to 23, `weekday` 1 (Monday) to 7.
    """

    hour: int
    weekday: int

    @classmethod
    def of(cls, at: datetime) -> Moment:
        at = at.astimezone(UTC)
        return cls(at.hour, at.isoweekday())


@dataclass(frozen=True, slots=True)
class Question:
    """One access that a task needs.

    `principal` is the requester, or the approver if `action` is approve. `risk` is the higher of tier and
    criticality. `labels` hold each label as `name` and as `name=value`. `depth` is 0 for what was not delegated,
    and for `delegate` it is the depth of the new task. `agent_asks` says that the task was requested by its own agent;
    for a delegated task, that the first task was.
    """

    action: Action
    principal: Principal
    agent: Principal
    owner: Principal
    template: str
    tier: str
    data_domains: tuple[str, ...]
    template_owner: str
    lease_budget: int
    criticality: str
    risk: str
    intent: str
    tools: tuple[str, ...]
    window_s: int
    network: str
    labels: tuple[str, ...]
    depth: int
    moment: Moment
    load: HeldLeases
    agent_asks: bool = False
