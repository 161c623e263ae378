"""What a task's chain keeps of people's decisions.

What is read from the chain again is here as well. A decision is written as rows and as the body of an event. From the
events it is read who ended a task, closed it without proof, or withdrew an approval, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from jitvault.documents.proof import Forced
from jitvault.documents.published_parts import Ended, PublishedError, RefusedGrant, UncountedDecision
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.conversion import converter
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import AccessRow, DecisionRow, RevisionRow, Row, TaskRecord
from jitvault.model.approval import RequestDecision
from jitvault.model.event_chain import Event
from jitvault.model.extension import extended
from jitvault.model.grant_refusal import grant_refusals
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.model.states import EndReason, State
from jitvault.policy.decision import Decision, ProofLevel, needed_proof_level, obliged_proof_level

_error = converter(PublishedError)
_uncounted = converter(list[UncountedDecision])


def ended_of(file: TaskRecord) -> Ended | None:
    """Return who ended or cancelled a task, when and why.

    None for any other task.
    """
    ended = (EventKind.ENDING, EventKind.CANCELLED, EventKind.RECOVERED)
    event = next(
        (e for e in file.events if e.kind in ended and (e.kind != EventKind.RECOVERED or "reason" in e.body)), None
    )
    if event is None:
        return None
    said = _signed_later(file, event) or event.body
    by = said.get("by")
    return Ended(
        by=by,
        name=_name(file, by) if by else None,
        at=datetime.fromisoformat(event.at),
        reason=event.body.get("reason", "cancelled"),
        note=said.get("note", ""),
    )


def _signed_later(file: TaskRecord, ending: Event) -> Mapping[str, Any] | None:
    """Return what the signed end says of a task whose token was given back.

    The audit line by which a token revoked itself is often read before the signed end, which says who did that and why.
    """
    if ending.body.get("reason") != EndReason.COMPLETED or ending.body.get("by"):
        return None
    agent = Revision.of(file.revision.body).content.agent.entity
    noted = (event.body for event in file.events if event.kind == EventKind.NOTED and event.seq > ending.seq)
    return next((body for body in noted if body["by"] == agent), None)


def counted_at(file: TaskRecord, decision: DecisionRow) -> str | None:
    """Return when a worker counted a decision first; None if unknown.

    A decision that stopped counting, and counts again, is as old as it counts without a break. A new revision is
    decided about anew.
    """
    since = None
    for event in file.events:
        if "approved_by" not in event.body or "denied_by" not in event.body:
            continue
        counts = decision.entity_id in (*event.body["approved_by"], event.body["denied_by"])
        if not counts:
            since = None
        elif since is None or event.kind == EventKind.REVISED:
            since = event.at
    return since


def refused_grant_of(file: TaskRecord) -> RefusedGrant | None:
    """Return the last request for a grant that was refused; None without one."""
    refusals = grant_refusals(file.events)
    if not refusals:
        return None
    last = refusals[-1]
    later = sum(event.seq > last.seq and event.kind == EventKind.REVISED for event in file.events)
    return RefusedGrant(
        request=last.body["request"],
        revision=file.task.revision - later,
        at=datetime.fromisoformat(last.at),
        error=_error(last.body["error"]),
    )


def reached_state_at(file: TaskRecord) -> str | None:
    """Return when the task got the state that it is in; None if unknown.

    A later event may repeat the state, as the refusal of a grant does: it moves nothing. A new revision is decided
    about anew, so a denial of it is its own.
    """
    state, since = None, None
    for event in file.events:
        reached = event.body.get("state", state)
        if reached != state or event.kind == EventKind.REVISED:
            state, since = reached, event.at
    return since if state == file.task.state else None


def forced_of(file: TaskRecord) -> Forced | None:
    """Return who forced the task closed, None where nobody did.

    It names the operator who had Vault forget a lease, or had the task closed without proof.
    """
    bodies = [event.body for event in file.events if event.kind in (EventKind.FORCE_INTENDED, EventKind.UNVERIFIED)]
    if not bodies:
        return None
    last = bodies[-1]
    return Forced(last["by"], _name(file, last["by"]), last["note"])


def uncounted_of(file: TaskRecord) -> list[UncountedDecision]:
    """Return each decision that does not count, as of the last time that decisions were counted."""
    refused = [event.body["refused"] for event in file.events if "refused" in event.body]
    return _uncounted(refused[-1]) if refused else []


def withdrawn_by(file: TaskRecord) -> list[str]:
    """Return the names of those who withdrew an approval at any time."""
    refused = (one for e in file.events for one in e.body.get("refused", ()))
    return list(dict.fromkeys(one["name"] for one in refused if one["withdrawn"]))


def _name(file: TaskRecord, entity: str) -> str:
    """Return an entity's name.

    The chain has the names of operators, and the revision those of entities with a part in the task.
    """
    named = {e.body["by"]: e.body["name"] for e in file.events if "name" in e.body and "by" in e.body}
    return str({**Revision.of(file.revision.body).content.names, **named}.get(entity, entity))


def last_decision(file: TaskRecord) -> Mapping[str, Any]:
    """Return the body of the last decision in the task's chain.

    The result is empty where there is no decision. It has policy's decision, the obligations, and who approved or
    denied.
    """
    kinds = (EventKind.SUBMITTED, EventKind.REVISED, EventKind.DECIDED, EventKind.RECOVERED)
    decisions = [event.body for event in file.events if event.kind in kinds and "policy" in event.body]
    return decisions[-1] if decisions else {}


def decisions_digest(rows: Iterable[DecisionRow]) -> str:
    """Return the digest of decision rows that the chain keeps.

    By this digest an edited row is found.
    """
    told = [
        [row.entity_id, row.name, row.decision, row.digest, rfc3339(row.expires_at), row.reason]
        for row in sorted(rows, key=lambda row: row.entity_id)
    ]
    return digest_of({"votes": told})


def proof_level_of(file: TaskRecord, entry: Access | None) -> str:
    """Return the proof level that a credential's end needs.

    It is the template's level, or policy's where that is higher. A credential that is of no access needs the highest.
    """
    level = entry.confirm if entry else ProofLevel.TARGET.value
    for decision in (last_decision(file), *(event.body for event in extended(file.events))):
        level = needed_proof_level(level, obliged_proof_level(decision))
    return level


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


def lapsed_rows(file: TaskRecord, counting: Sequence[DecisionRow]) -> list[DecisionRow]:
    """Return decisions that counted before and do not any more, as `lapsed`.

    A decision lapses when it expires, is withdrawn, or its author is no approver any more.
    """
    counted = {row.entity_id for row in counting}
    return [replace(row, decision="lapsed") for row in file.decisions if row.entity_id not in counted]


def decision_event_body(task_id: str, decision: RequestDecision) -> dict[str, object]:
    """Return what the event chain keeps of a decision, with what those who decided signed."""
    policy = decision.policy.as_json()
    return {
        "policy": policy["policy_digest"],
        "rules": policy["rules"],
        "permitted": policy["permitted"],
        "obligations": policy["obligations"],
        "approved_by": [one.entity_id for one in decision.tally.approved_by],
        "denied_by": decision.tally.denied_by.entity_id if decision.tally.denied_by else None,
        "signed": [dict(one.envelope) for one in (*decision.tally.approved_by, decision.tally.denied_by) if one],
        "missing": decision.tally.missing_json(),
        "refused": [refusal.as_json() for refusal in decision.tally.refused],
        "why": decision.why_denied if decision.state is State.DENIED else "",
        "agent_groups": list(decision.agent_groups),
        "votes": decisions_digest(decision_rows(task_id, decision)),
    }
