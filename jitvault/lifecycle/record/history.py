"""What a task's chain keeps of people's decisions.

What is read from the chain again is here as well. A decision is written as rows and as the body of an event. From the
events it is read who ended a task, closed it without proof, or withdrew an approval, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from jitvault.documents.proof import Forced
from jitvault.documents.published_parts import Ended, RefusedGrant
from jitvault.errors import CorruptRecord
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import AccessRow, DecisionRow, RevisionRow, Row, TaskRecord
from jitvault.model import event_bodies as bodies
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import EndCause, EventBody, Recovered, Refusal, RevisionDecision, Signed, said
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.model.states import EndReason
from jitvault.policy.decision import Decision, Obligations, ProofLevel, needed_proof_level


def ended_of(record: TaskRecord) -> Ended | None:
    """Return who ended or cancelled a task, when and why.

    None for any other task.
    """
    reason: str
    for event, body in said(record.events, EventBody):
        match body:
            case EndCause(reason=reason) | Recovered(reason=EndReason() as reason):
                pass
            case Signed() if event.kind == EventKind.CANCELLED:
                reason = "cancelled"
            case _:
                continue
        stated = _signed_later(record, event, body) or body
        by = getattr(stated, "by", "") or None
        name = _name(record, by) if by else None
        return Ended(by=by, name=name, at=datetime.fromisoformat(event.at), reason=reason, note=stated.note)
    return None


def _signed_later(record: TaskRecord, event: Event, ending: EventBody) -> Signed | None:
    """Return what the signed end says of a task whose token was given back.

    The audit line by which a token revoked itself is often read before the signed end, which says who did that and why.
    """
    if not isinstance(ending, EndCause) or ending.reason is not EndReason.COMPLETED or ending.by:
        return None
    agent = Revision.of(record.revision.body).content.agent.entity
    later = (e for e in record.events if e.kind == EventKind.NOTED and e.seq > event.seq)
    return next((body for _, body in said(later, Signed) if body.by == agent), None)


def counted_at(record: TaskRecord, decision: DecisionRow) -> str | None:
    """Return when a worker counted a decision first; None if unknown.

    A decision that stopped counting, and counts again, is as old as it counts without a break. A new revision is
    decided about anew.
    """
    since = None
    for event, decided in _decisions(record.events):
        counts = decision.entity_id in (*decided.approved_by, decided.denied_by)
        if not counts:
            since = None
        elif since is None or event.kind == EventKind.REVISED:
            since = event.at
    return since


def refused_grant_of(record: TaskRecord) -> RefusedGrant | None:
    """Return the last request for a grant that was refused; None without one."""
    for last, body in said(reversed(record.events), bodies.GrantRefused):
        later = sum(event.seq > last.seq and event.kind == EventKind.REVISED for event in record.events)
        at = datetime.fromisoformat(last.at)
        return RefusedGrant(request=body.request, revision=record.task.revision - later, at=at, error=body.error)
    return None


def reached_state_at(record: TaskRecord) -> str | None:
    """Return when the task got the state that it is in; None if unknown.

    A later event may repeat the state, as the refusal of a grant does: it moves nothing. A new revision is decided
    about anew, so a denial of it is its own.
    """
    state, since = None, None
    for event in record.events:
        reached = bodies.ledger_part(event).state
        if reached != state or event.kind == EventKind.REVISED:
            state, since = reached, event.at
    return since if state == record.task.state else None


def forced_of(record: TaskRecord) -> Forced | None:
    """Return who forced the task closed, None where nobody did.

    It names the operator who had Vault forget a lease, or had the task closed without proof.
    """
    for _, last in said(reversed(record.events), bodies.Forced):
        return Forced(last.by, _name(record, last.by), last.note)
    return None


def uncounted_of(record: TaskRecord) -> list[Refusal]:
    """Return each decision that does not count, as of the last time that decisions were counted."""
    return list(next(_refused(reversed(record.events)), ()))


def withdrawn_by(record: TaskRecord) -> list[str]:
    """Return the names of those who withdrew an approval at any time."""
    return list(dict.fromkeys(one.name for refused in _refused(record.events) for one in refused if one.withdrawn))


def _refused(events: Iterable[Event]) -> Iterator[tuple[Refusal, ...]]:
    """Yield which decisions did not count, each time that decisions were counted."""
    for _, body in said(events, EventBody):
        match body:
            case bodies.Decided(decision=RevisionDecision(refused=refused)):
                yield refused
            case bodies.ExtensionPending(refused=refused) | EndCause(refused=tuple(refused)):
                yield refused


def _name(record: TaskRecord, entity: str) -> str:
    """Return an entity's name.

    The chain has the names of operators, and the revision those of entities with a part in the task.
    """
    named = Revision.of(record.revision.body).content.names
    for _, body in said(record.events, EventBody):
        if isinstance(body, Signed | EndCause) and body.name:
            named[body.by] = body.name
    return named.get(entity, entity)


def last_decision(record: TaskRecord) -> RevisionDecision:
    """Return the last decision in the task's chain. Raises CorruptRecord where there is none."""
    for _, decided in _decisions(reversed(record.events)):
        return decided
    raise CorruptRecord(f"no event of task {record.task.task_id} has a decision")


