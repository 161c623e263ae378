"""Whether what was decided still carries a task that holds access, by what is in Vault at this moment."""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.receipt import last_decision
from jitvault.lifecycle.requests.reader import persons, votes
from jitvault.model.approval import Tally, count
from jitvault.model.extension import Extension, decision_path, extended
from jitvault.model.revision import Revision
from jitvault.policy.decision import Obligations


def approval_lapse_reason(worker: WorkerContext, file: TaskRecord) -> dict[str, object] | None:
    """Why the decisions by which the task was granted do not carry it any more, as the chain keeps it; None while they
    do.

    Looked at are signature and digest, denials and withdrawals, that agent and approvers are enabled and in their
    groups, and that the approvers are registered. Expiry bounds the first issue only and is not.
    """
    said, revision = last_decision(file), Revision.of(file.revision.body)
    if why := _why_not_agent(worker, revision.content["agent"], said.get("agent_groups", ())):
        return {"note": why}
    obligations = Obligations.of(said["obligations"])
    found = count(
        revision,
        votes(worker, file.task.task_id, obligations.deciders),
        obligations,
        forbidden={},
        now=None,
        persons=persons(worker, revision),
    )
    return _why_short(found) or _why_not_extended(worker, file, revision)


def _why_not_extended(worker: WorkerContext, file: TaskRecord, revision: Revision) -> dict[str, object] | None:
    """The same of each extension: without it the task would be over, or will be later than it may."""
    who = persons(worker, revision)
    for event in extended(file.events):
        obligations, extension = Obligations.of(event.body["obligations"]), Extension.of(event.body["extension"])
        if not obligations.approvals:
            continue
        cast = votes(worker, file.task.task_id, obligations.deciders, below=decision_path(extension.digest))
        found = count(revision, cast, obligations, forbidden={}, now=None, extension=extension, persons=who)
        if said := _why_short(found):
            return {**said, "note": f"its extension until {extension.until:%Y-%m-%d %H:%M:%S} UTC: {said['note']}"}
    return None


def _why_short(found: Tally) -> dict[str, object] | None:
    """What is missing now of the approvals that there were."""
    refused = [refusal.as_json() for refusal in found.refused]
    if found.denied_by is not None:
        why = f"{found.denied_by.name} denied it: {found.denied_by.reason or 'no reason given'}"
        return {"note": why, "refused": refused}
    if found.missing:
        short = ", ".join(f"{needed.count} of {needed.group}" for needed in found.missing)
        names = "; ".join(f"{refusal.name} {refusal.why}" for refusal in found.refused)
        note = f"approvals do not hold any more: {short}" + (f" ({names})" if names else "")
        return {"note": note, "refused": refused}
    return None


def _why_not_agent(worker: WorkerContext, agent: dict[str, str], groups: list[str]) -> str | None:
    """`groups` are those that the agent was in when it was decided."""
    entity = worker.identity.by_id(agent["entity"])
    if entity is None or entity.disabled:
        return f"the agent {agent['name']} is disabled or gone"
    left = sorted({*groups} - {*worker.identity.groups_of(entity, groups)})
    return f"the agent {agent['name']} is not in {left[0]} any more" if left else None
