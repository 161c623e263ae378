"""Find edited rows: where a task's rows do not agree with its event chain.

Whoever can write to the ledger's database can edit a row. The chain says what jitvault wrote, and its last event is
published in Vault.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.errors import CorruptRecord, SecurityFinding
from jitvault.formats.canonical_json import sha256_hex
from jitvault.ledger.model import GrantRow, TaskRecord
from jitvault.lifecycle.record.history import last_decision
from jitvault.model.event_chain import Event, chain_problems
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import EDGES, RECOVERED_TO, State


def problems_of(worker: WorkerContext, file: TaskRecord) -> list[str]:
    """Return in words where the task's rows do not agree with its chain."""
    try:
        return _problems(worker, file)
    except CorruptRecord as error:
        return [f"its rows cannot be read: {error}"]


def _problems(worker: WorkerContext, file: TaskRecord) -> list[str]:
    problems = [
        *chain_problems(file.events, head=file.task.head),
        *_states(file),
        *_deadline(file),
        *_revision(file),
        *_grants(file),
        *_receipt(worker, file),
    ]
    seen = {
        lease for e in file.events if e.kind in (EventKind.OBSERVED, EventKind.RECOVERED) for lease in e.body["leases"]
    }
    if seen != {lease.lease_id for lease in file.leases}:
        problems.append("the task's leases are not the ones that were observed")
    return problems


def _states(file: TaskRecord) -> list[str]:
    """Check that the task's state is that of its last event.

    Each move from one state to the next has to be allowed as well.
    """
    states = [e.body.get("state") for e in file.events]
    told = list(zip(file.events[1:], states, states[1:], strict=False))
    jumped = any(before != after and not _moves(e, before, after) for e, before, after in told)
    if states and (jumped or states[-1] != file.task.state.value):
        return [f"the task's state was set to {file.task.state} by hand"]
    return []


def _deadline(file: TaskRecord) -> list[str]:
    told = [datetime.fromisoformat(e.body["ends_at"]) for e in file.events if e.body.get("ends_at")]
    return [] if file.task.ends_at == (told[-1] if told else None) else ["the task's deadline was set by hand"]


def _moves(event: Event, before: object, after: object) -> bool:
    """Return whether an event can have moved its task so.

    An observation moves none.
    """
    if event.kind == EventKind.OBSERVED or not isinstance(before, str) or before not in EDGES:
        return False
    return after in (RECOVERED_TO if event.kind == EventKind.RECOVERED else EDGES[State(before)])


def _revision(file: TaskRecord) -> list[str]:
    task, revision, problems = file.task, file.revision, []
    if "sha256:" + sha256_hex(revision.body) != revision.digest or revision.digest != task.digest:
        problems.append("the revision's bytes do not have its digest")
    elif Revision.of(revision.body).content["requester"]["entity"] != task.requester:
        problems.append("the task's requester is not the one of its revision")
    elif Revision.of(revision.body).content["spec"]["spec"].get("parent") != task.parent:
        problems.append("the task's parent is not the one of its revision")
    decided = [
        e.body["digest"] for e in file.events if e.kind in (EventKind.SUBMITTED, EventKind.REVISED, EventKind.RECOVERED)
    ]
    if decided and decided[-1] != task.digest:
        problems.append("the task's digest is not the one that was decided about")
    if not _is_the_one_decided(revision.decision, last_decision(file)):
        problems.append("the decision is not the one that was made")
    return problems


def _is_the_one_decided(decision: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    named = {"policy": "policy_digest", "rules": "rules", "permitted": "permitted", "obligations": "obligations"}
    return all(decision.get(name) == said[key] for key, name in named.items() if key in said)


def _grants(file: TaskRecord) -> list[str]:
    created = {e.body["grant"]: e.body for e in file.events if e.kind == EventKind.TOKEN_CREATED}
    recovered = [e.body for e in file.events if e.kind == EventKind.RECOVERED]
    created |= {grant["grant"]: grant for body in recovered for grant in body["grants"]}
    known = {grant.grant_id: grant for grant in file.grants}
    problems = [] if created.keys() <= known.keys() else ["a grant of the task is missing"]
    settled = {e.body["grant"] for e in file.events if e.kind == EventKind.ATTEMPT_SETTLED}
    settled |= {grant for body in recovered for grant in body["settled"]}
    everything = any(e.kind in (EventKind.CONFIRMED, EventKind.UNVERIFIED) for e in file.events)
    for grant in file.grants:
        if grant.settled and not everything and grant.grant_id not in settled:
            problems.append(f"attempt {grant.attempt} was set to settled by hand")
        if not _is_the_one_created(file, grant, created.get(grant.grant_id)):
            problems.append(f"the token of attempt {grant.attempt} is not the one that was created")
    return problems


def _is_the_one_created(file: TaskRecord, grant: GrantRow, body: Mapping[str, Any] | None) -> bool:
    if body is None:
        return grant.accessor_hmac is None
    if grant.accessor_hmac != body["accessor"]:
        return False
    own = (e.body for e in file.events if e.body.get("grant") == grant.grant_id)
    dated = [datetime.fromisoformat(told["expires_at"]) for told in own if told.get("expires_at")]
    if dated and grant.expires_at != dated[-1]:
        return False
    if "line" not in body:
        # compared by SHA-256, since the HMAC changes when the audit device is re-created
        return sha256_hex((grant.wrapped_accessor or "").encode()) == str(body["accessor_sha256"])
    # the token's accessor was lost with the answer: the token is known by its lease, if at all
    ended = {subject for e in file.events if e.kind == EventKind.REVOKE_INTENDED for subject in e.body["subjects"]}
    return grant.token_lease is None or grant.token_lease in ended | {body.get("token_lease")}


def _receipt(worker: WorkerContext, file: TaskRecord) -> list[str]:
    """Check that a closed task has a receipt which Vault's key signed."""
    if file.task.state not in (State.SEALED, State.UNVERIFIED):
        return []
    keys = worker.signer.public_keys(RECEIPT_KEY)
    try:
        receipt = opened(file.task.receipt, key=RECEIPT_KEY, public_keys=keys, payload_type=RECEIPT_TYPE)
    except SecurityFinding:
        return ["the task was never sealed: its receipt is not signed"]
    heads = {e.body["head"] for e in file.events if e.kind in (EventKind.SEALED, EventKind.UNVERIFIED)}
    heads |= {e.body["sealed_head"] for e in file.events if e.kind == EventKind.RECOVERED}
    if receipt.get("task") != file.task.task_id or (receipt.get("chain") or {}).get("head") not in heads:
        return ["the task's receipt is another one's"]
    return []
