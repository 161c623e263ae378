"""Render the proof of a task's end.

`complete`, `revoke`, the report and the receipt show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from jitvault.documents.proof import CredentialProof, LeaseProof, Proof, settled_proof, target_asked
from jitvault.documents.published_parts import GrantedExtension, PublishedExtension, Reads
from jitvault.documents.receipt import Receipt, StatedAccess, StatedExtension, StatedGrant, Statement, statement_of
from jitvault.formats.conversion import as_json, converter
from jitvault.ledger.model import GrantRow, LeaseRow, OpState, TaskRecord
from jitvault.lifecycle.record.check_words import NOT_ASKED, evidence_in_words, failure_in_words
from jitvault.lifecycle.record.history import ended_of, forced_of, last_decision
from jitvault.lifecycle.record.reopenings import times_reopened, why_listing_unsettled, why_seal_postponed
from jitvault.model.event_bodies import (
    AboutExtension,
    EndCause,
    EventBody,
    Extended,
    Recovered,
    Revised,
    Signed,
    said,
)
from jitvault.model.event_chain import Event
from jitvault.model.kinds import OperationKind
from jitvault.model.proof_check import QUIET_N, TARGET_N, Check
from jitvault.model.revision import Revision
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import ENDED, PROVEN, EndReason, State, Verdict
from jitvault.model.verifiers import unproven
from jitvault.policy.decision import Decision

_granted = converter(GrantedExtension)
_receipt = converter(Receipt)
_UNSAID: dict[str, Any] = {
    **dict.fromkeys(("replaces", "decision", "error")),
    **dict.fromkeys(("approved_by", "missing", "open_to", "refused"), ()),
}
"""What an event about more time does not say, in the form in which it is published."""


def proof_of(record: TaskRecord) -> Proof | None:
    """Return the proof of a task's end; None before the end.

    Its shape is in docs/reference.md, at `jitvault complete`.
    """
    return _proof_of_ended(record) if record.task.state in ENDED else None


def _proof_of_ended(record: TaskRecord) -> Proof:
    task = record.task
    revision = Revision.of(record.revision.body)
    token = record.grants[-1] if record.grants else None
    leases = [
        LeaseProof(
            lease_id=lease.lease_id,
            template=revision.template_at(lease.path) or lease.path,
            verdict=lease.verdict,
            error=_error(record, lease),
            checks=checks_of(record, lease.lease_id),
        )
        for lease in record.leases
    ]
    proof = Proof(
        task_id=task.task_id,
        state=task.state,
        end_reason=task.end_reason,
        confirmed=task.state in PROVEN,
        reopened=times_reopened(record.events),
        forced=forced_of(record),
        dead_ms=task.dead_ms,
        confirmed_ms=task.confirmed_ms,
        leases=leases,
        token=CredentialProof(
            verdict=token.verdict if token else Verdict.NEVER_ISSUED,
            checks=[
                *(checks_of(record, token.accessor_hmac or token.grant_id) if token else ()),
                *checks_of(record, task.task_id),
            ],
        ),
        # the ones before it: an extension replaced them, or they were never delivered
        earlier_tokens=[
            CredentialProof(verdict=grant.verdict, checks=checks_of(record, grant.accessor_hmac))
            for grant in record.grants[:-1]
            if grant.accessor_hmac
        ],
        target_asked=target_asked(leases),
        not_proven=[*_unasked(leases, revision, is_proven=task.state in PROVEN), *_not_proven(record, revision)],
        unproven_because=None,
        open_besides=None,
    )
    return _with_reason(record, proof)


def _unasked(leases: Sequence[LeaseProof], revision: Revision, *, is_proven: bool) -> list[str]:
    """Return for which templates a confirmed end rests on Vault's word alone.

    Each sentence ends with why nobody asks the target. Policy can have had it asked all the same.
    """
    alone = {lease.template for lease in leases if is_proven and lease.check(TARGET_N) is None}
    reasons = {entry.template: entry.confirm_why for entry in revision.access}
    return [f"{name}: {NOT_ASKED}: {reasons.get(name) or 'no reason given'}" for name in sorted(alone)]


def _not_proven(record: TaskRecord, revision: Revision) -> list[str]:
    """Return what no check covers, whatever the proof says.

    In a confirmed task, a lease that no one has seen does not exist: a template without a lease is left out.
    """
    given: dict[str, list[datetime | None]] = {}
    for lease in record.leases:
        if entry := revision.access_at(lease.path):
            given.setdefault(entry.template, []).append(lease.dead_at)
    ended = {name: None if None in times else max(filter(None, times)) for name, times in given.items()}
    return unproven(revision.access, ended, is_whole=record.task.state in PROVEN)


def _with_reason(record: TaskRecord, proof: Proof) -> Proof:
    """Return the proof with why the task is not proven, or not sealed.

    There is always a reason while it is ending.
    """
    match record.task.state:
        case State.ENDING:
            shown = _first_failure(proof)
            others = ["" if shown else _unanswered(record) or _unjudged(record), why_listing_unsettled(record.events)]
            besides = "; ".join(filter(None, others))
            why = "; ".join(filter(None, [shown, besides]))
            return structs.replace(proof, unproven_because=why, open_besides=besides or None)
        case State.CONFIRMED:
            put_off = why_seal_postponed(record.events)
            return structs.replace(proof, unproven_because=put_off, open_besides=put_off)
        case _:
            return proof


def _unanswered(record: TaskRecord) -> str | None:
    """Describe the first act about the task that has no answer."""
    lost = (op for op in record.operations if op.state in (OpState.INTENDED, OpState.UNKNOWN))
    op = next(lost, None)
    return f"{op.kind} of {op.subject} has no answer: {op.answer or 'none came yet'}" if op else None


def _unjudged(record: TaskRecord) -> str:
    """Say what is known of a task that nobody judged since it began to end.

    The process that was to judge it may have died.
    """
    token = record.grants[-1].verdict.value if record.grants else Verdict.NEVER_ISSUED.value
    leases = ", ".join(f"{lease.lease_id} is {lease.verdict.value}" for lease in record.leases)
    last = record.events[-1]
    known = f"its token is {token}" + (f", {leases}" if leases else "")
    return f"it was not judged since {last.kind} at {last.at}: {known}"


def _error(record: TaskRecord, lease: LeaseRow) -> str | None:
    """Return Vault's answer to the revocation of a lease that failed.

    The result is None where the revocation did not fail.
    """
    if lease.verdict not in (Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE):
        return None
    asked = [op for op in record.operations if op.kind == OperationKind.REVOKE_LEASE and op.subject == lease.lease_id]
    return next((op.answer for op in reversed(asked) if op.state in (OpState.ABANDONED, OpState.UNKNOWN)), None)


def _target_says(lease: LeaseProof) -> str:
    """Return what the target said of a lease that Vault could not revoke.

    The credential may be unusable at the target all the same.
    """
    answer = lease.check(TARGET_N)
    return f" (the target: {evidence_in_words(answer.evidence)})" if answer and not answer.ok else ""


def _first_failure(proof: Proof) -> str | None:
    """Return the lease that Vault could not revoke, or the first check that fails."""
    for lease in proof.leases:
        if lease.error:
            return f"Vault could not end {lease.lease_id}: {lease.error}{_target_says(lease)}"
    return failure_in_words(proof.failed[0]) if proof.failed else None


def unproven_reason(record: TaskRecord) -> str | None:
    """Return why an ending task is not proven.

    The result is None where only check 7 is missing.
    """
    proof = proof_of(record) if record.task.state is State.ENDING else None
    if proof is None or all(check.n == QUIET_N for check in proof.failed):
        return None
    return proof.unproven_because


def is_past_proof(proof: Proof) -> bool:
    """Return whether a check failed that can never pass any more."""
    return any(check.permanent for check in proof.failed)


def checks_of(record: TaskRecord, subject: str) -> list[Check]:
    """Return the numbered checks of one credential, or of the task.

    `subject` is the task's id where the checks of the task are wanted.
    """
    return [Check(row.n, row.ok, row.evidence) for row in record.checks if row.subject == subject]


def lifetime_of(grant: GrantRow) -> dict[str, int]:
    """Return the TTLs of a grant in seconds.

    They are given as requested, in effect, and per renewal.
    """
    return {"requested_ttl_s": grant.requested_ttl_s, "ttl_s": grant.ttl_s, "step_s": grant.step_s}


def reads_of(record: TaskRecord) -> Reads:
    """Return how many leases the task's newest token got and may get.

    One more than that ends the task. A token that replaced another one begins anew.
    """
    newest = record.grants[-1].grant_id
    done = sum(1 for lease in record.leases if lease.grant_id == newest)
    return Reads(done=done, allowed=Revision.of(record.revision.body).lease_budget)


def extensions_of(record: TaskRecord) -> list[GrantedExtension]:
    """Return each extension that was granted.

    Each says what was signed, by whom, and the grant whose token it replaced, if any.
    """
    return [_granted(_more_time(event, body, GrantedExtension)) for event, body in said(record.events, Extended)]


def _more_time(event: Event, body: Extended, kind: type[GrantedExtension]) -> dict[str, Any]:
    known = {**body.extension.content, **as_json(body.decision), **as_json(body)}
    known |= {"digest": body.extension.digest, "at": event.at}
    return {name: known[name] for name in kind.__struct_fields__}


def last_extension(record: TaskRecord) -> PublishedExtension | None:
    """Return the last extension request and its result.

    The result is None where there was no request.
    """
    return next((extension_in(event, body) for event, body in said(reversed(record.events), AboutExtension)), None)


def extension_in(event: Event, body: AboutExtension) -> PublishedExtension:
    """Return the request for more time that an event is about, and its result."""
    known = {**_UNSAID, **structs.asdict(body), "digest": body.extension.digest, "content": body.extension}
    known |= {"state": event.kind.removeprefix("extension_"), "replaces": bool(known["replaces"])}
    return PublishedExtension(**{name: known[name] for name in PublishedExtension.__struct_fields__})


def receipt_of(
    installation: str, record: TaskRecord, sealed_at: datetime, *, children: Sequence[Mapping[str, Any]]
) -> Statement:
    """Return what is signed of a closed task.

    `children` has the state of each delegated task.
    """
    task, revision = record.task, Revision.of(record.revision.body)
    content = revision.content
    receipt = _receipt(
        {
            "installation": installation,
            "task": task.task_id,
            "revision": task.revision,
            "requester": content.requester,
            "agent": content.agent,
            "owner": content.owner,
            "delegation": content.delegation,
            "children": list(children),
            "intent": revision.spec.spec.intent,
            # as the chain has them: the rows are a cache
            "approved_by": last_decision(record).approved_by,
            "approvers": _approvers(record),
            "access": [StatedAccess(entry.template, entry.path, entry.with_) for entry in content.access],
            "ended": ended_of(record),
            "documents": {
                "request": _signed_request(record),
                "decisions": last_decision(record).signed,
                **_signed_ends(record),
            },
            "policy": Decision.of(record.revision.decision),
            "grants": [_stated_grant(grant) for grant in record.grants],
            "extensions": [_more_time(event, body, StatedExtension) for event, body in said(record.events, Extended)],
            "findings": [{key: found[key] for key in ("rule", "message", "line")} for found in record.findings],
            "proof": settled_proof(_proof_of_ended(record)),
            "chain": {"events": task.seq, "head": task.head},
            "recovered": recovered_of(record),
            "sealed_at": sealed_at,
        }
    )
    return statement_of(receipt, record.revision.body)


def _signed_request(record: TaskRecord) -> SignedByPerson | None:
    """Return the request for the task's revision as it was signed; None where the record was rebuilt."""
    opened = (body for _, body in said(reversed(record.events), EventBody) if isinstance(body, Revised | Recovered))
    return next((body.request for body in opened if body.digest == record.task.digest and body.request), None)


