"""Publish a task's state as a document in Vault.

Only the worker can write that document.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.documents.paths import published_path, stands_until
from jitvault.documents.published_parts import CountedDecision
from jitvault.documents.published_task import ChainEnd, PublishedDocument, PublishedRefusal, PublishedTask
from jitvault.errors import JitvaultError, LedgerUnavailable, WrongState
from jitvault.ledger.model import OperationRow, TaskRecord, TaskRow
from jitvault.lifecycle.record.history import ended_of, refused_grant_of
from jitvault.lifecycle.record.integrity import is_published, published
from jitvault.lifecycle.record.receipt import extensions_of, last_extension, lifetime_of, proof_of, reads_of
from jitvault.lifecycle.requests.reader import Submission
from jitvault.model.approval import RequestDecision, denial
from jitvault.model.delegation import ancestor_ids
from jitvault.model.event_bodies import StatedError
from jitvault.model.finding import describe_finding
from jitvault.model.kinds import OperationKind
from jitvault.model.revision import Revision
from jitvault.model.states import DELIVERED_STATES, WAITING, State
from jitvault.operations import announce, announced
from jitvault.policy.decision import Decision

_FINDINGS = 100


def announced_publication(worker: WorkerContext, task_id: str) -> OperationRow:
    """Return the intent of a task's next publication.

    The caller commits it together with what is to be published.
    """
    return announced(worker, OperationKind.PUBLISH, published_path(task_id), task_id=task_id)


def publish(
    worker: WorkerContext,
    record: TaskRecord,
    decision: RequestDecision | None,
    error: JitvaultError | None = None,
    *,
    intent: OperationRow | None = None,
) -> None:
    """Write the task's document, `jitvault/tasks/<task>`.

    The document has the revision's exact bytes, the state, what is missing, and the proof. `error` is what kept the
    task from going on, for people who wait and can read nothing but this document. `intent` is the intent of this
    publication, where it is committed already.
    """
    task = record.task
    content = Revision.of(record.revision.body).content
    grant = record.grants[-1] if record.grants else None
    waits = decision if task.state is State.PENDING_APPROVAL else None
    said = PublishedTask(
        installation=worker.installation,
        task_id=task.task_id,
        state=task.state,
        end_reason=task.end_reason,
        revision=task.revision,
        digest=task.digest,
        chain=ChainEnd(task.seq, task.head),
        body=record.revision.body,
        requester=content.requester.entity,
        agent=content.agent.entity,
        parent=task.parent,
        delegation=ancestor_ids(content),
        decision=Decision.of(record.revision.decision),
        approved=_approved_before(worker, task),
        open_to=_open_to(waits) if waits else [],
        missing=list(waits.tally.missing) if waits else [],
        refused=list(decision.tally.refused) if decision else [],
        decisions=[CountedDecision(entity=d.entity_id, decision=d.decision, digest=d.digest) for d in record.decisions],
        ended=ended_of(record),
        why_denied=_why_denied(record, decision) if task.state is State.DENIED else None,
        stands_until=_stands_until(record) if task.state in WAITING else None,
        refused_grant=refused_grant_of(record),
        grant_id=grant.grant_id if grant else None,
        expires_at=grant.expires_at if grant else None,
        unwrap_until=grant.unwrap_deadline if grant and task.state is State.ISSUED else None,
        ends_at=task.ends_at,
        ttl=lifetime_of(grant) if grant else None,
        reads=reads_of(record) if grant else None,
        extension=last_extension(record),
        extensions=extensions_of(record),
        proof=proof_of(record),
        # so that who has lost the ledger still has it
        receipt=dict(task.receipt) if task.receipt is not None else None,
        findings=findings_of(worker, record)[:_FINDINGS],
        error=StatedError.of(error) if error else None,
        written_at=worker.now(),
    )
    path = published_path(task.task_id)
    op = intent.op_id if intent else announce(worker, OperationKind.PUBLISH, path, task_id=task.task_id)
    worker.documents.put(path, said.as_document(), op=op)


def publish_claimed(
    worker: WorkerContext,
    record: TaskRecord,
    claim: int,
    decision: RequestDecision | None,
    error: JitvaultError | None = None,
    *,
    intent: OperationRow | None = None,
) -> None:
    """Publish the task's state to Vault, while no other process has claimed it since.

    The claim may have been given back with `intent`. A process may be suspended for longer than its claim lives, even
    right before it writes to Vault. It has then overwritten a newer state, so it publishes the newer state again.
    Raises WrongState where another process has taken the task over.
    """
    task_id = record.task.task_id
    if intent is None:
        # a ledger that accepts no writes gives no other process the claim either
        with contextlib.suppress(LedgerUnavailable):
            worker.ledger.extend(task_id, claim)
    publish(worker, record, decision, error, intent=intent)
    try:
        with contextlib.suppress(LedgerUnavailable):
            worker.ledger.check_claim(task_id, claim)
    except WrongState:
        publish(worker, worker.record(task_id), None)
        raise


def _open_to(decision: RequestDecision) -> list[str]:
    return list(decision.tally.open_to(decision.policy.obligations.approvals))


def _approved_before(worker: WorkerContext, task: TaskRow) -> bytes | None:
    """Return the body of the last approved revision before this one.

    The result is None where there is none. It is read from what was published about it.
    """
    if task.revision == 1:
        return None
    former = published(worker, task.task_id)
    if not isinstance(former, PublishedTask):
        return None
    return former.body if former.digest != task.digest and former.state is State.APPROVED else former.approved


def findings_of(worker: WorkerContext, record: TaskRecord) -> list[str]:
    """Return the open findings about the task in words, and a tripwire's freeze."""
    freeze = worker.ledger.freeze()
    frozen = [f"everything is frozen: {freeze.reason}"] if freeze else []
    return [*frozen, *(describe_finding(finding) for finding in record.findings if finding["closed_at"] is None)]


def _why_denied(record: TaskRecord, decision: RequestDecision | None) -> str | None:
    """Return who denied the task and why.

    The denial that counted is returned, even when its author signs something else afterwards.
    """
    for row in record.decisions:
        if row.decision == "deny":
            return denial(row.name, row.reason)
    return decision.why_denied if decision else None


def _stands_until(record: TaskRecord) -> datetime | None:
    """Return when a task that waits lapses, at the earliest.

    It is due then, once its window is open. Where its request was signed again since, it lapses later.
    """
    window, due = Revision.of(record.revision.body).window, record.task.due_at
    opens = window.not_before
    return stands_until(window, opens) if opens is not None and due == opens else due


def shows(worker: WorkerContext, copy: PublishedDocument | None, record: TaskRecord) -> bool:
    """Return whether a task's published copy says all that would be published of it now.

    Of a task with access only: what is published of others also depends on what is decided now.
    """
    if record.task.state not in DELIVERED_STATES or not is_published(copy, record):
        return False
    findings = findings_of(worker, record)[:_FINDINGS]
    return isinstance(copy, PublishedTask) and copy.error is None and list(copy.findings) == findings


def publish_refusal(worker: WorkerContext, submitted: Submission, error: JitvaultError) -> None:
    """Publish that a request is refused, which settles it.

    A refused request is not evaluated again.
    """
    said = PublishedRefusal(
        task_id=submitted.spec.id,
        requester=submitted.requester.id,
        request=submitted.nonce,
        error=StatedError.of(error),
        written_at=worker.now(),
    )
    path = published_path(submitted.spec.id)
    # the ledger does not have the task
    worker.documents.put(path, said.as_document(), op=announce(worker, OperationKind.PUBLISH, path))
