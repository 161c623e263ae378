"""Render the proof of a task's end.

`complete`, `revoke`, the report and the receipt show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from jitvault.documents.published_parts import (
    CredentialProof,
    GrantedExtension,
    LeaseProof,
    Proof,
    PublishedExtension,
    Reads,
)
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import GrantRow, LeaseRow, OpState, TaskRecord
from jitvault.lifecycle.record.check_words import evidence_in_words, failure_in_words
from jitvault.lifecycle.record.history import ended_of, forced_of, last_decision
from jitvault.lifecycle.record.reopenings import times_reopened, why_listing_unsettled, why_seal_postponed
from jitvault.model.event_chain import Event
from jitvault.model.extension import extended, extension_events
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.proof_check import NOT_ASKED, QUIET_N, TARGET_N, Check
from jitvault.model.revision import Revision
from jitvault.model.states import ENDED, PROVEN, State, Verdict
from jitvault.model.verifiers import unproven

_DECIDED = ("permitted", "obligations", "rules", "reasons", "policy_digest")


def proof_of(file: TaskRecord) -> Proof | None:
    """Return the proof of a task's end; None before the end.

    Its shape is in docs/reference.md, at `jitvault complete`.
    """
    task = file.task
    if task.state not in ENDED:
        return None
    revision = Revision.of(file.revision.body)
    token = file.grants[-1] if file.grants else None
    proof: Proof = {
        "task_id": task.task_id,
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "confirmed": task.state in PROVEN,
        "reopened": times_reopened(file.events),
        "forced": forced_of(file),
        "dead_ms": task.dead_ms,
        "confirmed_ms": task.confirmed_ms,
        "leases": [
            {
                "lease_id": lease.lease_id,
                "template": (revision.template_of(lease.path) or {}).get("template", lease.path),
                "verdict": lease.verdict.value,
                "error": _error(file, lease),
                "checks": checks_of(file, lease.lease_id),
            }
            for lease in file.leases
        ],
        "token": {
            "verdict": token.verdict.value if token else "never_issued",
            "checks": [
                *(checks_of(file, token.accessor_hmac or token.grant_id) if token else ()),
                *checks_of(file, task.task_id),
            ],
        },
        # the ones before it: an extension replaced them, or they were never delivered
        "earlier_tokens": [
            {"verdict": grant.verdict.value, "checks": checks_of(file, grant.accessor_hmac)}
            for grant in file.grants[:-1]
            if grant.accessor_hmac
        ],
    }
    proof["target_asked"] = target_asked(proof["leases"])
    proof["unproven_because"] = _why_open(file, proof)
    proof["not_proven"] = [*_unasked(proof, revision), *_not_proven(file, revision)]
    return proof


def target_asked(leases: Sequence[LeaseProof]) -> bool | None:
    """Return whether the target was asked about each of the leases.

    None without a lease: then there was nothing that a target could tell.
    """
    asked = [any(check.n == TARGET_N for check in lease["checks"]) for lease in leases]
    return all(asked) if asked else None


def _unasked(proof: Proof, revision: Revision) -> list[str]:
    """Return for which templates a confirmed end rests on Vault's word alone.

    Each sentence ends with why nobody asks the target. Policy can have had it asked all the same.
    """
    if not proof["confirmed"]:
        return []
    alone = {lease["template"] for lease in proof["leases"] if target_asked([lease]) is False}
    reasons = {entry["template"]: entry.get("confirm_why") for entry in revision.access}
    return [f"{name}: {NOT_ASKED}: {reasons.get(name) or 'no reason given'}" for name in sorted(alone)]


def _not_proven(file: TaskRecord, revision: Revision) -> list[str]:
    """Return what no check covers, whatever the proof says.

    In a confirmed task, a lease that no one has seen does not exist: a template without a lease is left out.
    """
    given: dict[str, list[datetime | None]] = {}
    for lease in file.leases:
        if entry := revision.template_of(lease.path):
            given.setdefault(entry["template"], []).append(lease.dead_at)
    ended = {name: None if None in times else max(filter(None, times)) for name, times in given.items()}
    return unproven(revision.access, ended, is_whole=file.task.state in PROVEN)


def _why_open(file: TaskRecord, proof: Proof) -> str | None:
    """Return why a task is not proven, or not sealed; never None while ending."""
    match file.task.state:
        case State.ENDING:
            why = _first_failure(proof) or _unanswered(file) or _unjudged(file)
            left = why_listing_unsettled(file.events)
            return f"{why}; {left}" if left else why
        case State.CONFIRMED:
            return why_seal_postponed(file.events)
        case _:
            return None


def _unanswered(file: TaskRecord) -> str | None:
    """Describe the first act about the task that has no answer."""
    lost = (op for op in file.operations if op.state in (OpState.INTENDED, OpState.UNKNOWN))
    op = next(lost, None)
    return f"{op.kind} of {op.subject} has no answer: {op.answer or 'none came yet'}" if op else None


def _unjudged(file: TaskRecord) -> str:
    """Say what is known of a task that nobody judged since it began to end.

    The process that was to judge it may have died.
    """
    token = file.grants[-1].verdict.value if file.grants else Verdict.NEVER_ISSUED.value
    leases = ", ".join(f"{lease.lease_id} is {lease.verdict.value}" for lease in file.leases)
    last = file.events[-1]
    known = f"its token is {token}" + (f", {leases}" if leases else "")
    return f"it was not judged since {last.kind} at {last.at}: {known}"


def _error(file: TaskRecord, lease: LeaseRow) -> str | None:
    """Return Vault's answer to the revocation of a lease that failed.

    The result is None where the revocation did not fail.
    """
    if lease.verdict not in (Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE):
        return None
    asked = [op for op in file.operations if op.kind == OperationKind.REVOKE_LEASE and op.subject == lease.lease_id]
    return next((op.answer for op in reversed(asked) if op.state in (OpState.ABANDONED, OpState.UNKNOWN)), None)


def unproven_because(proof: Proof) -> str | None:
    """Return the first reason why a proof (`proof_of`) does not hold.

    The result is None if it does.

    A proof that an older worker published does not name its reason, so its checks are read.
    """
    reason = proof.get("unproven_because")
    return str(reason) if reason else _first_failure(proof)


def _target_says(lease: LeaseProof) -> str:
    """Return what the target said of a lease that Vault could not revoke.

    The credential may be unusable at the target all the same.
    """
    answer = next((check for check in lease["checks"] if check.n == TARGET_N and not check.ok), None)
    return f" (the target: {evidence_in_words(answer.evidence)})" if answer else ""


def _first_failure(proof: Proof) -> str | None:
    """Return the lease that Vault could not revoke, or the failed check.

    The check is the first that fails.
    """
    for lease in proof["leases"]:
        if lease["error"]:
            return f"Vault could not end {lease['lease_id']}: {lease['error']}{_target_says(lease)}"
    failed = next((check for check in _checks_in(proof) if not check.ok), None)
    return failure_in_words(failed) if failed else None


def unproven_reason(file: TaskRecord) -> str | None:
    """Return why an ending task is not proven.

    The result is None where only check 7 is missing.
    """
    proof = proof_of(file) if file.task.state is State.ENDING else None
    if proof is None or all(check.ok or check.n == QUIET_N for check in _checks_in(proof)):
        return None
    return unproven_because(proof)


def is_past_proof(proof: Proof) -> bool:
    """Return whether a check failed that can never pass any more."""
    return any(check.permanent for check in _checks_in(proof))


def _checks_in(proof: Proof) -> Iterator[Check]:
    credentials: tuple[CredentialProof, ...] = (*proof["leases"], proof["token"], *proof["earlier_tokens"])
    for credential in credentials:
        yield from credential["checks"]


def checks_of(file: TaskRecord, subject: str) -> list[Check]:
    """Return the numbered checks of one credential, or of the task.

    `subject` is the task's id where the checks of the task are wanted.
    """
    return [Check(row.n, row.ok, row.evidence) for row in file.checks if row.subject == subject]


def lifetime_of(grant: GrantRow) -> dict[str, int]:
    """Return the TTLs of a grant in seconds.

    They are given as requested, in effect, and per renewal.
    """
    return {"requested_ttl_s": grant.requested_ttl_s, "ttl_s": grant.ttl_s, "step_s": grant.step_s}


def reads_of(file: TaskRecord) -> Reads:
    """Return how many leases the task's newest token got and may get.

    One more than that ends the task. A token that replaced another one begins anew.
    """
    newest = file.grants[-1].grant_id
    done = sum(1 for lease in file.leases if lease.grant_id == newest)
    return Reads(done=done, allowed=Revision.of(file.revision.body).lease_budget)


def extensions_of(file: TaskRecord) -> list[GrantedExtension]:
    """Return each extension that was granted.

    Each says what was signed, by whom, and the grant whose token it replaced, if any.
    """
    return [_granted_extension(event) for event in extended(file.events)]


def _granted_extension(event: Event) -> GrantedExtension:
    content = event.body["extension"]
    return {
        "by": content["by"],
        "reason": content["reason"],
        "since": content["since"],
        "seconds": content["seconds"],
        "until": content["until"],
        "window_s": content["window_s"],
        "digest": event.body["digest"],
        "approved_by": event.body["approved_by"],
        "rules": event.body["rules"],
        "policy_digest": event.body["policy_digest"],
        "replaces": event.body["replaces"],
        "at": event.at,
    }


def last_extension(file: TaskRecord) -> PublishedExtension | None:
    """Return the last extension request and its result.

    The result is None where there was no request.
    """
    said = extension_events(file.events)
    return extension_in(said[-1]) if said else None


def extension_in(event: Event) -> PublishedExtension:
    """Return the request for more time that an event is about, and its result."""
    state, body = event.kind.removeprefix("extension_"), event.body
    return {
        "state": state,
        "request": body["request"],
        "digest": body["digest"],
        "content": body["extension"],
        "replaces": bool(body.get("replaces")),
        "decision": {key: body[key] for key in _DECIDED} if "obligations" in body else None,
        "approved_by": list(body.get("approved_by", ())),
        "missing": list(body.get("missing", ())),
        "open_to": list(body.get("open_to", ())),
        "refused": list(body.get("refused", ())),
        "error": body.get("error"),
    }


def receipt_of(
    installation: str, file: TaskRecord, sealed_at: datetime, *, children: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the content of the receipt.

    It says who requested and who approved, what was granted, who ended it and why, how each credential ended, and the
    state of each delegated task (`children`).
    """
    task, content = file.task, Revision.of(file.revision.body).content
    return {
        "kind": "Receipt",
        "installation": installation,
        "task": task.task_id,
        "revision": task.revision,
        "digest": task.digest,
        "requester": content["requester"],
        "agent": content["agent"],
        "owner": content["owner"],
        "delegation": content.get("delegation", []),
        "children": list(children),
        "intent": content["spec"]["spec"]["intent"],
        # as the chain has them: the rows are a cache
        "approved_by": list(last_decision(file).get("approved_by", ())),
        "approvers": _approvers(file),
        "access": [{"template": e["template"], "path": e["path"], "with": e["with"]} for e in content["access"]],
        "ended": ended_of(file),
        "policy": dict(file.revision.decision),
        "grants": [
            {
                "grant": grant.grant_id,
                "attempt": grant.attempt,
                "role": grant.role,
                "accessor_hmac": grant.accessor_hmac,
                **lifetime_of(grant),
                "issued_at": rfc3339(grant.issued_at) if grant.issued_at else None,
                "expires_at": rfc3339(grant.expires_at) if grant.expires_at else None,
                "verdict": grant.verdict.value,
            }
            for grant in file.grants
        ],
        "extensions": extensions_of(file),
        "findings": [{key: found[key] for key in ("rule", "message", "line")} for found in file.findings],
        "proof": _settled_proof(file),
        "chain": {"events": task.seq, "head": task.head},
        "recovered": recovered_of(file),
        "sealed_at": rfc3339(sealed_at),
    }


def _approvers(file: TaskRecord) -> list[dict[str, str]]:
    """Return `{entity, name}` of each approver.

    The name is the one that Vault had for the entity when the worker counted the approval.
    """
    names = {row.entity_id: row.name for row in file.decisions}
    approved = last_decision(file).get("approved_by", ())
    return [{"entity": entity, "name": names[entity]} for entity in approved if entity in names]


def _settled_proof(file: TaskRecord) -> dict[str, Any]:
    """Return the proof for a receipt, without what kept it open before."""
    proof = proof_of(file)
    return (
        msgspec.to_builtins({key: value for key, value in proof.items() if key != "unproven_because"}) if proof else {}
    )


def recovered_of(file: TaskRecord) -> list[dict[str, Any]]:
    """Return each recovery of the task's record.

    Each says when, from which published event, and which signatures confirmed the revision.
    """
    return [
        {"at": event.at, "from": event.body["from"], "verified_by": event.body["verified_by"]}
        for event in file.events
        if event.kind == EventKind.RECOVERED
    ]
