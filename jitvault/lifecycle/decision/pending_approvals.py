"""What waits for an approver, by what the worker published: it needs Vault alone, and no ledger."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.context import Person
from jitvault.documents.approvers import Registered, registered
from jitvault.errors import Denied
from jitvault.lifecycle.requests.approvers import FOLDER
from jitvault.model.extension import Extension, describe_extension
from jitvault.model.revision import Revision, describe, difference
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, State
from jitvault.policy.decision import Obligations

Published = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """What there is to decide about a task: its revision, or an extension of what was granted by it.

    `said` is what the worker published of that: the decision of policy, who decided, and who is missing.
    """

    revision: Revision
    extension: Extension | None
    said: Published

    @property
    def digest(self) -> str:
        """What an approver signs: taken over what is shown, never believed from the document."""
        return self.extension.digest if self.extension else self.revision.digest

    @property
    def decision(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.said["decision"]
        return found

    @property
    def obligations(self) -> Obligations:
        return Obligations.of(self.decision["obligations"])

    @property
    def words(self) -> list[str]:
        more = describe_extension(self.extension, replaces=self.said["replaces"]) if self.extension else []
        return [*more, *describe(self.revision)]

    def is_decided_by(self, entity: str, decision: str) -> bool:
        """Whether that decision of `entity` counts."""
        if self.extension is not None:
            return decision == "approve" and entity in {one["entity"] for one in self.said["approved_by"]}
        return {"entity": entity, "decision": decision, "digest": self.digest} in self.said["decisions"]


def matter_of(document: Published) -> ApprovalSubject | None:
    """What can be decided about a published task, None where nothing can."""
    state, said = document["state"], document.get("extension")
    revision = Revision.of(base64.b64decode(document["body"]))
    if state in BEFORE_GRANT:
        return ApprovalSubject(revision, None, document)
    if state in LIVE_STATES and said is not None and said["state"] == "pending":
        return ApprovalSubject(revision, Extension.of(said["content"]), said)
    return None


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A task that an approval of the caller's would bring further. `groups` are those in whose name they can decide.

    `changes` are the differences against the last revision that was approved, None where none was.
    """

    task_id: str
    matter: ApprovalSubject
    groups: tuple[str, ...]
    missing: Sequence[Mapping[str, Any]]
    changes: list[str] | None

    def as_json(self) -> dict[str, Any]:
        content, extension = self.matter.revision.content, self.matter.extension
        return {
            "task_id": self.task_id,
            "revision": content["revision"],
            "digest": self.matter.digest,
            "extends_until": extension.until.isoformat() if extension else None,
            "requester": content["requester"]["name"],
            "agent": content["agent"]["name"],
            "owner": content["owner"]["name"],
            "groups": list(self.groups),
            "missing": list(self.missing),
            "words": self.matter.words,
            "changes": self.changes,
        }


def registration(person: Person) -> Registered:
    """The caller's own registration. Raises Denied where there is none."""
    stored = person.documents.read(f"{FOLDER}{person.entity}")
    if stored is None:
        raise Denied(
            f"{person.me.display_name or person.entity} is not registered as an approver: no decision of theirs counts",
            hint=f"An administrator runs `jitvault approvers add {person.entity} --person WHO`.",
        )
    return registered(stored.document, entity=person.entity, since=stored.written_at)


def waiting(person: Person) -> list[PendingApproval]:
    """All tasks that wait for the caller, by id. Raises Denied when they are not registered."""
    mine = registration(person)
    found = (person.documents.get(f"tasks/{name}") for name in sorted(person.documents.names("tasks/")))
    return [each for document in found if document and (each := _waits(document, mine))]


def changes(document: Published, revision: Revision) -> list[str] | None:
    """What differs from the last revision that was approved; None where none was."""
    approved = document.get("approved")
    return difference(Revision.of(base64.b64decode(approved)), revision) if approved else None


def may_decide(revision: Revision, entity: str, obligations: Obligations) -> str | None:
    """The part in the task that keeps `entity` from approving it, None where it has none."""
    part = revision.involved().get(entity)
    return None if part == "owner" and obligations.owner_may_approve else part


def _waits(document: Published, mine: Registered) -> PendingApproval | None:
    if document.get("state") not in {State.PENDING_APPROVAL, *LIVE_STATES} or (matter := matter_of(document)) is None:
        return None
    groups = tuple(group for group in matter.said["open_to"] if group in mine.registration.groups)
    barred = may_decide(matter.revision, mine.entity, matter.obligations)
    if not groups or barred or matter.is_decided_by(mine.entity, "approve"):
        return None
    return PendingApproval(
        task_id=document["task_id"],
        matter=matter,
        groups=groups,
        missing=matter.said["missing"],
        changes=changes(document, matter.revision) if matter.extension is None else None,
    )
