"""What a policy decision is, and how several of them become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

APPROVERS = "jitvault-approvers"
"""The Vault group that approves where a policy names no other."""


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


@dataclass(frozen=True, slots=True)
class Obligations:
    """What has to hold before and while a permitted task is granted."""

    approvals: int = 0
    approver_group: str = APPROVERS
    max_window_s: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one access, or for a whole task. `rules` are the `@id`s that decided."""

    permitted: bool
    obligations: Obligations
    rules: tuple[str, ...]
    policy_digest: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "rules": list(self.rules)}


def strictest(first: Obligations, second: Obligations) -> Obligations:
    """Both sets of obligations at once: most approvals, shortest window.

    Two different approver groups cannot both be met by one count, so the group with more approvals holds.
    """
    windows = [w for w in (first.max_window_s, second.max_window_s) if w is not None]
    stricter = second if second.approvals > first.approvals else first
    return Obligations(
        approvals=stricter.approvals,
        approver_group=stricter.approver_group,
        max_window_s=min(windows) if windows else None,
    )


def combine(decisions: Sequence[Decision]) -> Decision:
    """One decision for a task out of one per access: all must permit, every obligation holds.

    No decision at all is a denial.
    """
    if not decisions:
        return Decision(permitted=False, obligations=Obligations(), rules=(), policy_digest="")
    obligations = decisions[0].obligations
    for decision in decisions[1:]:
        obligations = strictest(obligations, decision.obligations)
    return Decision(
        permitted=all(d.permitted for d in decisions),
        obligations=obligations,
        rules=tuple(sorted({rule for d in decisions for rule in d.rules})),
        policy_digest=decisions[0].policy_digest,
    )
