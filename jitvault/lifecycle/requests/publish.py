"""What the worker tells everybody about a task: one document in Vault that only it can write."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.published_task import packed
from jitvault.errors import JitvaultError
from jitvault.ledger.model import OpState, TaskRecord, TaskRow
from jitvault.lifecycle.decision.evaluate import Standing
from jitvault.lifecycle.record.history import ended_of
from jitvault.lifecycle.record.receipt import extensions_of, last_extension, lifetime_of, proof_of
from jitvault.lifecycle.requests.reader import Submission
from jitvault.model.delegation import ancestor_ids
from jitvault.model.finding import describe_finding
from jitvault.model.kinds import OperationKind
from jitvault.model.revision import Revision
from jitvault.model.states import State
from jitvault.operations import new_operation

_FINDINGS = 100


def publish(
    worker: WorkerContext, file: TaskRecord, standing: Standing | None, error: JitvaultError | None = None
) -> None:
    """Write `jitvault/tasks/<task>`: the revision's exact bytes, the state, what is missing, the proof.

    `error` is what kept it from going on, for whoever waits and has nothing but this.
    """
    task = file.task
    content = Revision.of(file.revision.body).content
    grant = file.grants[-1] if file.grants else None
    document = {
        "installation": worker.installation,
        "task_id": task.task_id,
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "revision": task.revision,
        "digest": task.digest,
        # who finds a ledger that does not hold this event knows that it was edited or restored
        "chain": {"seq": task.seq, "head": task.head},
        "body": base64.b64encode(file.revision.body).decode(),
        "requester": content["requester"]["entity"],
        "agent": content["agent"]["entity"],
        "parent": task.parent,
        "delegation": ancestor_ids(content),
        "decision": dict(file.revision.decision),
        # the revision before this one that was approved, for who shall see what changed
        "approved": _approved_before(worker, task),
        "open_to": _open_to(standing) if standing and task.state == "pending_approval" else [],
        "missing": standing.tally.missing_json() if standing and task.state == "pending_approval" else [],
        "refused": [refusal.as_json() for refusal in standing.tally.refused] if standing else [],
        "decisions": [{"entity": d.entity_id, "decision": d.decision, "digest": d.digest} for d in file.decisions],
        "ended": ended_of(file),
        "why_denied": _why_denied(file, standing) if task.state is State.DENIED else None,
        "grant_id": grant.grant_id if grant else None,
        "expires_at": grant.expires_at.isoformat() if grant and grant.expires_at else None,
        "ends_at": task.ends_at.isoformat() if task.ends_at else None,
        "ttl": lifetime_of(grant) if grant else None,
        "extension": last_extension(file),
        "extensions": extensions_of(file),
        "proof": packed(proof_of(file)),
        # so that who has lost the ledger still has it
        "receipt": packed(task.receipt),
        "findings": findings_of(worker, file)[:_FINDINGS],
        "error": _told(error) if error else None,
    }
    _put(worker, task.task_id, document, known=True)


def _open_to(standing: Standing) -> list[str]:
    return list(standing.tally.open_to(standing.decision.obligations.approvals))


def _approved_before(worker: WorkerContext, task: TaskRow) -> str | None:
    """The bytes of the last revision that was approved and is not the present one, by what was published of it."""
    if task.revision == 1:
        return None
    said = worker.documents.get(f"tasks/{task.task_id}") or {}
    if said.get("digest") != task.digest and said.get("state") == State.APPROVED:
        return str(said["body"])
    return said.get("approved")


def findings_of(worker: WorkerContext, file: TaskRecord) -> list[str]:
    """What must not have happened, of the task, and of everything while it is frozen."""
    freeze = worker.ledger.freeze()
    frozen = [f"everything is frozen: {freeze.reason}"] if freeze else []
    return [*frozen, *(describe_finding(finding) for finding in file.findings)]


def _why_denied(file: TaskRecord, standing: Standing | None) -> str | None:
    """By whom and why; the denial that counted, also when its author signs something else afterwards."""
    for decision in file.decisions:
        if decision.decision == "deny":
            return f"{decision.name} denied it: {decision.reason or 'no reason given'}"
    return standing.why_denied if standing else None


def publish_refusal(worker: WorkerContext, submitted: Submission, error: JitvaultError) -> None:
    """Tell whoever waits that a request cannot be taken. That settles it: it is not looked at again."""
    document: Mapping[str, Any] = {
        "task_id": submitted.spec.id,
        "state": "refused",
        "requester": submitted.requester.id,
        "request": submitted.nonce,
        "error": _told(error),
    }
    _put(worker, submitted.spec.id, document, known=False)


def _put(worker: WorkerContext, task_id: str, document: Mapping[str, Any], *, known: bool) -> None:
    """Write the document under an operation id that is committed before: a line without one was a thief's.

    Nothing follows from its answer, so the operation is settled from the start. `known`: the ledger has the task.
    """
    path = f"tasks/{task_id}"
    op = new_operation(worker, OperationKind.PUBLISH, path, task_id=task_id if known else None)
    worker.ledger.keep(operations=[replace(op, state=OpState.SETTLED)], at=worker.now())
    worker.documents.put(path, document, op=op.op_id)


def _told(error: JitvaultError) -> dict[str, object]:
    return {"exit_code": error.exit_code, "message": str(error), "hint": error.hint}