def _signed_ends(record: TaskRecord) -> dict[str, Any]:
    """Return each signed request to end the task, once, and the operator's freeze that ended it."""
    found: dict[str, Any] = {"ends": [], "freeze": None}
    for _, body in said(record.events, EventBody):
        if not isinstance(body, EndCause | Signed) or not body.signed:
            continue
        if isinstance(body, EndCause) and body.reason is EndReason.FROZEN:
            found["freeze"] = body.signed
        elif body.signed not in found["ends"]:
            found["ends"].append(body.signed)
    return found


def _stated_grant(grant: GrantRow) -> dict[str, Any]:
    known = {**asdict(grant), "grant": grant.grant_id}
    return {name: known[name] for name in StatedGrant.__struct_fields__}


def _approvers(record: TaskRecord) -> list[dict[str, str]]:
    """Return `{entity, name}` of each approver.

    The name is the one that Vault had for the entity when the worker counted the approval.
    """
    names = {row.entity_id: row.name for row in record.decisions}
    return [{"entity": one, "name": names[one]} for one in last_decision(record).approved_by if one in names]


def recovered_of(record: TaskRecord) -> list[dict[str, Any]]:
    """Return each recovery of the task's record.

    Each says when, from which published event, and which signatures confirmed the revision.
    """
    return [
        {"at": event.at, "from": msgspec.to_builtins(body.from_), "verified_by": list(body.verified_by)}
        for event, body in said(record.events, Recovered)
    ]
