"""Render the ledger for `status`, `list` and `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail, derived_tokens, linked
from jitvault.documents.published_parts import PublishedExtension
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import DecisionRow, GrantRow, LeaseRow, TaskRecord, TaskRow
from jitvault.ledger.stream.model import Freeze
from jitvault.lifecycle.record.history import (
    counted_at,
    ended_of,
    forced_of,
    last_decision,
    reached_state_at,
    refused_grant_of,
    uncounted_of,
    withdrawn_by,
)
from jitvault.lifecycle.record.receipt import checks_of, extensions_of, last_extension, lifetime_of, proof_of, reads_of
from jitvault.model.delegation import ancestor_ids
from jitvault.model.extension import extension_id
from jitvault.model.finding import describe_finding
from jitvault.model.proof_check import TARGET_N
from jitvault.model.revision import Revision
from jitvault.model.revision_text import unasked
from jitvault.model.states import DEAD, LIVE_STATES, OVER, State, Verdict
from jitvault.model.ttl import unrenewed_expiry
from jitvault.policy.decision import NO_OBLIGATIONS, Decision, Obligations

_REFUSALS = frozenset({Kind.UNWRAP_REFUSED, Kind.DENIED, Kind.REFUSED})
_USES = _REFUSALS | {
    Kind.UNWRAPPED,
    Kind.REWRAPPED,
    Kind.CUBBYHOLE_READ,
    Kind.LEASE_ISSUED,
    Kind.USED,
    Kind.RENEWED,
}

_PARTIES = ("requester_name", "agent_name", "owner", "owner_name", "risk", "templates", "deliver", "target_asked")
REPORT_COLUMNS = (
    "task_id",
    "revision",
    "digest",
    "state",
    "end_reason",
    "requester",
    "agent",
    "owner",
    "parent",
    "delegation",
    "approved_by",
    "withdrawn_by",
    "ended_by",
    "end_note",
    "forced_by",
    "forced_reason",
    "template",
    "path",
    "lease_id",
    "issued_at",
    "dead_at",
    "requested_ttl_s",
    "ttl_s",
    "ends_at",
    "extended_s",
    "verdict",
    "target_asked",
    "checks",
    "token_verdict",
    "findings",
    "not_proven",
    "intent",
    "requested_at",
    "over_at",
    "denied_by",
    "denied_reason",
    "extension_approved_by",
    "approved_at",
)


def parties_of(revision: Revision | None, obligations: Obligations = NO_OBLIGATIONS) -> dict[str, Any]:
    """Return the names, the risk and the templates of a task, for a list.

    `obligations` are policy's about the revision. Every value is None where it cannot be read.
    """
    if revision is None:
        return dict.fromkeys(_PARTIES)
    content = revision.content
    return {
        "requester_name": content.requester.name,
        "agent_name": content.agent.name,
        "owner": content.owner.entity,
        "owner_name": content.owner.name,
        "risk": content.risk,
        "templates": list(dict.fromkeys(entry.template for entry in content.access)),
        "deliver": revision.spec.spec.deliver,
        "target_asked": not unasked(content.access, obligations),
    }


def waiting_extension(state: str | None, extension: PublishedExtension | None) -> dict[str, Any] | None:
    """Return the request for more time of a task that waits, for a list.

    `state` is the task's: one that holds no access cannot be extended any more.
    """
    if state not in LIVE_STATES or extension is None or extension.state != "pending":
        return None
    return {
        "id": extension_id(extension.digest),
        "by": extension.content.by.name,
        "missing": extension.missing,
    }


def status_of(
    record: TaskRecord,
    trail: AuditTrail,
    freeze: Freeze | None,
    children: Sequence[str] = (),
    renewed_at: datetime | None = None,
) -> dict[str, Any]:
    """Return everything about one task, as `jitvault status` shows it.

    That is the task with its `children`, revision, decisions, grant, leases, what its token did, findings and timeline.
    `renewed_at` is when its newest token was last renewed.
    """
    task, revision = record.task, Revision.of(record.revision.body)
    content = revision.content
    grant = record.grants[-1] if record.grants else None
    uncounted = uncounted_of(record)
    left_out = {one.entity for one in uncounted}
    return {
        **summary_of(task),
        "delegation": ancestor_ids(content),
        "children": list(children),
        "revision": {"number": task.revision, "digest": task.digest, "content": content},
        "decision": Decision.of(record.revision.decision),
        "decisions": [
            {**_decision(row), "counted_at": counted_at(record, row)}
            for row in record.decisions
            if row.entity_id not in left_out
        ],
        "refused": uncounted,
        "ended": ended_of(record),
        "refused_grant": refused_grant_of(record),
        "grant": _grant(grant, renewed_at) if grant else None,
        "unwrap_until": _unwrap_until(record),
        "reads": reads_of(record) if grant else None,
        "leases": [
            {
                "lease_id": lease.lease_id,
                "template": revision.template_at(lease.path) or lease.path,
                "issued_at": rfc3339(lease.issued_at),
                "dead_at": _dead_at(lease),
                "verdict": lease.verdict.value,
                "checks": checks_of(record, lease.lease_id),
            }
            for lease in record.leases
        ],
        "extension": last_extension(record),
        "extensions": extensions_of(record),
        "proof": proof_of(record),
        "uses": uses_of(record, trail),
        "findings": [_finding(found) for found in record.findings],
        "frozen": freeze and {"why": freeze.reason, "at": rfc3339(freeze.at), "line": freeze.line},
        "timeline": [{"seq": e.seq, "at": e.at, "event": e.kind, "body": dict(e.body)} for e in record.events],
    }


def _decision(row: DecisionRow) -> dict[str, Any]:
    """Return an approver's decision that counts."""
    return {
        "entity": row.entity_id,
        "name": row.name,
        "decision": row.decision,
        "digest": row.digest,
        "reason": row.reason,
    }


