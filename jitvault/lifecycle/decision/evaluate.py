"""Decide about a request.

A request is resolved against what Vault has, policy is asked, and the approvals are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from jitvault.context import WorkerContext
from jitvault.engines.interface import Engine, check_template, engine_of
from jitvault.errors import DecisionStale, InvalidInput, VaultRejected
from jitvault.ledger.model import GrantAdmission
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_above, check_window, parent_of
from jitvault.lifecycle.decision.explain import for_another_agent
from jitvault.lifecycle.decision.questions import FINDINGS_COUNT_FOR, decision_input, who_extends
from jitvault.lifecycle.decision.template_gate import check_templates_tested
from jitvault.lifecycle.requests.reader import Submission, approver_decisions, persons
from jitvault.model.approval import ApproverDecision, RequestDecision, count
from jitvault.model.decision_input import DecisionInput
from jitvault.model.delegation import delegation_chain, excess_over_parent, over_budget
from jitvault.model.extension import Extension, extension_part
from jitvault.model.grant_terms import grant_terms
from jitvault.model.revision import Resolved, Revision, build
from jitvault.model.revision_content import Party
from jitvault.model.spec import AccessEntry, TaskSpec
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import CAPS, access_policy, role_name, smallest_cap
from jitvault.policy.decision import Decision, Obligations
from jitvault.policy.question import Action, HeldLeases, Principal
from jitvault.vault.interface import Entity


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A request as it was read just now, and the decision about it."""

    submitted: Submission
    decision: RequestDecision


def resolve(worker: WorkerContext, requester: Entity, spec: TaskSpec, *, number: int) -> Revision:
    """Return revision `number` of a request for this spec, resolved in Vault now.

    What is resolved are the names in the spec. Raises InvalidInput for anything that does not exist or is not
    provisioned.
    """
    body = spec.spec
    parent = parent_of(worker, spec)
    revision = build(
        installation=worker.installation,
        number=number,
        spec=spec,
        requester=_party(requester),
        agent=_party(enabled(worker, spec, "agent")),
        owner=_party(enabled(worker, spec, "owner")),
        access=[_resolved(worker, entry) for entry in body.access],
        cidrs=_cidrs(worker, spec),
        delegation=delegation_chain(parent) if parent else (),
    )
    if parent and (problems := excess_over_parent(revision, parent)):
        raise InvalidInput(
            f"task {spec.id}: spec.{problems[0]}", hint="A task can delegate only access that it has itself."
        )
    return revision


def check_grantable(worker: WorkerContext, revision: Revision) -> None:
    """Raise InvalidInput where the revision cannot be granted at all.

    Such a revision cannot be granted whatever policy says. Its window does not fit the templates or the clock, its
    token role is missing, or a template has not passed its check.
    """
    spec = revision.spec
    longest = timedelta(seconds=min(entry.max_window_s for entry in revision.access))
    problems = spec.window.problems(worker.now(), longest)
    if problems:
        raise InvalidInput(f"task {spec.id}: {problems[0]}")
    check_above(worker, revision)
    check_window(worker, revision)
    start = max(filter(None, (worker.now(), spec.window.not_before)))
    found = grant_terms(revision, start, cap_to_ancestors(worker, revision, start))
    network = spec.spec.network
    role = role_name(smallest_cap(timedelta(seconds=found.window_s)), network)
    if worker.tokens.role(role) is None:
        raise InvalidInput(
            f"task {spec.id}: token role {role} is missing",
            hint="An administrator provisions it with `jitvault init`.",
        )
    check_templates_tested(worker, revision)


def evaluate(worker: WorkerContext, revision: Revision) -> RequestDecision:
    """Ask policy and count the approvals of `revision`, all read now."""
    found = decision_input(worker, revision)
    decision = worker.authorizer.decide(found.to_issue())
    if revision.delegation and found.delegator is None:
        decision = _deny_delegation(decision, revision)
    decision = for_another_agent(worker.authorizer, found, decision)
    return _counted(worker, revision, found, decision)


def evaluate_extension(worker: WorkerContext, revision: Revision, extension: Extension, by: Entity) -> RequestDecision:
    """Ask policy and count the approvals of an extension that `by` requests.

    Policy has to permit it to `by` and to the requester who answers for the task.
    """
    found = replace(decision_input(worker, revision), window_s=extension.window_s)
    people = dict.fromkeys((found.requester, who_extends(worker, revision, by)))
    questions = [question for person in people for question in found.questions((Action.EXTEND,), person)]
    return _counted(worker, revision, found, worker.authorizer.decide(questions), extension)


def _counted(
    worker: WorkerContext,
    revision: Revision,
    found: DecisionInput,
    decision: Decision,
    extension: Extension | None = None,
) -> RequestDecision:
    _check_groups(worker, decision)
    below = extension_part(extension.digest) if extension else ""
    given = approver_decisions(worker, revision.spec.id, decision.obligations.deciders, below=below)
    counted = count(
        revision,
        given,
        decision.obligations,
        forbidden=_not_permitted(worker, found, given),
        now=worker.now(),
        extension=extension,
        persons=persons(worker, revision),
    )
    return RequestDecision(decision, counted, found.agent.groups, found)


