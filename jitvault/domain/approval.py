"""Who has to approve, who did, and who cannot.

Everything here is decided over signed documents that were just read from Vault; ledger rows are a cache
that no decision looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.domain.policy import Obligations


@dataclass(frozen=True, slots=True)
class Vote:
    """One approver's verified document. `groups` are the Vault groups that the approver is in now; `written_at`
    is Vault's time of the document.
    """

    entity_id: str
    name: str
    decision: str
    digest: str
    expires_at: datetime
    reason: str
    groups: tuple[str, ...]
    written_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "entity": self.entity_id,
            "name": self.name,
            "decision": self.decision,
            "digest": self.digest,
            "expires_at": self.expires_at.isoformat(),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decision that does not count, and why."""

    entity_id: str
    name: str
    why: str

    def as_json(self) -> dict[str, str]:
        return {"entity": self.entity_id, "name": self.name, "why": self.why}


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcome: `denied_by` is set when somebody said no, `missing` counts the approvals still to come."""

    approved_by: tuple[Vote, ...]
    denied_by: Vote | None
    missing: int
    group: str
    refused: tuple[Refusal, ...]

    def missing_json(self) -> list[dict[str, Any]]:
        return [{"group": self.group, "count": self.missing}] if self.missing else []


def tally(
    votes: Iterable[Vote],
    obligations: Obligations,
    *,
    digest: str,
    involved: Mapping[str, str],
    now: datetime,
) -> Tally:
    """Count the votes on `digest`. `involved` maps the entities that cannot approve to their part in it.

    A denial by a member of the group wins over any number of approvals. A vote for another digest, by
    somebody involved, from outside the group or past its expiry does not count; `refused` says why.
    """
    approved: dict[str, Vote] = {}
    denied: Vote | None = None
    refused: list[Refusal] = []
    for vote in sorted(votes, key=lambda v: v.entity_id):
        why = _why_not(vote, obligations, digest=digest, involved=involved, now=now)
        if why:
            refused.append(Refusal(vote.entity_id, vote.name, why))
        elif vote.decision == "deny":
            denied = denied or vote
        elif vote.decision == "approve":
            approved[vote.entity_id] = vote
    return Tally(
        approved_by=tuple(approved.values()),
        denied_by=denied,
        missing=max(0, obligations.approvals - len(approved)),
        group=obligations.approver_group,
        refused=tuple(refused),
    )


def _why_not(
    vote: Vote, obligations: Obligations, *, digest: str, involved: Mapping[str, str], now: datetime
) -> str | None:
    if vote.digest != digest:
        return "decided about another digest"
    if obligations.approver_group not in vote.groups:
        return f"is not in {obligations.approver_group}"
    if vote.decision == "approve" and vote.entity_id in involved:
        return f"is the {involved[vote.entity_id]} and cannot approve"
    if vote.decision == "approve" and vote.expires_at <= now:
        return "the approval has expired"
    return None
