"""What a policy decision is, what it obliges to, and how several of them become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

OPERATORS = "jitvault-operators"
AGENTS = "jitvault-agents"
APPROVERS = "jitvault-approvers"
"""The Vault group that approves where a policy names no other."""
SECURITY = "jitvault-security"
"""The second group of approvers, which the shipped policies ask where risk is high."""


class Level(StrEnum):
    """A template's tier and a task's criticality share one scale."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


_ORDER = tuple(Level)


def highest(levels: Iterable[str]) -> Level:
    """The highest of `levels`. Raises ValueError for none or an unknown one."""
    return max((Level(level) for level in levels), key=_ORDER.index)


class ProofLevel(StrEnum):
    """By what the end of a task has to be proven; the later is the higher."""

    AUDIT = "audit"
    TARGET = "target"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """`count` distinct members of the Vault group `group` have to approve."""

    group: str
    count: int

    def as_json(self) -> dict[str, Any]:
        return {"group": self.group, "count": self.count}


@dataclass(frozen=True, slots=True)
class Obligations:
    """What has to hold before and while a permitted task is granted.

    `approvals` names each group once, sorted, with a count of at least one. `max_ttl_s` caps the token's life and
    `max_window_s` the window, in seconds. `confirm` raises what the templates ask. `notify` names whom to tell. In
    the groups of `owner_may_approve` the owner of the data counts as everybody else does.
    """

    approvals: tuple[Requirement, ...] = ()
    max_ttl_s: int | None = None
    max_window_s: int | None = None
    confirm: ProofLevel | None = None
    notify: tuple[str, ...] = ()
    owner_may_approve: tuple[str, ...] = ()

    @property
    def deciders(self) -> tuple[str, ...]:
        """The groups whose members can approve and deny; where nobody has to approve, the usual one can deny."""
        return tuple(needed.group for needed in self.approvals) or (APPROVERS,)

    def as_json(self) -> dict[str, Any]:
        return {
            "approvals": [needed.as_json() for needed in self.approvals],
            "max_ttl_s": self.max_ttl_s,
            "max_window_s": self.max_window_s,
            "confirm": self.confirm.value if self.confirm else None,
            "notify": list(self.notify),
            "owner_may_approve": list(self.owner_may_approve),
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Obligations:
        """The obligations that `as_json` told. Raises KeyError, ValueError."""
        return cls(
            approvals=tuple(Requirement(each["group"], each["count"]) for each in said["approvals"]),
            max_ttl_s=said["max_ttl_s"],
            max_window_s=said["max_window_s"],
            confirm=ProofLevel(said["confirm"]) if said["confirm"] else None,
            notify=tuple(said["notify"]),
            owner_may_approve=tuple(said["owner_may_approve"]),
        )


NO_OBLIGATIONS = Obligations()


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one access, or for a whole task.

    `rules` are the `@id`s that decided: permits, or what forbade it; none where nothing permits. `reasons` are
    their `@reason`s, in words.
    """

    permitted: bool
    obligations: Obligations
    rules: tuple[str, ...]
    policy_digest: str
    reasons: tuple[str, ...] = ()

    @property
    def why_denied(self) -> str:
        """One line for whoever was denied."""
        if not self.rules:
            return "no policy permits it" + (f": {'; '.join(self.reasons)}" if self.reasons else "")
        return f"forbidden by {', '.join(self.rules)}" + (f": {'; '.join(self.reasons)}" if self.reasons else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "permitted": self.permitted,
            "obligations": self.obligations.as_json(),
            "rules": list(self.rules),
            "reasons": list(self.reasons),
            "policy_digest": self.policy_digest,
        }


def strictest(first: Obligations, second: Obligations) -> Obligations:
    """Both at once: of each group the most approvals, the shortest times, the highest rung, everybody told."""
    counts: dict[str, int] = {}
    for needed in (*first.approvals, *second.approvals):
        counts[needed.group] = max(needed.count, counts.get(needed.group, 0))
    rungs = [rung for rung in (first.confirm, second.confirm) if rung is not None]
    return Obligations(
        approvals=tuple(Requirement(group, count) for group, count in sorted(counts.items())),
        max_ttl_s=_least(first.max_ttl_s, second.max_ttl_s),
        max_window_s=_least(first.max_window_s, second.max_window_s),
        confirm=max(rungs, key=tuple(ProofLevel).index) if rungs else None,
        notify=tuple(sorted({*first.notify, *second.notify})),
        owner_may_approve=_owner_of_both(first, second),
    )


def _owner_of_both(first: Obligations, second: Obligations) -> tuple[str, ...]:
    """The groups in which whoever asks for their approval lets the owner count."""
    against = {
        needed.group for one in (first, second) for needed in one.approvals if needed.group not in one.owner_may_approve
    }
    return tuple(sorted({*first.owner_may_approve, *second.owner_may_approve} - against))


def combine(decisions: Sequence[Decision]) -> Decision:
    """One decision for a task out of one for each question: all must permit, every obligation holds.

    No decision at all is a denial. What denies is told alone: that something else would be permitted helps nobody.
    """
    permitted = bool(decisions) and all(d.permitted for d in decisions)
    deciding = [d for d in decisions if d.permitted == permitted]
    obligations = Obligations()
    for decision in deciding if permitted else ():
        obligations = strictest(obligations, decision.obligations)
    return Decision(
        permitted=permitted,
        obligations=obligations,
        rules=tuple(sorted({rule for d in deciding for rule in d.rules})),
        policy_digest=decisions[0].policy_digest if decisions else "",
        reasons=tuple(sorted({reason for d in deciding for reason in d.reasons})),
    )


def _least(first: int | None, second: int | None) -> int | None:
    return min((bound for bound in (first, second) if bound is not None), default=None)


def needed_rung(asked: str, obliged: str | None) -> str:
    """The higher of what a template asks and what policy does."""
    return ProofLevel.TARGET.value if ProofLevel.TARGET.value in (asked, obliged) else asked


def obliged_rung(said: Mapping[str, Any] | None) -> str | None:
    """The rung in a decision that was kept as JSON."""
    rung = ((said or {}).get("obligations") or {}).get("confirm")
    return str(rung) if rung else None