def _unwrap_until(record: TaskRecord) -> str | None:
    """Return when the task ends if nobody has unwrapped its token."""
    deadline = record.grants[-1].unwrap_deadline if record.task.state is State.ISSUED and record.grants else None
    return rfc3339(deadline) if deadline else None


def _grant(grant: GrantRow, renewed_at: datetime | None) -> dict[str, Any]:
    """Return the newest token of a task."""
    unrenewed = _unrenewed_expiry(grant)
    return {
        "grant_id": grant.grant_id,
        "attempt": grant.attempt,
        "role": grant.role,
        **lifetime_of(grant),
        "wrap_ttl_s": grant.wrap_ttl_s,
        "issued_at": rfc3339(grant.issued_at) if grant.issued_at else None,
        "expires_at": rfc3339(grant.expires_at) if grant.expires_at else None,
        "expires_unrenewed_at": rfc3339(unrenewed) if unrenewed else None,
        "renewed_at": rfc3339(renewed_at) if renewed_at else None,
        "verdict": grant.verdict.value,
    }


def _unrenewed_expiry(grant: GrantRow) -> datetime | None:
    """Return when Vault ends a token at the latest if nobody renews it, None for a dead one."""
    if grant.verdict in DEAD:
        return None
    if grant.issued_at is None or grant.renew_at is None or grant.expires_at is None:
        return grant.expires_at
    return min(grant.expires_at, unrenewed_expiry(grant.issued_at, grant.renew_at, grant.step_s))


def uses_of(record: TaskRecord, trail: AuditTrail) -> list[dict[str, Any]]:
    """Return what the task's tokens did by the audit stream.

    There is one entry for each kind of act and path.
    """
    tokens = {grant.accessor_hmac: grant for grant in record.grants if grant.accessor_hmac}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _, line in linked(trail.observations, tokens, derived_tokens(trail.observations)):
        # a renewal or a look-up that was denied is no renewal and no look-up
        act = Kind.DENIED if line.actor in tokens and "denied" in line.detail else line.kind
        # a refusal has no response line
        if act not in _USES or not (line.closing or act in _REFUSALS):
            continue
        if act is Kind.RENEWED and line.actor in trail.worker_accessors:
            # what keeps it alive is our own doing
            continue
        entry = found.setdefault(
            (act.value, line.path),
            {"act": act.value, "path": line.path, "requests": set(), "addresses": set(), "last_at": line.at},
        )
        entry["requests"].add(line.request_id)
        entry["addresses"].add(line.remote)
        entry["last_at"] = max(entry["last_at"], line.at)
    return [
        {
            "act": entry["act"],
            "path": entry["path"],
            "count": len(entry["requests"]),
            "addresses": sorted(entry["addresses"]),
            "last_at": rfc3339(entry["last_at"]),
        }
        for entry in found.values()
    ]


def _finding(found: Mapping[str, Any]) -> dict[str, Any]:
    evidence = {"line": found["line"], "request_id": found["request_id"]}
    said = {
        "rule": found["rule"],
        "message": describe_finding(found),
        "more": found["more"],
        "at": rfc3339(found["at"]),
    }
    closed = found["closed_at"] and {
        "at": rfc3339(found["closed_at"]),
        "by": found["closed_by"],
        "why": found["closed_why"],
    }
    return {**said, **evidence, "closed": closed}


