"""The signed documents that people write, from both sides: written by a person, read by the worker.

    requests/<entity id>/<task>/submit   the spec
    requests/<entity id>/<task>/grant    issue it now
    requests/<entity id>/<task>/end      end it: completed, cancelled or revoked
    decisions/<entity id>/<task>         approve or deny one digest

Vault lets only the entity in the path write there, and only that entity use its signing key. The signature
covers the task and the kind, so a document that is copied to another place says so itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.domain.approval import Vote
from jitvault.domain.canonical import canonical_bytes, digest_of
from jitvault.domain.lifecycle import EndReason
from jitvault.domain.signing import DOCUMENT_TYPE, opened, require, signer_key
from jitvault.domain.spec import TaskSpec, parse_spec
from jitvault.errors import Denied, InvalidInput, SecurityFinding
from jitvault.ports.vault import Entity
from jitvault.services.context import Person, Worker, new_id

APPROVAL_LIFE = timedelta(minutes=30)
OPERATORS = "jitvault-operators"


@dataclass(frozen=True, slots=True)
class Submission:
    """A verified request for access."""

    requester: Entity
    spec: TaskSpec
    revise: bool


@dataclass(frozen=True, slots=True)
class EndRequest:
    """A verified wish to end a task."""

    by: Entity
    reason: EndReason | None
    note: str


# -- a person writes ---------------------------------------------------------------------------------


def write_submission(person: Person, spec: TaskSpec, *, revise: bool) -> None:
    _write(
        person,
        f"requests/{person.entity}/{spec.id}/submit",
        "submit",
        spec.id,
        spec=spec.canonical(),
        revise=revise,
    )


def write_grant_wish(person: Person, spec: TaskSpec) -> None:
    wanted = digest_of(spec.canonical())
    _write(person, f"requests/{person.entity}/{spec.id}/grant", "grant", spec.id, spec_digest=wanted)


def write_end(person: Person, task_id: str, *, reason: EndReason | None, note: str) -> None:
    """Ask for the end of a task; `reason` None is a cancellation before it is granted."""
    said = reason.value if reason else "cancelled"
    _write(person, f"requests/{person.entity}/{task_id}/end", "end", task_id, reason=said, note=note)


def write_decision(person: Person, task_id: str, *, digest: str, decision: str, reason: str) -> datetime:
    """Sign `approve` or `deny` for one digest; gives the time until which an approval can be used."""
    expires = person.clock.now() + APPROVAL_LIFE
    fields = {"digest": digest, "decision": decision, "reason": reason, "expires_at": expires.isoformat()}
    _write(person, f"decisions/{person.entity}/{task_id}", "decision", task_id, **fields)
    return expires


def _write(person: Person, path: str, kind: str, task_id: str, **fields: object) -> None:
    payload = {
        "kind": kind,
        "task": task_id,
        "entity": person.entity,
        "nonce": new_id(),
        "at": person.clock.now().isoformat(),
        **fields,
    }
    person.documents.put(path, person.signer.sign(payload, DOCUMENT_TYPE, key=signer_key(person.entity)))


# -- the worker reads --------------------------------------------------------------------------------


def submission(worker: Worker, task_id: str, requester: str) -> Submission | None:
    """The verified request of `requester` for `task_id`, or None where there is none."""
    found = _read(worker, f"requests/{requester}/{task_id}/submit", requester, "submit", task_id)
    if found is None:
        return None
    spec = parse_spec(canonical_bytes(found.payload["spec"]), f"the request for {task_id}")
    if spec.id != task_id:
        raise SecurityFinding(f"the request for {task_id} holds the spec of {spec.id}")
    return Submission(_enabled(worker, requester), spec, found.payload.get("revise") is True)


def find_requester(worker: Worker, task_id: str, *, hint: str | None) -> str | None:
    """The entity that asks for a task that the ledger does not know: `hint` first, then everyone."""
    others = [name.rstrip("/") for name in worker.documents.names("requests/")]
    for entity in dict.fromkeys([*([hint] if hint else []), *sorted(others)]):
        if worker.documents.get(f"requests/{entity}/{task_id}/submit") is not None:
            return entity
    return None


def wants_grant(worker: Worker, submitted: Submission, approvals: Sequence[Vote]) -> bool:
    """Whether the requester signed that exactly this spec shall be issued now.

    A wrapping token lives for minutes: one that goes to the requester's inbox is only made when they asked
    after the last approval, by Vault's clock, and so are there to take it. An agent's inbox is watched.
    """
    entity, spec = submitted.requester.id, submitted.spec
    found = _read(worker, f"requests/{entity}/{spec.id}/grant", entity, "grant", spec.id)
    if found is None or found.payload.get("spec_digest") != digest_of(spec.canonical()):
        return False
    asked_last = all(vote.written_at < found.written_at for vote in approvals)
    return spec.spec.deliver == "agent" or asked_last


def end_request(worker: Worker, task_id: str, *, entitled: Mapping[str, str]) -> EndRequest | None:
    """A verified wish to end the task by somebody who may: the requester, the agent, or any operator."""
    for name in sorted(worker.documents.names("requests/")):
        entity_id = name.rstrip("/")
        found = _read(worker, f"requests/{entity_id}/{task_id}/end", entity_id, "end", task_id)
        if found is None:
            continue
        entity = _enabled(worker, entity_id)
        if entity_id in entitled or worker.identity.groups_of(entity, (OPERATORS,)):
            reason, note = found.payload["reason"], str(found.payload["note"])[:500]
            return EndRequest(entity, None if reason == "cancelled" else EndReason(reason), note)
    return None


def votes(worker: Worker, task_id: str, group: str) -> list[Vote]:
    """Every decision about the task that is in Vault now and whose signature holds."""
    found = []
    for name in sorted(worker.documents.names("decisions/")):
        entity_id = name.rstrip("/")
        stored = _read(worker, f"decisions/{entity_id}/{task_id}", entity_id, "decision", task_id)
        entity = worker.identity.by_id(entity_id) if stored else None
        if stored is None or entity is None:
            continue
        payload = stored.payload
        found.append(
            Vote(
                entity_id=entity_id,
                name=entity.name,
                decision=str(payload["decision"]),
                digest=str(payload["digest"]),
                expires_at=datetime.fromisoformat(payload["expires_at"]),
                reason=str(payload["reason"])[:500],
                groups=worker.identity.groups_of(entity, (group,)),
                written_at=stored.written_at,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Paper:
    payload: dict[str, Any]
    written_at: datetime


def _read(worker: Worker, path: str, entity: str, kind: str, task_id: str) -> _Paper | None:
    """The payload at `path`, if `entity` signed it for exactly this task and kind.

    A document that does not verify is a finding: it is recorded, and counts as absent.
    """
    stored = worker.documents.read(path)
    if stored is None:
        return None
    key = signer_key(entity)
    public_keys = worker.signer.public_keys(key)
    try:
        payload = opened(stored.document, key=key, public_keys=public_keys, payload_type=DOCUMENT_TYPE)
        require(payload, kind=kind, task=task_id, entity=entity)
    except (SecurityFinding, Denied) as error:
        worker.ledger.finding(task_id, "forged_document", f"{path}: {error}", worker.now())
        return None
    return _Paper(payload, stored.written_at)


def _enabled(worker: Worker, entity_id: str) -> Entity:
    entity = worker.identity.by_id(entity_id)
    if entity is None or entity.disabled:
        raise InvalidInput(f"the Vault entity {entity_id} does not exist or is disabled")
    return entity
