"""Check that the approvals of a task with access still hold.

The check is made by what is in Vault at this moment.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.history import last_decision
from jitvault.lifecycle.requests.reader import approver_decisions, persons
from jitvault.model.approval import Tally, count, denial
from jitvault.model.event_bodies import EndCause, Extended, said
from jitvault.model.extension import extension_part
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party
from jitvault.model.states import EndReason


def approval_lapse_reason(worker: WorkerContext, record: TaskRecord) -> EndCause | None:
    """Return why the task's approvals do not hold any more.

    The result is None while they do, else the cause of the task's end. Checked are: signature and
    digest, denials and withdrawals, that agent and approvers are enabled and in their groups, and that the approvers
    are registered. The expiry of an approval is not checked, since it limits the first issue only.
    """
    decided = last_decision(record)
    revision = Revision.of(record.revision.body)
    if why := why_not_agent(worker, revision.content.agent, decided.agent_groups):
        return EndCause(reason=EndReason.POLICY, note=why)
    obligations = decided.policy.obligations
    tally = count(
        revision,
        approver_decisions(worker, record.task.task_id, obligations.deciders),
        obligations,
        forbidden={},
        now=None,
        persons=persons(worker, revision),
    )
    return _missing_approvals(tally) or _extension_lapse_reason(worker, record, revision)


def _extension_lapse_reason(worker: WorkerContext, record: TaskRecord, revision: Revision) -> EndCause | None:
    """Return why the approvals of an extension do not hold any more.

    Without the extension the task would be over already, or earlier than it is now.
    """
    who = persons(worker, revision)
    for _, body in said(record.events, Extended):
        obligations = body.decision.obligations
        extension = body.extension
        if not obligations.approvals:
            continue
        given = approver_decisions(
            worker, record.task.task_id, obligations.deciders, below=extension_part(extension.digest)
        )
        tally = count(revision, given, obligations, forbidden={}, now=None, extension=extension, persons=who)
        if lapse := _missing_approvals(tally):
            note = f"its extension until {extension.until:%Y-%m-%d %H:%M:%S} UTC: {lapse.note}"
            return msgspec.structs.replace(lapse, note=note)
    return None


def _missing_approvals(tally: Tally) -> EndCause | None:
    """Return which of the former approvals are missing now, or who denied."""
    if tally.denied_by is not None:
        note = denial(tally.denied_by.name, tally.denied_by.reason)
        return EndCause(reason=EndReason.POLICY, note=note, refused=tally.refused)
    if tally.missing:
        missing = ", ".join(f"{needed.count} of {needed.group}" for needed in tally.missing)
        names = "; ".join(f"{refusal.name} {refusal.why}" for refusal in tally.refused)
        note = f"approvals do not hold any more: {missing}" + (f" ({names})" if names else "")
        return EndCause(reason=EndReason.POLICY, note=note, refused=tally.refused)
    return None


def why_not_agent(worker: WorkerContext, agent: Party, groups: Sequence[str]) -> str | None:
    """Return why the agent may not go on; None while it may.

    `groups` are the groups that the agent was in when the task was decided.
    """
    entity = worker.identity.by_id(agent.entity)
    if entity is None or entity.disabled:
        return f"the agent {agent.name} is disabled or gone"
    lost = sorted({*groups} - {*worker.identity.groups_of(entity, groups)})
    return f"the agent {agent.name} is not in {lost[0]} any more" if lost else None