def summary_of(task: TaskRow) -> dict[str, Any]:
    """Return one task's entry in a list."""
    return {
        "task_id": task.task_id,
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "digest": task.digest,
        "requester": task.requester,
        "agent": task.agent,
        "parent": task.parent,
        "created_at": rfc3339(task.created_at),
        "due_at": rfc3339(task.due_at) if task.due_at else None,
        "ends_at": rfc3339(task.ends_at) if task.ends_at else None,
    }


def _ended(record: TaskRecord) -> dict[str, Any]:
    """Return who ended the task and who forced it closed.

    The result has the form of a report's columns.
    """
    ended, forced = ended_of(record), forced_of(record)
    return {
        "ended_by": ended and ended.name,
        "end_note": (ended and ended.note) or None,
        "forced_by": forced and forced.name,
        "forced_reason": forced and forced.reason,
    }


def _over_at(record: TaskRecord) -> str | None:
    """Return when a task began to end, or was denied, cancelled or lapsed."""
    if ended := ended_of(record):
        return rfc3339(ended.at)
    return reached_state_at(record) if record.task.state in OVER else None


def _denial_of(record: TaskRecord) -> dict[str, str | None]:
    """Return who denied a task that is denied, and why.

    Policy has no name, and its reason is that of the last decision.
    """
    if record.task.state is not State.DENIED:
        return {"denied_by": None, "denied_reason": None}
    denial = next((row for row in record.decisions if row.decision == "deny"), None)
    if denial is not None:
        return {"denied_by": denial.name, "denied_reason": denial.reason or None}
    policy = last_decision(record).policy
    reason = None if policy.permitted else policy.why_denied
    return {"denied_by": None, "denied_reason": reason}


def _dead_at(lease: LeaseRow) -> str | None:
    """Return when the credential was seen gone.

    A force-revoke does not count: Vault only forgets the lease.
    """
    gone = lease.verdict in DEAD or lease.verdict is Verdict.GONE
    return rfc3339(lease.dead_at) if lease.dead_at and gone else None


def _is_target_asked(record: TaskRecord, lease: LeaseRow) -> bool | None:
    """Return whether the target was asked about a lease; None before its end."""
    checks = checks_of(record, lease.lease_id)
    return any(check.n == TARGET_N for check in checks) if checks else None


def report_rows(record: TaskRecord) -> list[dict[str, Any]]:
    """Return one row per lease.

    A task without a lease has one row without a lease, with the templates that it asked for.
    """
    task, revision = record.task, Revision.of(record.revision.body)
    content = revision.content
    token = record.grants[-1] if record.grants else None
    proof = proof_of(record)
    approvals = [d for d in record.decisions if d.decision == "approve"]
    common = {
        "task_id": task.task_id,
        "revision": task.revision,
        "digest": task.digest,
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "requester": content.requester.name,
        "agent": content.agent.name,
        "owner": content.owner.name,
        "parent": task.parent,
        "delegation": ancestor_ids(content),
        "approved_by": [d.name for d in approvals],
        "approved_at": [counted_at(record, d) for d in approvals],
        "withdrawn_by": withdrawn_by(record),
        **_ended(record),
        "token_verdict": token.verdict.value if token else None,
        "requested_ttl_s": token.requested_ttl_s if token else None,
        "ttl_s": token.ttl_s if token else None,
        "ends_at": rfc3339(task.ends_at) if task.ends_at else None,
        "extended_s": sum(one.seconds for one in extensions_of(record)),
        "findings": [found["rule"] for found in record.findings],
        "not_proven": proof.not_proven if proof else [],
        "intent": revision.spec.spec.intent,
        "requested_at": rfc3339(task.created_at),
        "over_at": _over_at(record),
        **_denial_of(record),
        "extension_approved_by": list(
            dict.fromkeys(who.name for one in extensions_of(record) for who in one.approved_by)
        ),
    }
    none: dict[str, Any] = dict.fromkeys(("path", "lease_id", "issued_at", "dead_at", "verdict", "target_asked"))
    none["template"] = ",".join(dict.fromkeys(entry.template for entry in content.access))
    leases = [
        {
            "template": revision.template_at(lease.path),
            "path": lease.path,
            "lease_id": lease.lease_id,
            "issued_at": rfc3339(lease.issued_at),
            "dead_at": _dead_at(lease),
            "verdict": lease.verdict.value,
            "target_asked": _is_target_asked(record, lease),
            "checks": [{"n": c.n, "ok": c.ok} for c in checks_of(record, lease.lease_id)],
        }
        for lease in record.leases
    ]
    rows = [{**common, **lease} for lease in leases or [{**none, "checks": []}]]
    return [{name: row[name] for name in REPORT_COLUMNS} for row in rows]
