"""A policy decision and its obligations, and how several become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from jitvault.errors import CorruptRecord
from jitvault.formats.conversion import as_json, converter

OPERATORS = "jitvault-operators"
AGENTS = "jitvault-agents"
APPROVERS = "jitvault-approvers"
"""The Vault group that approves if a policy names no other."""
SECURITY = "jitvault-security"
"""The second group of approvers, which the shipped policies require where the risk is high."""


class Level(StrEnum):
    """The scale that a template's tier and a task's criticality share."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


_ORDER = tuple(Level)


def highest(levels: Iterable[str]) -> Level:
    """Return the highest of `levels`.

    Raises ValueError for none or an unknown one.
    """
    return max((Level(level) for level in levels), key=_ORDER.index)


class ProofLevel(StrEnum):
    """What has to prove the end of a task; a later value is higher."""

    AUDIT = "audit"
    TARGET = "target"


Seconds = Annotated[int, Meta(ge=0, le=10**10)]


class Requirement(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """The approval of `count` distinct members of the Vault group `group`."""

    group: str
    count: Annotated[int, Meta(ge=1)]


class Obligations(Struct, frozen=True, forbid_unknown_fields=True):
    """What has to hold before and while a permitted task is granted.

    `approvals` names each group once, sorted. `max_ttl_s` caps the token's life and `max_window_s` the window, in
    seconds. `confirm` raises what the templates require. `notify` names who is notified. In the groups of
    `owner_may_approve` the owner of the data counts as every other member does.
    """

    approvals: tuple[Requirement, ...] = ()
    max_ttl_s: Seconds | None = None
    max_window_s: Seconds | None = None
    confirm: ProofLevel | None = None
    notify: tuple[str, ...] = ()
    owner_may_approve: tuple[str, ...] = ()

    @property
    def deciders(self) -> tuple[str, ...]:
        """The groups whose members can approve and deny.

        If no approval is needed, the members of the usual group can deny.
        """
        return tuple(needed.group for needed in self.approvals) or (APPROVERS,)


NO_OBLIGATIONS = Obligations()


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """The answer for one access, or for a whole task.

    `rules` are the `@id`s that decided: permits, or what forbade the access; none if nothing permits it. `reasons`
    are their `@reason`s, in words.
    """

    permitted: bool
    obligations: Obligations
    rules: tuple[str, ...]
    policy_digest: str
    reasons: tuple[str, ...] = ()

    @property
    def why_denied(self) -> str:
        """The reason for a denial, in one line for the requester."""
        if not self.rules:
            return "no policy permits it" + (f": {'; '.join(self.reasons)}" if self.reasons else "")
        return f"forbidden by {', '.join(self.rules)}" + (f": {'; '.join(self.reasons)}" if self.reasons else "")

    def as_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Decision:
        """Return the decision that `as_json` wrote. Raises CorruptRecord."""
        try:
            return _decision(stored)
        except (msgspec.ValidationError, RecursionError) as error:
            raise CorruptRecord(f"a stored decision is not one that jitvault wrote ({type(error).__name__})") from None


_decision = converter(Decision)


def strictest(first: Obligations, second: Obligations) -> Obligations:
    """Return both obligations at once.

    That is, of each group the most approvals, the shortest times, the highest proof level, and all notifications.
    """
    counts: dict[str, int] = {}
    for needed in (*first.approvals, *second.approvals):
        counts[needed.group] = max(needed.count, counts.get(needed.group, 0))
    levels = [level for level in (first.confirm, second.confirm) if level is not None]
    return Obligations(
        approvals=tuple(Requirement(group, count) for group, count in sorted(counts.items())),
        max_ttl_s=_least(first.max_ttl_s, second.max_ttl_s),
        max_window_s=_least(first.max_window_s, second.max_window_s),
        confirm=max(levels, key=tuple(ProofLevel).index) if levels else None,
        notify=tuple(sorted({*first.notify, *second.notify})),
        owner_may_approve=_owner_of_both(first, second),
    )


def _owner_of_both(first: Obligations, second: Obligations) -> tuple[str, ...]:
    """Return the groups in which both let the owner approve.

    A group counts only if each of the two that needs its approval lets the owner count.
    """
    against: set[str] = set()
    for obligations in (first, second):
        required = {requirement.group for requirement in obligations.approvals}
        against |= required - set(obligations.owner_may_approve)
    return tuple(sorted({*first.owner_may_approve, *second.owner_may_approve} - against))


def combine(decisions: Sequence[Decision]) -> Decision:
    """Return one decision for a task, from one for each question.

    All must permit, and every obligation holds. No decision at all is a denial. A denial names only what denies:
    that something else would be permitted helps nobody.
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


def needed_proof_level(asked: str, obliged: str | None) -> str:
    """Return the higher of a template's proof level and the policy's."""
    return ProofLevel.TARGET.value if ProofLevel.TARGET.value in (asked, obliged) else asked
