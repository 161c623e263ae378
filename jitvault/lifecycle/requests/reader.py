"""Read people's signed documents in Vault, and verify them.

One that does not hold counts as absent.

A document counts if it is at its author's own path, is signed by that author's key, and says that it is about this
task, of this kind, and by this entity. So a copy at another path gives itself away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from jitvault.context import WorkerContext
from jitvault.documents.approvers import Registry, is_withdrawn, void
from jitvault.documents.paths import APPROVAL_LIFE, DECISIONS, REQUESTS, decision_path, request_path, stands_until
from jitvault.documents.signed import (
    DOCUMENT_TYPE,
    DecisionDocument,
    ExtendDocument,
    SignedDocument,
    SubmitDocument,
    WithdrawDocument,
    opened_whole,
    parse_signed,
    signer_key,
)
from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.lifecycle.record.history import obligations_of
from jitvault.lifecycle.requests.approvers import registry
from jitvault.model.approval import ApproverDecision
from jitvault.model.event_bodies import ExtensionDecided, said
from jitvault.model.revision import Revision
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.spec import TaskSpec
from jitvault.vault.interface import Entity, Stored

P = TypeVar("P", bound=SignedDocument)


@dataclass(frozen=True, slots=True)
class Submission:
    """A verified request for access.

    `written_at` is Vault's time of it, `envelope` what its requester signed.
    """

    requester: Entity
    spec: TaskSpec
    revise: bool
    nonce: str
    written_at: datetime
    envelope: SignedByPerson

    @property
    def stands_until(self) -> datetime:
        """When the request lapses, if it was not granted."""
        return stands_until(self.spec.window, self.written_at)


@dataclass(frozen=True, slots=True)
class ExtensionRequest:
    """A verified request for an extension.

    `written_at` is Vault's time of the request, and `nonce` tells it from a repeated one. `cancels` is the nonce of the
    earlier request that its author takes back, instead of making one.
    """

    by: Entity
    seconds: int
    reason: str
    nonce: str
    written_at: datetime
    cancels: str | None
    envelope: SignedByPerson


@dataclass(frozen=True, slots=True)
class VerifiedDocument(Generic[P]):
    """A verified document, Vault's time of it, and its envelope for the receipt."""

    document: P
    written_at: datetime
    envelope: SignedByPerson


def submission(worker: WorkerContext, task_id: str, requester: str, stored: Stored | None = None) -> Submission | None:
    """Return the verified request of `requester` for `task_id`, if any.

    `stored` is the document where the caller has just read it. Raises InvalidInput when its spec is not valid or the
    requester is disabled.
    """
    path = request_path(requester, task_id, "submit")
    stored = stored or worker.documents.read(path)
    found = verified(worker, stored, SubmitDocument, path, requester, task_id) if stored else None
    if found is None:
        return None
    spec = TaskSpec.from_data(found.document.spec, f"the request for {task_id}")
    if spec.id != task_id:
        raise SecurityFinding(f"the request for {task_id} holds the spec of {spec.id}")
    entity = worker.identity.by_id(requester)
    if entity is None or entity.disabled:
        raise InvalidInput(f"task {task_id}: the requester's Vault entity does not exist or is disabled")
    return Submission(entity, spec, found.document.revise, found.document.nonce, found.written_at, found.envelope)


def find_request(worker: WorkerContext, task_id: str, *, hint: str | None) -> tuple[str, Stored] | None:
    """Return requester and request of a task that the ledger does not know.

    The entity `hint` is looked at first, then every other author.
    """
    if hint and (stored := worker.documents.read(request_path(hint, task_id, "submit"))) is not None:
        return hint, stored
    for entity in _authors(worker, REQUESTS):
        stored = worker.documents.read(request_path(entity, task_id, "submit")) if entity != hint else None
        if stored is not None:
            return entity, stored
    return None


