"""Who has to approve, who has approved, and who cannot.

Every decision here is made from signed documents that were just read from Vault. Ledger rows are a cache
that no decision reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.formats.shorten import quoted
from jitvault.model.decision_input import DecisionInput
from jitvault.model.event_bodies import Refusal
from jitvault.model.extension import Extension
from jitvault.model.revision import Revision
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import State
from jitvault.policy.decision import APPROVERS, Decision, Obligations, Requirement

_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class ApproverDecision:
    """One approver's verified decision about one revision.

    `revision` and `requester` name what the document is about. `groups` are the Vault groups that the approver is
    in now; of the groups that may approve, only those are listed for which the approver is registered and signed.
    `person` is who the approver is by the metadata of the entity, and `persons` adds who they are by registration.
    `written_at` is Vault's time of the document. `void` is the reason why an approval counts as absent (`withdrawn`
    if the reason is that its author withdrew it); `unregistered` is the reason why nothing of this author counts. Both
    are found where the document is read (`lifecycle/requests/reader.py`), by the rules in `documents/approvers.py`.
    `envelope` is the document as its author signed it.
    """

    entity_id: str
    name: str
    decision: str
    digest: str
    expires_at: datetime
    reason: str
    groups: tuple[str, ...]
    written_at: datetime
    revision: int
    requester: str
    envelope: SignedByPerson
    void: str | None = None
    unregistered: str | None = None
    withdrawn: bool = False
    person: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tally:
    """The count of the approvers' decisions.

    It says who approved, who denied, and what is missing. Where an approver could count for one group or for another,
    `missing` names one of the ways to complete the approvals.
    """

    approved_by: tuple[ApproverDecision, ...]
    denied_by: ApproverDecision | None
    missing: tuple[Requirement, ...]
    refused: tuple[Refusal, ...]

    def open_to(self, needed: Sequence[Requirement]) -> tuple[str, ...]:
        """Return the groups in which one more approval would help."""
        approvers = _by_person(self.approved_by)
        short = sum(each.count for each in self.missing)
        with_one_more = {each.group: unmet(needed, {**approvers, "": (each.group,)}) for each in needed}
        return tuple(sorted(group for group, rest in with_one_more.items() if sum(each.count for each in rest) < short))


@dataclass(frozen=True, slots=True)
class Subject:
    """What the decisions are about."""

    digest: str
    revision: int
    requester: str


def tally(
    decisions: Iterable[ApproverDecision],
    obligations: Obligations,
    *,
    subject: Subject,
    barred: Mapping[str, str],
    now: datetime | None,
) -> Tally:
    """Count the decisions on `subject`.

    `barred` maps the entities that cannot approve to the reason. A denial by a member of one of the groups wins
    over any number of approvals. A decision does not count if it is for another digest, by a barred entity, from
    outside the groups, withdrawn or expired; `refused` then says why. The expiry of an approval only bounds the
    first issue: without `now` it is not checked.
    """
    approved: dict[str, ApproverDecision] = {}
    denied: ApproverDecision | None = None
    refused: list[Refusal] = []
    for given in sorted(decisions, key=lambda one: one.entity_id):
        why = _why_not(given, obligations, subject=subject, barred=barred, now=now)
        if why:
            refused.append(
                Refusal(
                    entity=given.entity_id, name=given.name, why=why, withdrawn=given.withdrawn and why == given.void
                )
            )
        elif given.decision == "deny":
            denied = denied or given
        elif given.decision == "approve":
            approved[given.entity_id] = given
    return Tally(
        approved_by=tuple(approved.values()),
        denied_by=denied,
        missing=unmet(obligations.approvals, _by_person(approved.values())),
        refused=tuple(refused),
    )


def count(
    revision: Revision,
    decisions: Iterable[ApproverDecision],
    obligations: Obligations,
    *,
    forbidden: Mapping[str, str],
    now: datetime | None,
    extension: Extension | None = None,
    persons: Mapping[str, str] | None = None,
) -> Tally:
    """Count the decisions on a revision, or on an extension of it.

    A party to the task cannot approve it, nor can the entities of `forbidden`, which maps them to their reasons.
    The owner of the data counts in those groups in which policy lets the owner approve. `persons` maps entities to
    the persons that they belong to; with it, no other entity of a party's person can approve either. It is None
    where the entities' metadata do not name persons.
    """
    content = revision.content
    subject = Subject(revision.digest, content.revision, content.requester.entity)
    if extension is not None:
        subject = Subject(extension.digest, extension.revision, extension.by.entity)
    parts = revision.involved()
    owners = {entity for entity, part in parts.items() if part == "owner"} if obligations.owner_may_approve else set()
    barred = {entity: f"is the {part} and cannot approve" for entity, part in parts.items() if entity not in owners}
    counted = [_as_owner(given, obligations) if given.entity_id in owners else given for given in decisions]
    if persons is not None:
        by_part = {part: persons.get(entity, "") for entity, part in parts.items() if entity not in owners}
        same_person: dict[str, str] = {}
        for given in counted:
            why = _why_same_person(given, by_part)
            if why:
                same_person[given.entity_id] = why
        barred = {**same_person, **barred}
    return tally(counted, obligations, subject=subject, barred={**forbidden, **barred}, now=now)


def _why_same_person(given: ApproverDecision, persons: Mapping[str, str]) -> str | None:
    """Return why an approver is, or may be, a party to the task.

    `persons` maps the parts in the task to persons.
    """
    if not given.person:
        return "cannot be distinguished from others: its entity's metadata do not say which person it is"
    if not persons["requester"]:
        return "cannot be distinguished from the requester, whose entity's metadata do not say which person it is"
    same = next((part for part, person in persons.items() if person in given.persons), None)
    return f"is the same person as the {same} and cannot approve" if same else None


def _by_person(approvals: Iterable[ApproverDecision]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each person who approved.

    Two entities of one person are one approver.
    """
    found: dict[str, tuple[str, ...]] = {}
    for given in approvals:
        person = given.person or given.entity_id
        found[person] = (*found.get(person, ()), *given.groups)
    return found


