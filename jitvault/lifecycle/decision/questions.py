"""Build the questions to policy about a task.

There is one for each access and action, from values read now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jitvault.context import WorkerContext
from jitvault.model.delegation import delegator_kind
from jitvault.model.revision import Revision
from jitvault.model.spec import TaskSpec
from jitvault.policy.decision import AGENTS, highest
from jitvault.policy.question import Action, HeldLeases, Kind, Moment, Principal, Question
from jitvault.vault.interface import Entity

FINDINGS_COUNT_FOR = timedelta(days=1)
TO_ISSUE = (Action.SUBMIT, Action.GRANT)
"""The actions that policy has to permit before an issue: the request itself, and the grant at this moment."""


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """The values that questions to policy are built from.

    `access` are the entries of a revision. `loads` says how many leases other tasks hold, by template. `requester`
    answers for the task; for a delegated task this is the requester of the first task. `delegator` delegates it.
    `depth` is the number of ancestors.
    """

    spec: TaskSpec
    access: Sequence[Mapping[str, Any]]
    requester: Principal
    agent: Principal
    owner: Principal
    loads: Mapping[str, HeldLeases]
    depth: int
    at: datetime
    delegator: Principal | None = None
    window_s: int | None = None
    """The whole window of a task that is extended; otherwise the spec's window counts."""

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
                template=entry["template"],
                tier=entry["tier"],
                data_domains=tuple(entry["data_domains"]),
                template_owner=entry["template_owner"],
                lease_budget=entry["lease_budget"],
                criticality=body.criticality,
                risk=highest([*(e["tier"] for e in self.access), body.criticality]).value,
                intent=body.intent,
                tools=tuple(body.tools),
                window_s=self._window_s(),
                network=body.network or "",
                labels=labels_of(self.spec.metadata.labels),
                depth=self.depth,
                moment=Moment.of(self.at),
                load=self._load(entry),
            )
            for entry in self.access
            for action in actions
        ]

    def _load(self, entry: Mapping[str, Any]) -> HeldLeases:
        """Return the leases held besides this access.

        The lease budgets of the task's other accesses count as held, since all of them are issued.
        """
        load = self.loads.get(entry["template"], HeldLeases())
        whole = sum(other["lease_budget"] for other in self.access)
        alike = sum(other["lease_budget"] for other in self.access if other["template"] == entry["template"])
        own = entry["lease_budget"]
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


def decision_input(worker: WorkerContext, revision: Revision) -> DecisionInput:
    """Return the input for questions about a revision, with groups and counts as of now."""
    content = revision.content
    ancestors = revision.delegation
    kind = delegator_kind(revision) if ancestors else None
    return decision_input_for(
        worker,
        revision.spec,
        revision.access,
        requester=_principal(worker, "Operator", (ancestors[0] if ancestors else content)["requester"]),
        agent=_principal(worker, "Agent", content["agent"]),
        owner=_principal(worker, "Operator", content["owner"]),
        depth=len(ancestors),
        delegator=_principal(worker, kind, content["requester"]) if kind else None,
    )


def decision_input_for(
    worker: WorkerContext,
    spec: TaskSpec,
    access: Sequence[Mapping[str, Any]],
    *,
    requester: Principal,
    agent: Principal,
    owner: Principal,
    depth: int = 0,
    delegator: Principal | None = None,
) -> DecisionInput:
    """Return the input for questions about a spec, whether it was submitted or not."""
    templates = sorted({entry["template"] for entry in access})
    loads = _loads(worker, spec, access, agent.entity, owner.entity, templates)
    return DecisionInput(spec, access, requester, agent, owner, loads, depth, worker.now(), delegator)


def _loads(
    worker: WorkerContext,
    spec: TaskSpec,
    access: Sequence[Mapping[str, Any]],
    agent: str,
    owner: str,
    templates: list[str],
) -> Mapping[str, HeldLeases]:
    """Return how many leases other tasks hold, by template.

    Counting takes the longer the more is held. So scheduled renewals count once for all tasks, and each subtracts its
    own share.
    """
    since = worker.now() - FINDINGS_COUNT_FOR
    if not worker.glances or worker.shared is None:
        return worker.ledger.load(agent, owner, templates, besides=spec.id, since=since)
    whole = worker.shared.of(
        ("load", agent, owner, *templates),
        lambda: worker.ledger.load(agent, owner, templates, besides="", since=since),
    )
    # the task itself has access, so the count includes its whole lease budget
    own: Counter[str] = Counter()
    for entry in access:
        own[entry["template"]] += entry["lease_budget"]
    return {name: load.without(own.total(), own[name]) for name, load in whole.items()}


def principal_of(worker: WorkerContext, kind: Kind, entity: Entity) -> Principal:
    """Return an entity with those of its groups that the policies name.

    An agent also has the group that makes it an agent, whatever the policies name: its task ends when it leaves one of
    these groups.
    """
    own = {AGENTS} if kind == "Agent" else set()
    groups = worker.identity.groups_of(entity, sorted(worker.authorizer.groups | own))
    return Principal(kind, entity.id, entity.name, groups)


def labels_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return each label by its name alone and as `name=value`.

    Policies ask for one or the other.
    """
    return tuple(sorted({*labels, *(f"{name}={value}" for name, value in labels.items())}))


def who_extends(worker: WorkerContext, revision: Revision, entity: Entity) -> Principal:
    """Return as which principal an entity requests an extension.

    The agent requests it as itself, and a delegator in the role in which it delegated the access.
    """
    if entity.id != revision.content["requester"]["entity"]:
        return principal_of(worker, "Agent", entity)
    kind = delegator_kind(revision) if revision.delegation else "Operator"
    return principal_of(worker, kind or "Agent", entity)


def _principal(worker: WorkerContext, kind: Kind, party: Mapping[str, str]) -> Principal:
    entity = worker.identity.by_id(party["entity"])
    return principal_of(worker, kind, entity) if entity else Principal(kind, party["entity"], party["name"])
