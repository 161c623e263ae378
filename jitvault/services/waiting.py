"""What waits for an approver, by what the worker published: it needs Vault alone, and no ledger."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.domain.approver import Registered, registered
from jitvault.domain.lifecycle import State
from jitvault.domain.policy import Obligations
from jitvault.domain.revision import Revision, difference, in_plain_words
from jitvault.errors import Denied
from jitvault.services.context import Person
from jitvault.services.register import FOLDER

Published = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that an approval of the caller's would bring further. `groups` are those in whose name they can decide.

    `changes` are the differences against the last revision that was approved, None where none was.
    """

    task_id: str
    revision: Revision
    groups: tuple[str, ...]
    missing: Sequence[Mapping[str, Any]]
    decision: Mapping[str, Any]
    changes: list[str] | None

    def as_json(self) -> dict[str, Any]:
        content = self.revision.content
        return {
            "task_id": self.task_id,
            "revision": content["revision"],
            "digest": self.revision.digest,
            "requester": content["requester"]["name"],
            "agent": content["agent"]["name"],
            "owner": content["owner"]["name"],
            "groups": list(self.groups),
            "missing": list(self.missing),
            "words": in_plain_words(self.revision),
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


def waiting(person: Person) -> list[Waiting]:
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


def _waits(document: Published, mine: Registered) -> Waiting | None:
    if document.get("state") != State.PENDING_APPROVAL.value:
        return None
    revision = Revision.of(base64.b64decode(document["body"]))
    groups = tuple(group for group in document["open_to"] if group in mine.registration.groups)
    decided = {"entity": mine.entity, "decision": "approve", "digest": revision.digest} in document["decisions"]
    obligations = Obligations.of(document["decision"]["obligations"])
    if not groups or decided or may_decide(revision, mine.entity, obligations):
        return None
    return Waiting(
        task_id=document["task_id"],
        revision=revision,
        groups=groups,
        missing=document["missing"],
        decision=document["decision"],
        changes=changes(document, revision),
    )
