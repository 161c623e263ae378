"""Check that the approvals of a task with access still hold.

The check is made by what is in Vault at this moment.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.history import last_decision
from jitvault.lifecycle.requests.reader import approver_decisions, persons
from jitvault.model.approval import Tally, count, denial
from jitvault.model.extension import Extension, extended, extension_part
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party
from jitvault.policy.decision import Obligations


def approval_lapse_reason(worker: WorkerContext, file: TaskRecord) -> dict[str, object] | None:
    """Return why the task's approvals do not hold any more.

    The result is None while they do. The returned mapping is the event's body in the chain. Checked are: signature and
    digest, denials and withdrawals, that agent and approvers are enabled and in their groups, and that the approvers
    are registered. The expiry of an approval is not checked, since it limits the first issue only.
    """
    decided = last_decision(file)
    revision = Revision.of(file.revision.body)
    if why := _why_not_agent(worker, revision.content.agent, decided.get("agent_groups", ())):
        return {"note": why}
    obligations = Obligations.of(decided["obligations"])
    tally = count(
        revision,
        approver_decisions(worker, file.task.task_id, obligations.deciders),
        obligations,
        forbidden={},
        now=None,
        persons=persons(worker, revision),
    )
    return _missing_approvals(tally) or _extension_lapse_reason(worker, file, revision)


def _extension_lapse_reason(worker: WorkerContext, file: TaskRecord, revision: Revision) -> dict[str, object] | None:
    """Return why the approvals of an extension do not hold any more.

    Without the extension the task would be over already, or earlier than it is now.
    """
    who = persons(worker, revision)
    for event in extended(file.events):
        obligations = Obligations.of(event.body["obligations"])
        extension = Extension.of(event.body["extension"])
        if not obligations.approvals:
            continue
        given = approver_decisions(
            worker, file.task.task_id, obligations.deciders, below=extension_part(extension.digest)
        )
        tally = count(revision, given, obligations, forbidden={}, now=None, extension=extension, persons=who)
        if lapse := _missing_approvals(tally):
            return {**lapse, "note": f"its extension until {extension.until:%Y-%m-%d %H:%M:%S} UTC: {lapse['note']}"}
    return None


def _missing_approvals(tally: Tally) -> dict[str, object] | None:
    """Return which of the former approvals are missing now, or who denied."""
    refused = [refusal.as_json() for refusal in tally.refused]
    if tally.denied_by is not None:
        return {"note": denial(tally.denied_by.name, tally.denied_by.reason), "refused": refused}
    if tally.missing:
        missing = ", ".join(f"{needed.count} of {needed.group}" for needed in tally.missing)
        names = "; ".join(f"{refusal.name} {refusal.why}" for refusal in tally.refused)
        note = f"approvals do not hold any more: {missing}" + (f" ({names})" if names else "")
        return {"note": note, "refused": refused}
    return None


def _why_not_agent(worker: WorkerContext, agent: Party, groups: list[str]) -> str | None:
    """Return why the agent may not go on; None while it may.

    `groups` are the groups that the agent was in when the task was decided.
    """
    entity = worker.identity.by_id(agent.entity)
    if entity is None or entity.disabled:
        return f"the agent {agent.name} is disabled or gone"
    lost = sorted({*groups} - {*worker.identity.groups_of(entity, groups)})
    return f"the agent {agent.name} is not in {lost[0]} any more" if lost else None