def _as_owner(given: ApproverDecision, obligations: Obligations) -> ApproverDecision:
    if given.decision != "approve":
        return given
    return replace(given, groups=tuple(group for group in given.groups if group in obligations.owner_may_approve))


def unmet(needed: Sequence[Requirement], approvers: Mapping[str, Sequence[str]]) -> tuple[Requirement, ...]:
    """Return the approvals that are open if each approver counts once.

    An approver may be in several of the groups, but counts for one. `approvers` maps each entity to its groups. As
    few approvals as possible are left open: this is a maximum matching of approvers to the places of each group
    (Kuhn's algorithm). Among equal matchings the general group of approvers is filled last, since most people are in
    it: whoever is in a smaller group, too, counts there. The others are filled in their order.
    """
    ordered = sorted(needed, key=lambda each: each.group == APPROVERS)
    places = [(each.group, n) for each in ordered for n in range(each.count)]
    taken: dict[str, tuple[str, int]] = {}

    def fill(place: tuple[str, int], tried: set[str]) -> bool:
        """Give the place to an approver, moving others if that makes room."""

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
    given: ApproverDecision,
    obligations: Obligations,
    *,
    subject: Subject,
    barred: Mapping[str, str],
    now: datetime | None,
) -> str | None:
    """Return why a decision does not count, else None; its own reasons were found when it was read."""
    if given.digest != subject.digest:
        return _about_another_digest(given, subject)
    if (given.revision, given.requester) != (subject.revision, subject.requester):
        return "decided about another revision or requester"
    if given.unregistered:
        return given.unregistered
    if not set(obligations.deciders) & set(given.groups):
        return f"is not in {' or '.join(obligations.deciders)}"
    if given.decision == "approve" and given.entity_id in barred:
        return barred[given.entity_id]
    if given.decision == "approve" and given.void:
        return given.void
    if given.decision == "approve" and now is not None and given.expires_at <= now:
        return "the approval has expired"
    return None


def _about_another_digest(given: ApproverDecision, subject: Subject) -> str:
    """Return what a decision was about, for an earlier revision its number."""
    done = {"approve": "approved", "deny": "denied"}.get(given.decision)
    if done and given.revision < subject.revision and given.requester == subject.requester and not given.withdrawn:
        return f"{done} revision {given.revision}"
    return "decided about another digest"


@dataclass(frozen=True, slots=True)
class RequestDecision:
    """What policy and the approvers decided about a request.

    Their decisions are as read at this moment. The request is for a revision, or for an extension of it. `policy` is
    policy's decision, and `tally` counts those of the approvers. `agent_groups` are those of the agent's groups that
    the policies name. `decision_input` is what policy was asked with.
    """

    policy: Decision
    tally: Tally
    agent_groups: tuple[str, ...]
    decision_input: DecisionInput

    @property
    def state(self) -> State:
        if not self.policy.permitted or self.tally.denied_by:
            return State.DENIED
        return State.PENDING_APPROVAL if self.tally.missing else State.APPROVED

    @property
    def why_denied(self) -> str:
        """The reason for a denial; empty where nothing is denied."""
        if self.tally.denied_by:
            return denial(self.tally.denied_by.name, self.tally.denied_by.reason)
        return "" if self.policy.permitted else self.policy.why_denied


def denial(name: str, reason: str | None) -> str:
    """Return who denied a task and why, which is quoted.

    People and models read it, within jitvault's own words.
    """
    return f"{name} denied it: {quoted(reason, _LONGEST_REASON) if reason else 'no reason given'}"