def extension_requests(
    worker: WorkerContext, task_id: str, entities: Sequence[str], *, digest: str, ends_at: datetime
) -> list[ExtensionRequest]:
    """Return the extension requests of `entities`, in their order.

    Only a request about the deadline `ends_at` of the revision `digest` counts.
    """
    found = []
    for entity_id in dict.fromkeys(entities):
        stored = read_signed(worker, ExtendDocument, request_path(entity_id, task_id, "extend"), entity_id, task_id)
        # a request about another deadline was granted before, or is a replay of one
        if stored is None or (stored.document.digest, stored.document.ends_at) != (digest, ends_at):
            continue
        entity = worker.identity.by_id(entity_id)
        if entity is not None and not entity.disabled:
            document = stored.document
            found.append(
                ExtensionRequest(
                    by=entity,
                    seconds=document.seconds,
                    reason=document.reason,
                    nonce=document.nonce,
                    written_at=stored.written_at,
                    cancels=document.cancels,
                    envelope=stored.envelope,
                )
            )
    return found


def approver_decisions(
    worker: WorkerContext, task_id: str, groups: Sequence[str], *, below: str = ""
) -> list[ApproverDecision]:
    """Return every decision about the task in Vault whose signature holds.

    Each has those of `groups` that its author is a member of, is registered for and signed for. `below` is the rest of
    the path for decisions about something else of the task, such as an extension. An author may let an approval expire
    early, but not later than `APPROVAL_LIFE` after Vault wrote it.
    """
    found = []
    for entity_id in _authors(worker, DECISIONS):
        stored = read_signed(worker, DecisionDocument, decision_path(entity_id, task_id, below), entity_id, task_id)
        entity = worker.identity.by_id(entity_id) if stored else None
        if stored is not None and entity is not None:
            found.append((entity, stored))
    # most tasks need no approval, and then no registration is read
    approvers = registry(worker) if found else Registry()
    return [_approver_decision(worker, task_id, groups, approvers, entity, stored) for entity, stored in found]


def _approver_decision(
    worker: WorkerContext,
    task_id: str,
    groups: Sequence[str],
    approvers: Registry,
    entity: Entity,
    stored: VerifiedDocument[DecisionDocument],
) -> ApproverDecision:
    document = stored.document
    written_at = stored.written_at
    path = decision_path(entity.id, task_id, "/withdraw")
    there = worker.documents.read(path)
    taken_back = verified(worker, there, WithdrawDocument, path, entity.id, task_id) if there else None
    # only the author can write there: an unreadable document may have been a withdrawal, and counts as one
    withdrawals = [(taken_back.document.at if taken_back else there.written_at, there.written_at)] if there else []
    if there and there.unread:
        # when it was written is not known
        withdrawals = [(document.at, written_at)]
    withdrawn = is_withdrawn(signed_at=document.at, written_at=written_at, withdrawals=withdrawals)
    why_void = void(signed_at=document.at, written_at=written_at, withdrawals=withdrawals)
    if withdrawn and taken_back and taken_back.document.reason:
        why_void = f"{why_void}: {taken_back.document.reason}"
    counted = {*approvers.groups_of(entity.id)} & {*document.groups}
    registered = approvers.of(entity.id)
    member_of = worker.identity.groups_of(entity, sorted({*groups, *worker.authorizer.groups}))
    return ApproverDecision(
        entity_id=entity.id,
        name=entity.name,
        decision=document.decision,
        digest=document.digest,
        expires_at=min(document.expires_at, written_at + APPROVAL_LIFE),
        reason=document.reason,
        # groups that only policy names need no registration: they are as Vault has them
        groups=tuple(group for group in member_of if group not in groups or group in counted),
        written_at=written_at,
        revision=document.revision,
        requester=document.requester,
        void=why_void,
        unregistered=approvers.why_not(entity.id, written_at),
        withdrawn=withdrawn,
        person=entity.person,
        persons=frozenset({entity.person, registered.person.lower() if registered else ""} - {""}),
        envelope=stored.envelope,
    )