def _decisions(events: Iterable[Event]) -> Iterator[tuple[Event, RevisionDecision]]:
    """Yield the decisions about a task, each with the event that has it."""
    for event, body in said(events, EventBody):
        if isinstance(body, bodies.Decided | Recovered) and body.decision is not None:
            yield event, body.decision


def decisions_digest(rows: Iterable[DecisionRow]) -> str:
    """Return the digest of decision rows that the chain keeps.

    By this digest an edited row is found.
    """
    told = [
        [row.entity_id, row.name, row.decision, row.digest, rfc3339(row.expires_at), row.reason]
        for row in sorted(rows, key=lambda row: row.entity_id)
    ]
    return digest_of({"votes": told})


def proof_level_of(record: TaskRecord, entry: Access | None) -> str:
    """Return the proof level that a credential's end needs.

    It is the template's level, or policy's where that is higher. A credential that is of no access needs the highest.
    """
    level = entry.confirm if entry else ProofLevel.TARGET.value
    for obligations in obligations_of(record):
        level = needed_proof_level(level, obligations.confirm)
    return level


def obligations_of(record: TaskRecord) -> list[Obligations]:
    """Return what policy obliged the task to, when it was last decided and at each extension."""
    granted = (body.decision.obligations for _, body in said(record.events, bodies.Extended))
    return [last_decision(record).policy.obligations, *granted]


def revision_row(task_id: str, revision: Revision, number: int, policy: Decision) -> RevisionRow:
    """Return the row of a revision with policy's decision about it."""
    return RevisionRow(task_id, number, revision.digest, revision.body, policy.as_json())


def opened_rows(task_id: str, revision: Revision, number: int, policy: Decision) -> tuple[Row, ...]:
    """Return the rows of a new revision.

    They are the revision itself, and its lease budget by template.
    """
    agent = revision.content.agent.entity
    owner = revision.content.owner.entity
    budgets: Counter[str] = Counter()
    for entry in revision.access:
        budgets[entry.template] += entry.lease_budget
    access = (AccessRow(task_id, number, name, agent, owner, budget) for name, budget in sorted(budgets.items()))
    return (revision_row(task_id, revision, number, policy), *access)


def decision_rows(task_id: str, decision: RequestDecision) -> tuple[DecisionRow, ...]:
    """Return the rows of the decisions that count, by entity id."""
    counted = [*decision.tally.approved_by, *filter(None, [decision.tally.denied_by])]
    return tuple(
        DecisionRow(task_id, v.entity_id, v.name, v.decision, v.digest, v.expires_at, v.reason)
        for v in sorted(counted, key=lambda v: v.entity_id)
    )


def lapsed_rows(record: TaskRecord, counting: Sequence[DecisionRow]) -> list[DecisionRow]:
    """Return decisions that counted before and do not any more, as `lapsed`.

    A decision lapses when it expires, is withdrawn, or its author is no approver any more.
    """
    counted = {row.entity_id for row in counting}
    return [replace(row, decision="lapsed") for row in record.decisions if row.entity_id not in counted]


def stated_decision(task_id: str, decision: RequestDecision) -> RevisionDecision:
    """Return what the event chain keeps of a decision, with what those who decided signed."""
    tally = decision.tally
    return RevisionDecision(
        policy=decision.policy,
        approved_by=tuple(one.entity_id for one in tally.approved_by),
        denied_by=tally.denied_by.entity_id if tally.denied_by else None,
        signed=tuple(one.envelope for one in (*tally.approved_by, tally.denied_by) if one),
        missing=tally.missing,
        refused=tally.refused,
        agent_groups=tuple(decision.agent_groups),
        votes=decisions_digest(decision_rows(task_id, decision)),
    )
