"""Who has to approve, who did, and who cannot.

Everything here is decided over signed documents that were just read from Vault; ledger rows are a cache
that no decision looks at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.domain.policy import Obligations, Requirement


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
    """The outcome: `denied_by` is set when somebody said no, `missing` are the approvals still to come.

    Where somebody could approve for one group or for another, `missing` names one of the ways to complete it.
    """

    approved_by: tuple[Vote, ...]
    denied_by: Vote | None
    missing: tuple[Requirement, ...]
    refused: tuple[Refusal, ...]

    def missing_json(self) -> list[dict[str, Any]]:
        return [needed.as_json() for needed in self.missing]


def tally(
    votes: Iterable[Vote],
    obligations: Obligations,
    *,
    digest: str,
    barred: Mapping[str, str],
    now: datetime,
) -> Tally:
    """Count the votes on `digest`. `barred` maps the entities that cannot approve to the reason.

    A denial by a member of one of the groups wins over any number of approvals. A vote for another digest, by
    somebody barred, from outside the groups or past its expiry does not count; `refused` says why.
    """
    approved: dict[str, Vote] = {}
    denied: Vote | None = None
    refused: list[Refusal] = []
    for vote in sorted(votes, key=lambda v: v.entity_id):
        why = _why_not(vote, obligations, digest=digest, barred=barred, now=now)
        if why:
            refused.append(Refusal(vote.entity_id, vote.name, why))
        elif vote.decision == "deny":
            denied = denied or vote
        elif vote.decision == "approve":
            approved[vote.entity_id] = vote
    return Tally(
        approved_by=tuple(approved.values()),
        denied_by=denied,
        missing=unmet(obligations.approvals, {entity: vote.groups for entity, vote in approved.items()}),
        refused=tuple(refused),
    )


def unmet(needed: Sequence[Requirement], approvers: Mapping[str, Sequence[str]]) -> tuple[Requirement, ...]:
    """What `approvers` (entity to its groups) leave open of `needed`, when each of them counts for one group only.

    As few as possible are left open: a maximum matching of approvers to the places that there are in each group
    (Kuhn's algorithm). Among several such ways the groups that come first are filled first.
    """
    places = [(each.group, n) for each in needed for n in range(each.count)]
    taken: dict[str, tuple[str, int]] = {}

    def fill(place: tuple[str, int], tried: set[str]) -> bool:
        """Give the place to an approver, moving others to another place where that helps."""
        for entity in sorted(approvers):
            if place[0] not in approvers[entity] or entity in tried:
                continue
            tried.add(entity)
            if entity not in taken or fill(taken[entity], tried):
                taken[entity] = place
                return True
        return False

    open_ = Counter(place[0] for place in places if not fill(place, set()))
    return tuple(Requirement(group, count) for group, count in sorted(open_.items()))


def _why_not(
    vote: Vote, obligations: Obligations, *, digest: str, barred: Mapping[str, str], now: datetime
) -> str | None:
    if vote.digest != digest:
        return "decided about another digest"
    if not set(obligations.deciders) & set(vote.groups):
        return f"is not in {' or '.join(obligations.deciders)}"
    if vote.decision == "approve" and vote.entity_id in barred:
        return barred[vote.entity_id]
    if vote.decision == "approve" and vote.expires_at <= now:
        return "the approval has expired"
    return None
