"""From a task to what policy is asked about it: one question for each access and action, all read now."""

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
"""What has to be permitted before anything is issued: that they ask for it, and that it is issued now."""


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """What questions are made of. `access` are the entries of a revision; `loads` says what other tasks hold.

    `requester` answers for it: of what was handed on, whoever asked for the first task. `delegator` hands it on.
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
    """The whole window of what is extended; otherwise it is the spec's."""

    def to_issue(self) -> list[Question]:
        """All that has to be permitted before anything is issued."""
        handed_on = self.questions((Action.DELEGATE,), self.delegator) if self.delegator else []
        return [*self.questions(TO_ISSUE), *handed_on]

    def questions(self, actions: Iterable[Action], principal: Principal | None = None) -> list[Question]:
        """One for each access and action; `principal` is who wants it, where it is not the requester."""
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
        """What is held besides this access, with what the others of the task may take: all of them are issued."""
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


def asked(worker: WorkerContext, revision: Revision) -> DecisionInput:
    """What a revision's questions are made of, with groups and counts read this moment."""
    content, above = revision.content, revision.delegation
    kind = delegator_kind(revision) if above else None
    return asked_about(
        worker,
        revision.spec,
        revision.access,
        requester=_principal(worker, "Operator", (above[0] if above else content)["requester"]),
        agent=_principal(worker, "Agent", content["agent"]),
        owner=_principal(worker, "Operator", content["owner"]),
        depth=len(above),
        delegator=_principal(worker, kind, content["requester"]) if kind else None,
    )


def asked_about(
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
    """The same for a spec, whether it was submitted or not."""
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
    """How much the others hold. To count it takes the longer the more is held, and all look at the same."""
    since = worker.now() - FINDINGS_COUNT_FOR
    if not worker.glances or worker.shared is None:
        return worker.ledger.load(agent, owner, templates, besides=spec.id, since=since)
    whole = worker.shared.of(
        ("load", agent, owner, *templates),
        lambda: worker.ledger.load(agent, owner, templates, besides="", since=since),
    )
    # it is held, so it counts with all that it may take
    own: Counter[str] = Counter()
    for entry in access:
        own[entry["template"]] += entry["lease_budget"]
    return {name: load.without(own.total(), own[name]) for name, load in whole.items()}


def principal_of(worker: WorkerContext, kind: Kind, entity: Entity) -> Principal:
    """An entity with those of its groups that policies speak of; an agent also with the one that makes it one.

    What an agent was granted ends when it leaves one of them, so its own has to be known whatever the policies say.
    """
    own = {AGENTS} if kind == "Agent" else set()
    groups = worker.identity.groups_of(entity, sorted(worker.authorizer.groups | own))
    return Principal(kind, entity.id, entity.name, groups)


def labels_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Each label as its name alone, and with its value: policies ask for one or the other."""
    return tuple(sorted({*labels, *(f"{name}={value}" for name, value in labels.items())}))


def who_extends(worker: WorkerContext, revision: Revision, entity: Entity) -> Principal:
    """As what somebody asks for more time: the agent as itself, who handed the access on as they did that."""
    if entity.id != revision.content["requester"]["entity"]:
        return principal_of(worker, "Agent", entity)
    kind = delegator_kind(revision) if revision.delegation else "Operator"
    return principal_of(worker, kind or "Agent", entity)


def _principal(worker: WorkerContext, kind: Kind, party: Mapping[str, str]) -> Principal:
    entity = worker.identity.by_id(party["entity"])
    return principal_of(worker, kind, entity) if entity else Principal(kind, party["entity"], party["name"])
