"""Build the questions to policy about a task.

There is one for each access and action, from values read now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.model.decision_input import DecisionInput
from jitvault.model.delegation import delegator_kind
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party, TemplateFacts
from jitvault.model.spec import TaskSpec
from jitvault.policy.decision import AGENTS
from jitvault.policy.question import HeldLeases, Kind, Principal
from jitvault.vault.interface import Entity

FINDINGS_COUNT_FOR = timedelta(days=1)


def decision_input(worker: WorkerContext, revision: Revision) -> DecisionInput:
    """Return the input for questions about a revision.

    Groups and counts are as of now.
    """
    content = revision.content
    ancestors = revision.delegation
    first = ancestors[0] if ancestors else content
    kind = delegator_kind(revision) if ancestors else None
    return decision_input_for(
        worker,
        revision.spec,
        revision.access,
        requester=_principal(worker, "Operator", first.requester),
        agent=_principal(worker, "Agent", content.agent),
        owner=_principal(worker, "Operator", content.owner),
        depth=len(ancestors),
        delegator=_principal(worker, kind, content.requester) if kind else None,
        agent_asks=first.requester.entity == first.agent.entity,
    )


def decision_input_for(
    worker: WorkerContext,
    spec: TaskSpec,
    access: Sequence[TemplateFacts],
    *,
    requester: Principal,
    agent: Principal,
    owner: Principal,
    depth: int = 0,
    delegator: Principal | None = None,
    agent_asks: bool = False,
) -> DecisionInput:
    """Return the input for questions about a spec.

    The spec may have been submitted or not.
    """
    templates = sorted({entry.template for entry in access})
    loads = _loads(worker, spec, access, agent.entity, owner.entity, templates)
    return DecisionInput(spec, access, requester, agent, owner, loads, depth, worker.now(), delegator, agent_asks)


def _loads(
    worker: WorkerContext,
    spec: TaskSpec,
    access: Sequence[TemplateFacts],
    agent: str,
    owner: str,
    templates: list[str],
) -> Mapping[str, HeldLeases]:
    """Return how many leases other tasks hold, by template.

    Counting takes the longer the more is held. So scheduled renewals count once for all tasks, and each subtracts its
    own share.
    """
    since = worker.now() - FINDINGS_COUNT_FOR
    if not worker.facts.is_due:
        return worker.ledger.load(agent, owner, templates, besides=spec.id, since=since)
    whole = worker.facts.recent(
        ("load", agent, owner, *templates),
        lambda: worker.ledger.load(agent, owner, templates, besides="", since=since),
    )
    # the task itself has access, so the count includes its whole lease budget
    own: Counter[str] = Counter()
    for entry in access:
        own[entry.template] += entry.lease_budget
    return {name: load.without(own.total(), own[name]) for name, load in whole.items()}


def principal_of(worker: WorkerContext, kind: Kind, entity: Entity) -> Principal:
    """Return an entity with those of its groups that the policies name.

    An agent also has the group that makes it an agent, whatever the policies name: its task ends when it leaves one of
    these groups.
    """
    own = {AGENTS} if kind == "Agent" else set()
    groups = worker.identity.groups_of(entity, sorted(worker.authorizer.groups | own))
    return Principal(kind, entity.id, entity.name, groups)


def who_extends(worker: WorkerContext, revision: Revision, entity: Entity) -> Principal:
    """Return as which principal an entity requests an extension.

    The agent requests it as itself, and a delegator in the role in which it delegated the access.
    """
    if entity.id != revision.content.requester.entity:
        return principal_of(worker, "Agent", entity)
    kind = delegator_kind(revision) if revision.delegation else "Operator"
    return principal_of(worker, kind or "Agent", entity)


def _principal(worker: WorkerContext, kind: Kind, party: Party) -> Principal:
    entity = worker.identity.by_id(party.entity)
    return principal_of(worker, kind, entity) if entity else Principal(kind, party.entity, party.name)
