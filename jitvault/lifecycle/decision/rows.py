"""Turn a decision into the ledger's rows and the body of its event in the chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from jitvault.ledger.model import AccessRow, DecisionRow, RevisionRow, Row, TaskRecord
from jitvault.lifecycle.record.history import votes_digest
from jitvault.model.approval import Standing
from jitvault.model.revision import Revision
from jitvault.model.states import State


def revision_row(task_id: str, revision: Revision, number: int, standing: Standing) -> RevisionRow:
    """Return the row of a revision with policy's decision about it."""
    return RevisionRow(task_id, number, revision.digest, revision.body, standing.decision.as_json())


def opened_rows(task_id: str, revision: Revision, number: int, standing: Standing) -> tuple[Row, ...]:
    """Return the rows of a new revision: itself, and its lease budget by template."""
    agent, owner = (revision.content[part]["entity"] for part in ("agent", "owner"))
    budgets: Counter[str] = Counter()
    for entry in revision.access:
        budgets[entry["template"]] += entry["lease_budget"]
    access = (AccessRow(task_id, number, name, agent, owner, budget) for name, budget in sorted(budgets.items()))
    return (revision_row(task_id, revision, number, standing), *access)


def vote_rows(task_id: str, standing: Standing) -> tuple[DecisionRow, ...]:
    """Return the rows of the votes that count, by entity id."""
    counted = [*standing.tally.approved_by, *filter(None, [standing.tally.denied_by])]
    return tuple(
        DecisionRow(task_id, v.entity_id, v.name, v.decision, v.digest, v.expires_at, v.reason)
        for v in sorted(counted, key=lambda v: v.entity_id)
    )


def lapsed_rows(file: TaskRecord, cast: Sequence[DecisionRow]) -> list[DecisionRow]:
    """Return the votes that counted before and do not any more, as `lapsed`.

    A vote lapses when it expires, is withdrawn, or its author is no approver any more.
    """
    counted = {row.entity_id for row in cast}
    return [replace(row, decision="lapsed") for row in file.decisions if row.entity_id not in counted]


def decision_event_body(task_id: str, standing: Standing) -> dict[str, object]:
    """Return what the event chain keeps of a decision."""
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
