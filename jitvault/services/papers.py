"""The signed documents in Vault, as the worker reads them: verified, and absent where they do not hold.

A document counts if it lies under its author's own path, is signed by that author's key, and says that it is about
this task, of this kind, by this entity: one that is copied to another place says so itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from jitvault.domain.approval import Vote
from jitvault.domain.approver import Registry, is_withdrawn, void
from jitvault.domain.canonical import canonical_bytes, digest_of
from jitvault.domain.extension import said_of
from jitvault.domain.intake import submission_path
from jitvault.domain.lifecycle import EndReason
from jitvault.domain.papers import (
    DecisionPaper,
    EndPaper,
    ExtendPaper,
    FreezePaper,
    GrantPaper,
    Paper,
    SubmitPaper,
    WithdrawPaper,
    accepted,
)
from jitvault.domain.policy import OPERATORS
from jitvault.domain.scope import Scope, Word, in_force
from jitvault.domain.signing import DOCUMENT_TYPE, opened, payload_of, signer_key
from jitvault.domain.spec import TaskSpec, parse_spec
from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.ports.vault import Entity, Stored
from jitvault.services.context import Worker
from jitvault.services.proof import last_said
from jitvault.services.register import registry

APPROVAL_LIFE = timedelta(minutes=30)
_REASONS = {
    "completed": EndReason.COMPLETED,
    "operator": EndReason.OPERATOR,
    "forced": EndReason.OPERATOR,
    "cancelled": None,
}

P = TypeVar("P", bound=Paper)


@dataclass(frozen=True, slots=True)
class Submission:
    """A verified request for access. `written_at` is Vault's time of it."""

    requester: Entity
    spec: TaskSpec
    revise: bool
    nonce: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class EndRequest:
    """A verified wish to end a task. `reason` None: it was cancelled before it was granted."""

    by: Entity
    reason: EndReason | None
    note: str

    def said(self) -> dict[str, object]:
        """What the chain keeps of it. The name is the one of then: who reads it later cannot ask Vault for it."""
        return {"by": self.by.id, "name": self.by.name, "note": self.note}


@dataclass(frozen=True, slots=True)
class ExtensionRequest:
    """A verified wish for more time. `written_at` is Vault's time of it, `nonce` tells it from one that is repeated."""

    by: Entity
    seconds: int
    reason: str
    nonce: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class _Found(Generic[P]):
    paper: P
    written_at: datetime


def submission(worker: Worker, task_id: str, requester: str, stored: Stored | None = None) -> Submission | None:
    """The verified request of `requester` for `task_id`, or None where there is none; `stored` where it was just read.

    Raises InvalidInput when its spec is not valid or the requester is disabled.
    """
    path = submission_path(requester, task_id)
    stored = stored or worker.documents.read(path)
    found = _verified(worker, stored, SubmitPaper, path, requester, task_id) if stored else None
    if found is None:
        return None
    spec = parse_spec(canonical_bytes(found.paper.spec), f"the request for {task_id}")
    if spec.id != task_id:
        raise SecurityFinding(f"the request for {task_id} holds the spec of {spec.id}")
    entity = worker.identity.by_id(requester)
    if entity is None or entity.disabled:
        raise InvalidInput(f"task {task_id}: the requester's Vault entity does not exist or is disabled")
    return Submission(entity, spec, found.paper.revise, found.paper.nonce, found.written_at)


def find_request(worker: Worker, task_id: str, *, hint: str | None) -> tuple[str, Stored] | None:
    """The request for a task that the ledger does not know, and the entity that asks: `hint` first, then everyone."""
    if hint and (stored := worker.documents.read(submission_path(hint, task_id))) is not None:
        return hint, stored
    for entity in _authors(worker, "requests/"):
        stored = worker.documents.read(submission_path(entity, task_id)) if entity != hint else None
        if stored is not None:
            return entity, stored
    return None


def wants_grant(worker: Worker, submitted: Submission, approvals: Sequence[Vote]) -> bool:
    """Whether the requester signed that exactly this spec shall be issued now.

    A wrapping token lives for minutes: one that goes to the requester's inbox is only made when they asked
    after the last approval and once its window was open, by Vault's clock, and so are there to take it. An
    agent's inbox is watched.
    """
    entity, spec = submitted.requester.id, submitted.spec
    found = _read(worker, GrantPaper, f"requests/{entity}/{spec.id}/grant", entity, spec.id)
    if found is None or found.paper.spec_digest != digest_of(spec.canonical()):
        return False
    asked_last = all(vote.written_at < found.written_at for vote in approvals)
    return spec.spec.deliver == "agent" or (asked_last and spec.window.opens(found.written_at))


