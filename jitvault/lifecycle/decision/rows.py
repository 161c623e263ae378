"""What the ledger keeps of a decision: the rows that show it, and what the chain says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from jitvault.ledger.model import AccessRow, DecisionRow, RevisionRow, Row, TaskRecord
from jitvault.lifecycle.decision.evaluate import Standing
from jitvault.lifecycle.record.receipt import votes_digest
from jitvault.model.revision import Revision
from jitvault.model.states import State


def revision_row(task_id: str, revision: Revision, number: int, standing: Standing) -> RevisionRow:
    return RevisionRow(task_id, number, revision.digest, revision.body, standing.decision.as_json())


def opened_rows(task_id: str, revision: Revision, number: int, standing: Standing) -> tuple[Row, ...]:
    """A new revision, and what it asks for by each template."""
    agent, owner = (revision.content[part]["entity"] for part in ("agent", "owner"))
    budgets: Counter[str] = Counter()
    for entry in revision.access:
        budgets[entry["template"]] += entry["lease_budget"]
    asked = (AccessRow(task_id, number, name, agent, owner, budget) for name, budget in sorted(budgets.items()))
    return (revision_row(task_id, revision, number, standing), *asked)


def vote_rows(task_id: str, standing: Standing) -> tuple[DecisionRow, ...]:
    counted = [*standing.tally.approved_by, *filter(None, [standing.tally.denied_by])]
    return tuple(
        DecisionRow(task_id, v.entity_id, v.name, v.decision, v.digest, v.expires_at, v.reason)
        for v in sorted(counted, key=lambda v: v.entity_id)
    )


def lapsed_rows(file: TaskRecord, cast: Sequence[DecisionRow]) -> list[DecisionRow]:
    """What counted and does not any more: it expired, was withdrawn, or its author is no approver now."""
    counted = {row.entity_id for row in cast}
    return [replace(row, decision="lapsed") for row in file.decisions if row.entity_id not in counted]


def decision_event_body(task_id: str, standing: Standing) -> dict[str, object]:
    """What the chain keeps of a decision."""
    decision = standing.decision.as_json()
    return {
        "policy": decision["policy_digest"],
        "rules": decision["rules"],
        "permitted": decision["permitted"],
        "obligations": decision["obligations"],
        "approved_by": [vote.entity_id for vote in standing.tally.approved_by],
        "denied_by": standing.tally.denied_by.entity_id if standing.tally.denied_by else None,
        "missing": standing.tally.missing_json(),
        "refused": [refusal.as_json() for refusal in standing.tally.refused],
        "why": standing.why_denied if standing.state is State.DENIED else "",
        "agent_groups": list(standing.agent_groups),
        "votes": votes_digest(vote_rows(task_id, standing)),
    }