def persons(worker: WorkerContext, revision: Revision) -> Mapping[str, str] | None:
    """Return which person each entity with a part in a revision is, by entity.

    The result is None where entities do not say which person they are.
    """
    if not worker.tells_persons:
        return None
    found = {entity: worker.identity.by_id(entity) for entity in revision.involved()}
    return {entity: known.person for entity, known in found.items() if known is not None}


def _authors(worker: WorkerContext, folder: str) -> list[str]:
    return sorted(name.rstrip("/") for name in worker.documents.names(folder))


def read_signed(
    worker: WorkerContext, model: type[P], path: str, entity: str, task_id: str
) -> VerifiedDocument[P] | None:
    """Return the document at `path`, if `entity` signed it.

    It has to be signed for this task and kind. A document that does not hold is recorded as a finding, and counts as
    absent.
    """
    stored = worker.documents.read(path)
    return verified(worker, stored, model, path, entity, task_id) if stored else None


def verified(
    worker: WorkerContext, stored: Stored, model: type[P], path: str, entity: str, task_id: str
) -> VerifiedDocument[P] | None:
    """Return a document read before, if its signature and content hold.

    A document that does not hold is recorded as a finding.
    """
    try:
        return _opened(worker, stored, model, entity, task_id)
    except SecurityFinding:
        # Vault may have made another version of the key since it was read: by itself, without any line
        pass
    try:
        with worker.facts.turn():
            return _opened(worker, stored, model, entity, task_id)
    except SecurityFinding as error:
        why = stored.unread or str(error)
        folder = path.partition("/")[0]
        if _concerns_task(worker, folder, task_id, entity):
            worker.ledger.finding(task_id, "forged_document", f"{path}: {why}", worker.now(), author=entity)
        else:
            what = stored.unread or "its author did not sign as it stands"
            record_author_finding(worker, entity, "forged_document", f"{folder}/{entity}/ has a document that {what}")
        return None


def _opened(worker: WorkerContext, stored: Stored, model: type[P], entity: str, task_id: str) -> VerifiedDocument[P]:
    """Return the document, if its signature and content hold. Raises SecurityFinding."""
    key = signer_key(entity)
    public_keys = worker.signer.public_keys(key)
    payload, envelope = opened_whole(stored.document, key=key, public_keys=public_keys, payload_type=DOCUMENT_TYPE)
    return VerifiedDocument(parse_signed(model, payload, task=task_id, entity=entity), stored.written_at, envelope)


def _concerns_task(worker: WorkerContext, folder: str, task_id: str, entity: str) -> bool:
    """Return whether an entity's document concerns the task that it names.

    A request is one if it is by the task's requester or agent, and a decision if its author has decided about the task
    or is needed for that. A freeze is about no task.
    """
    task = worker.ledger.task(task_id) if folder in ("requests", "decisions") else None
    if task is None:
        return False
    return entity in (task.requester, task.agent) if folder == "requests" else _decides(worker, task_id, entity)


def _decides(worker: WorkerContext, task_id: str, entity: str) -> bool:
    """Return whether an entity has decided about a task, or has to.

    An entity has to decide if it is registered for a group that has to.
    """
    record = worker.record(task_id)
    if any(decision.entity_id == entity for decision in record.decisions):
        return True
    asked = (body.decision.obligations for _, body in said(record.events, ExtensionDecided))
    needed = {one.group for obligations in (*obligations_of(record), *asked) for one in obligations.approvals}
    return bool(needed & {*registry(worker).groups_of(entity)})


def record_author_finding(worker: WorkerContext, entity: str, rule: str, message: str) -> None:
    """Record a finding about an entity and about no task.

    Anyone can name another entity's task below their own path. For each entity a rule is one finding, however many
    documents the entity leaves.
    """
    worker.ledger.finding(None, rule, f"entity {entity}: {message}", worker.now(), author=entity)