def may_end(parts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Who may end a task besides operators, by those with a part in it."""
    return {parts[part]["entity"]: part for part in ("requester", "agent", "owner")}


def end_request(worker: Worker, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """A verified wish to end the task by somebody who may: one of `entitled`, or any operator.

    The wish of an entity that was disabled afterwards does not count; theirs must not keep others from ending it.
    """
    for wish, may in _end_requests(worker, task_id, entitled):
        if may:
            return wish
        message = f"{wish.by.name} asked for the end of a task and may not"
        _find_about_author(worker, wish.by.id, "not_entitled", message)
    return None


def end_reasons(worker: Worker, task_id: str, *, entitled: Mapping[str, str]) -> list[EndRequest]:
    """The newest wish of everybody who may end the task and said why."""
    return [wish for wish, may in _end_requests(worker, task_id, entitled) if may and wish.note]


def _end_requests(worker: Worker, task_id: str, entitled: Mapping[str, str]) -> Iterator[tuple[EndRequest, bool]]:
    """Each verified wish to end the task, and whether its author may."""
    for entity_id in _authors(worker, "requests/"):
        found = _read(worker, EndPaper, f"requests/{entity_id}/{task_id}/end", entity_id, task_id)
        entity = worker.identity.by_id(entity_id) if found else None
        if found is None or entity is None or entity.disabled:
            continue
        may = entity_id in entitled or bool(worker.identity.groups_of(entity, (OPERATORS,)))
        yield EndRequest(entity, _REASONS[found.paper.reason], found.paper.note), may


def force_request(worker: Worker, task_id: str, *, after: datetime | None) -> EndRequest | None:
    """An operator's verified wish, written later than `after`, to close the task even if its end cannot be proven."""
    for entity_id in _authors(worker, "requests/"):
        found = _read(worker, EndPaper, f"requests/{entity_id}/{task_id}/end", entity_id, task_id)
        if found is None or found.paper.reason != "forced" or (after and found.written_at <= after):
            continue
        entity = worker.identity.by_id(entity_id)
        if entity is not None and not entity.disabled and worker.identity.groups_of(entity, (OPERATORS,)):
            return EndRequest(entity, EndReason.OPERATOR, found.paper.note)
    return None


def extension_requests(
    worker: Worker, task_id: str, entities: Sequence[str], *, digest: str, ends_at: datetime
) -> list[ExtensionRequest]:
    """What each of `entities` asks for from the deadline `ends_at` of the revision `digest` on, in their order."""
    found, authors = [], _authors(worker, "requests/")
    for entity_id in (one for one in dict.fromkeys(entities) if one in authors):
        stored = _read(worker, ExtendPaper, f"requests/{entity_id}/{task_id}/extend", entity_id, task_id)
        # one about another deadline was granted before, or is put back
        if stored is None or (stored.paper.digest, stored.paper.ends_at) != (digest, ends_at):
            continue
        entity = worker.identity.by_id(entity_id)
        if entity is not None and not entity.disabled:
            paper = stored.paper
            found.append(ExtensionRequest(entity, paper.seconds, paper.reason, paper.nonce, stored.written_at))
    return found


def votes(worker: Worker, task_id: str, groups: Sequence[str], *, below: str = "") -> list[Vote]:
    """Every decision about the task that is in Vault now and whose signature holds, with those of `groups` that its
    author is in, is registered for and signed for; `below` its path those about something else of the task.

    Its author may let an approval expire early, never later than its life after Vault wrote it.
    """
    found = []
    for entity_id in _authors(worker, "decisions/"):
        stored = _read(worker, DecisionPaper, f"decisions/{entity_id}/{task_id}{below}", entity_id, task_id)
        entity = worker.identity.by_id(entity_id) if stored else None
        if stored is not None and entity is not None:
            found.append((entity, stored))
    # most tasks need nobody's approval, and then nobody's registration is read
    approvers = registry(worker) if found else Registry()
    return [_vote(worker, task_id, groups, approvers, entity, stored) for entity, stored in found]


def _vote(
    worker: Worker,
    task_id: str,
    groups: Sequence[str],
    approvers: Registry,
    entity: Entity,
    stored: _Found[DecisionPaper],
) -> Vote:
    paper, written_at = stored.paper, stored.written_at
    path = f"decisions/{entity.id}/{task_id}/withdraw"
    there = worker.documents.read(path)
    taken_back = _verified(worker, there, WithdrawPaper, path, entity.id, task_id) if there else None
    # only they can write there: what cannot be read may have been their no, and gives nothing back
    withdrawals = [(taken_back.paper.at if taken_back else there.written_at, there.written_at)] if there else []
    if there and there.unread:
        # nobody knows from when it is
        withdrawals = [(paper.at, written_at)]
    withdrawn = is_withdrawn(signed_at=paper.at, written_at=written_at, withdrawals=withdrawals)
    why_void = void(signed_at=paper.at, written_at=written_at, withdrawals=withdrawals)
    if withdrawn and taken_back and taken_back.paper.reason:
        why_void = f"{why_void}: {taken_back.paper.reason}"
    counted = {*approvers.groups_of(entity.id)} & {*paper.groups}
    member_of = worker.identity.groups_of(entity, sorted({*groups, *worker.authorizer.groups}))
    return Vote(
        entity_id=entity.id,
        name=entity.name,
        decision=paper.decision,
        digest=paper.digest,
        expires_at=min(paper.expires_at, written_at + APPROVAL_LIFE),
        reason=paper.reason,
        # policy may speak of groups that approve nothing: those are as Vault has them
        groups=tuple(group for group in member_of if group not in groups or group in counted),
        written_at=written_at,
        revision=paper.revision,
        requester=paper.requester,
        void=why_void,
        barred=approvers.why_not(entity.id, written_at),
        withdrawn=withdrawn,
    )


def freezes(worker: Worker) -> list[Word]:
    """What operators froze and nobody lifted. Who is no operator any more lifts nothing; what they froze holds.

    It holds as well where their key was replaced since, or the signature does not hold for another reason: only they
    can write there, and what stops access must not end because somebody cannot be asked any more.
    """
    words = []
    for entity_id in _authors(worker, "freezes/"):
        entity = worker.identity.by_id(entity_id)
        name = entity.name if entity else entity_id
        may_lift = entity is not None and not entity.disabled and worker.identity.groups_of(entity, (OPERATORS,))
        for key in worker.documents.names(f"freezes/{entity_id}/"):
            path = f"freezes/{entity_id}/{key}"
            found = _read(worker, FreezePaper, path, entity_id, key) or _unsigned_freeze(worker, path, entity_id, key)
            if found is None or not (found.paper.freezes or may_lift):
                continue
            paper = found.paper
            scope = Scope(paper.agent, paper.template, paper.owner)
            if scope.key == key:
                words.append(Word(scope, paper.freezes, name, paper.reason, found.written_at))
    return in_force(words)


def _unsigned_freeze(worker: Worker, path: str, entity: str, key: str) -> _Found[FreezePaper] | None:
    """What is at the path, if it is a freeze but for its signature. That one lifts something has to be signed."""
    stored = worker.documents.read(path)
    if stored is None:
        return None
    try:
        paper = accepted(FreezePaper, payload_of(stored.document), task=key, entity=entity)
    except SecurityFinding:
        return None
    return _Found(paper, stored.written_at) if paper.freezes else None


def _authors(worker: Worker, folder: str) -> list[str]:
    return sorted(name.rstrip("/") for name in worker.documents.names(folder))


def _read(worker: Worker, model: type[P], path: str, entity: str, task_id: str) -> _Found[P] | None:
    """The paper at `path`, if `entity` signed it for exactly this task and kind.

    A document that does not hold is a finding: it is recorded, and counts as absent.
    """
    stored = worker.documents.read(path)
    return _verified(worker, stored, model, path, entity, task_id) if stored else None


def _verified(worker: Worker, stored: Stored, model: type[P], path: str, entity: str, task_id: str) -> _Found[P] | None:
    """The same of what was read already."""
    key = signer_key(entity)
    public_keys = worker.signer.public_keys(key)
    try:
        payload = opened(stored.document, key=key, public_keys=public_keys, payload_type=DOCUMENT_TYPE)
        paper = accepted(model, payload, task=task_id, entity=entity)
    except SecurityFinding as error:
        why = stored.unread or str(error)
        folder = path.partition("/")[0]
        if _concerns_task(worker, folder, task_id, entity):
            worker.ledger.finding(task_id, "forged_document", f"{path}: {why}", worker.now(), author=entity)
        else:
            what = stored.unread or "its author did not sign as it stands"
            _find_about_author(worker, entity, "forged_document", f"{folder}/{entity}/ has a document that {what}")
        return None
    return _Found(paper, stored.written_at)


def _concerns_task(worker: Worker, folder: str, task_id: str, entity: str) -> bool:
    """Return whether what an entity wrote below its own path about a task says anything about that task.

    A request does of the task's requester and agent, a decision of whoever is asked for one or has made one. A freeze
    is about no task.
    """
    task = worker.ledger.task(task_id) if folder in ("requests", "decisions") else None
    if task is None:
        return False
    return entity in (task.requester, task.agent) if folder == "requests" else _decides(worker, task_id, entity)


def _decides(worker: Worker, task_id: str, entity: str) -> bool:
    """Return whether an entity has decided about a task, or is registered for a group that has to."""
    file = worker.file(task_id)
    if any(decision.entity_id == entity for decision in file.decisions):
        return True
    said = (last_said(file), *(event.body for event in said_of(file.events)))
    needed = {one["group"] for body in said for one in (body.get("obligations") or {}).get("approvals", ())}
    return bool(needed & {*registry(worker).groups_of(entity)})


def _find_about_author(worker: Worker, entity: str, rule: str, message: str) -> None:
    """Keep a finding about an entity and about no task.

    Anybody can name the task of somebody else below their own path. Of one entity each rule is one finding, however
    many documents it leaves.
    """
    worker.ledger.finding(None, rule, f"entity {entity}: {message}", worker.now(), author=entity)
