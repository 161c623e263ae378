"""List what waits for an approver, by what the worker published in Vault.

No ledger is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.context import Person
from jitvault.documents.approvers import Registered, registered
from jitvault.documents.paths import APPROVAL_LIFE, APPROVERS, PUBLISHED, decision_path, published_path
from jitvault.documents.published_parts import CountedDecision, PublishedExtension
from jitvault.documents.published_task import PublishedTask, read_published
from jitvault.documents.signed import DecisionDocument, parse_signed, payload_of
from jitvault.errors import Denied, SecurityFinding
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.event_bodies import Refusal
from jitvault.model.extension import Extension, describe_extension, extension_part
from jitvault.model.revision import Revision
from jitvault.model.revision_text import describe, difference
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, State
from jitvault.policy.decision import Decision, Obligations, Requirement


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """What is to be approved: a task's revision, or an extension of its grant.

    `document` is what the worker published. `decision` (policy's), `open_to`, `missing` and `refused` are about what is
    to be approved, and so is `request`, the published extension.
    """

    document: PublishedTask
    request: PublishedExtension | None
    extension: Extension | None
    decision: Decision
    open_to: Sequence[str]
    missing: Sequence[Requirement]
    refused: Sequence[Refusal]

    @property
    def revision(self) -> Revision:
        return self.document.full_revision

    @property
    def digest(self) -> str:
        """Return the digest that an approver signs.

        It is computed from what is shown to the approver, and never taken from the document.
        """
        return self.extension.digest if self.extension else self.revision.digest

    @property
    def path_part(self) -> str:
        """Return the part of a decision's path that names what is decided about."""
        if self.extension is None:
            return ""
        return extension_part(self.digest)

    @property
    def obligations(self) -> Obligations:
        return self.decision.obligations

    @property
    def words(self) -> list[str]:
        access = describe(self.revision, self.obligations)
        if self.extension is None or self.request is None:
            return access
        return [*describe_extension(self.extension, replaces=self.request.replaces), *access]

    def is_decided_by(self, entity: str, decision: str) -> bool:
        """Return whether the decision of `entity` on this digest was counted.

        Decisions are "approve" and "deny". Of an extension only approvals are known.
        """
        if self.request is not None:
            return decision == "approve" and entity in {one.entity for one in self.request.approved_by}
        return CountedDecision(entity, decision, self.digest) in self.document.decisions


def approval_subject(document: PublishedTask) -> ApprovalSubject | None:
    """Return what can be approved of a published task; None where nothing can."""
    request = document.extension
    if document.state in BEFORE_GRANT:
        return ApprovalSubject(
            document=document,
            request=None,
            extension=None,
            decision=document.decision,
            open_to=document.open_to,
            missing=document.missing,
            refused=document.refused,
        )
    if document.state not in LIVE_STATES or request is None or request.decision is None or request.state != "pending":
        return None
    return ApprovalSubject(
        document=document,
        request=request,
        extension=request.content,
        decision=request.decision,
        open_to=request.open_to,
        missing=request.missing,
        refused=request.refused,
    )


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A task that waits for an approval which the caller can give.

    `groups` are the groups for which the caller can decide. `changes` are the differences to the last revision that was
    approved, None where none was. `signed_at` is when the caller approved it, where no worker has read that.
    """

    task_id: str
    subject: ApprovalSubject
    groups: tuple[str, ...]
    missing: Sequence[Requirement]
    changes: list[str] | None
    signed_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        content, extension = self.subject.revision.content, self.subject.extension
        return {
            "task_id": self.task_id,
            "revision": content.revision,
            "digest": self.subject.digest,
            "extends_until": rfc3339(extension.until) if extension else None,
            "requester": content.requester.name,
            "agent": content.agent.name,
            "owner": content.owner.name,
            "groups": list(self.groups),
            "missing": list(self.missing),
            "words": self.subject.words,
            "changes": self.changes,
            "signed_at": self.signed_at,
        }


def registration(person: Person) -> Registered:
    """Return the caller's registration as an approver.

    Raises Denied without a registration.
    """
    stored = person.documents.read(f"{APPROVERS}{person.entity}")
    if stored is None:
        raise Denied(
            f"{person.me.display_name or person.entity} is not registered as an approver: no decision of theirs counts",
            hint=f"An administrator runs `jitvault approvers add {person.entity} --person WHO`.",
        )
    return registered(stored.document, entity=person.entity, since=stored.written_at)


def pending_approvals(person: Person) -> list[PendingApproval]:
    """Return the tasks that wait for the caller's approval, by id.

    Raises Denied when the caller is not registered as an approver.
    """
    mine = registration(person)
    found: list[PendingApproval] = []
    for name in sorted(person.documents.names(PUBLISHED)):
        stored = person.documents.read(published_path(name))
        document = read_published(name, stored.document, stored.written_at) if stored is not None else None
        # what no worker wrote waits for nobody's approval, and hides no other task
        pending = _pending(person, document, mine) if isinstance(document, PublishedTask) else None
        if pending:
            found.append(pending)
    return found


def changes(document: PublishedTask) -> list[str] | None:
    """Return the differences to the last approved revision.

    The result is None where no revision was approved.
    """
    return difference(Revision.of(document.approved), document.full_revision) if document.approved else None


def barring_part(revision: Revision, entity: str, obligations: Obligations) -> str | None:
    """Return the part in the task that bars `entity` from approving it.

    The result is None where none does.
    """
    part = revision.involved().get(entity)
    return None if part == "owner" and obligations.owner_may_approve else part


def can_count(decision: DecisionDocument, written_at: datetime, subject: ApprovalSubject | None, now: datetime) -> bool:
    """Return whether a decision is about what is decided about now, and no approval that has expired."""
    is_over = decision.decision == "approve" and min(decision.expires_at, written_at + APPROVAL_LIFE) <= now
    return subject is not None and decision.digest == subject.digest and not is_over


def _signed_at(person: Person, subject: ApprovalSubject) -> datetime | None:
    """Return when the caller signed an approval of `subject` that no worker has read; None without one."""
    task_id = subject.document.task_id
    stored = person.documents.read(decision_path(person.entity, task_id, subject.path_part))
    if stored is None or stored.written_at <= subject.document.written_at:
        return None
    with suppress(SecurityFinding):
        decision = parse_signed(DecisionDocument, payload_of(stored.document), task=task_id, entity=person.entity)
        if decision.decision == "approve" and can_count(decision, stored.written_at, subject, person.clock.agreed()):
            return stored.written_at
    return None


def _pending(person: Person, document: PublishedTask, mine: Registered) -> PendingApproval | None:
    """Return the published task if it waits for this approver."""
    if document.state not in {State.PENDING_APPROVAL, *LIVE_STATES}:
        return None
    subject = approval_subject(document)
    if subject is None:
        return None
    groups = tuple(group for group in subject.open_to if group in mine.registration.groups)
    barred = barring_part(subject.revision, mine.entity, subject.obligations)
    if not groups or barred or subject.is_decided_by(mine.entity, "approve"):
        return None
    return PendingApproval(
        task_id=document.task_id,
        subject=subject,
        groups=groups,
        missing=subject.missing,
        changes=changes(document) if subject.extension is None else None,
        signed_at=_signed_at(person, subject),
    )