def admission(worker: WorkerContext, revision: Revision, decision: RequestDecision) -> GrantAdmission:
    """Return the check of the ledger's counts.

    It is for the transaction that starts the issue. The decision rests on how much other tasks hold. It is checked
    again inside the transaction that commits the intent: of two tasks that would exceed a limit together, the first is
    issued and the other is decided anew (DecisionStale).
    """
    found = decision.decision_input
    parent = parent_of(worker, revision.spec)

    def judge(loads: Mapping[str, HeldLeases], siblings: Sequence[bytes]) -> None:
        now = decision.policy
        if loads != found.loads:
            now = worker.authorizer.decide(replace(found, loads=loads).to_issue())
        same = now.permitted and now.obligations == decision.policy.obligations
        others = [Revision.of(body) for body in siblings]
        if not same or (parent is not None and over_budget(revision, parent, others)):
            raise DecisionStale(f"task {revision.spec.id}: another task took the leases that it was to have")

    return GrantAdmission(
        task_id=revision.spec.id,
        agent=found.agent.entity,
        owner=found.owner.entity,
        templates=sorted(found.loads),
        since=found.at - FINDINGS_COUNT_FOR,
        parent=revision.spec.spec.parent,
        judge=judge,
    )


def why_not_renewed(worker: WorkerContext, revision: Revision, window_s: int | None) -> str | None:
    """Return why policy does not permit that a task is renewed.

    The result is None while it does.

    `window_s` is the whole window of a task that was extended.
    """
    found = replace(decision_input(worker, revision), window_s=window_s)
    decision = worker.authorizer.decide(found.questions((Action.RENEW,)))
    return None if decision.permitted else decision.why_denied


def _deny_delegation(decision: Decision, revision: Revision) -> Decision:
    """Return the denial for a requester who has no part in the parent task."""
    parent = revision.delegation[-1]
    why = f"only {parent.requester.name} and {parent.agent.name} can hand task {parent.task} on"
    return Decision(False, Obligations(), (), decision.policy_digest, (why,))


def _check_groups(worker: WorkerContext, decision: Decision) -> None:
    """Raise InvalidInput for an approver group that Vault does not have.

    The task would wait for ever.
    """
    for needed in decision.obligations.approvals:
        if not worker.identity.has_group(needed.group):
            raise InvalidInput(
                f"policy {', '.join(decision.rules)}: its approver group {needed.group} does not exist in Vault",
                hint="An administrator creates the group, or corrects @approver_group in the policies.",
            )


def _not_permitted(worker: WorkerContext, found: DecisionInput, given: Sequence[ApproverDecision]) -> dict[str, str]:
    """Return the approvers whom policy bars, with the reason.

    Policy bars them from approving this request.
    """
    barred = {}
    for one in given:
        if one.decision == "approve":
            approver = Principal("Operator", one.entity_id, one.name, one.groups)
            decision = worker.authorizer.decide(found.questions((Action.APPROVE,), approver))
            if not decision.permitted:
                barred[one.entity_id] = f"may not approve this by policy: {decision.why_denied}"
    return barred


def _resolved(worker: WorkerContext, entry: AccessEntry) -> Resolved:
    template = worker.templates.get(entry.template)
    if template is None:
        known = ", ".join(sorted(worker.templates)) or "none"
        # the requester's own templates may be others, so that it is known there
        raise InvalidInput(
            f"the worker has no template {entry.template}; it has: {known} (JITVAULT_TEMPLATES where it runs, or "
            "`jitvault dev --templates DIR`)"
        )
    engine = engine_of(worker.engines, template)
    path = template.resolve(entry.with_)
    try:
        policy = access_policy(path, engine.capability, template.spec.fill_data(entry.with_))
    except InvalidInput as error:
        raise InvalidInput(f"template {template.name}: {error}") from None
    found = worker.reader.read(f"sys/policies/acl/{policy.name}")
    if found is None or found["data"]["policy"] != policy.text:
        raise InvalidInput(
            f"template {template.name}: the ACL policy {policy.name} for {path} is not provisioned",
            hint="An administrator runs `jitvault init` after a template is added or changed.",
        )
    try:
        snapshot = _snapshot(worker, engine, template, path)
    except VaultRejected as error:
        raise InvalidInput(f"template {template.name}: {error}", hint="Check that its engine is mounted.") from None
    return Resolved(template, entry.with_, path, policy, snapshot, engine.capability)


def _snapshot(worker: WorkerContext, engine: Engine, template: AccessTemplate, path: str) -> dict[str, Any]:
    found = engine.snapshot(worker.reader.read, template.spec.mount, path.removeprefix(template.spec.mount + "/"))
    check_template(engine, template.spec, found)
    return found


def _cidrs(worker: WorkerContext, spec: TaskSpec) -> list[str]:
    """Return the addresses of the spec's network.

    They are in the form that its token roles have. They are part of what is approved.
    """
    network = spec.spec.network
    if network is None:
        return []
    bound = {
        tuple(sorted((worker.tokens.role(role_name(cap, network)) or {}).get("token_bound_cidrs") or ()))
        for cap in CAPS
    }
    cidrs = bound.pop() if len(bound) == 1 else ()
    if not cidrs:
        raise InvalidInput(
            f"task {spec.id}: spec.network: network {network} is not provisioned",
            hint="An administrator provisions it with `jitvault init --network NAME=CIDR`.",
        )
    return list(cidrs)


def enabled(worker: WorkerContext, spec: TaskSpec, part: Literal["agent", "owner"]) -> Entity:
    """Return the entity that the spec names as agent or owner.

    Raises InvalidInput when there is no such entity, or it is disabled.
    """
    name = spec.spec.agent if part == "agent" else spec.spec.owner
    entity = worker.identity.by_name(name)
    if entity is None or entity.disabled:
        raise InvalidInput(f"task {spec.id}: spec.{part}: there is no enabled Vault entity named {name}")
    return entity


def _party(entity: Entity) -> Party:
    return Party(entity.id, entity.name)
