"""Which request for a grant counts, and how a refused one is settled.

A requester whose grant is refused is told so, and does not watch for a token any more. So a refusal settles the
request: it is recorded in the task's chain, and nothing is issued by that request later. A request with `queued_until`
waits instead, until then at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.documents.paths import request_path
from jitvault.documents.signed import GrantDocument
from jitvault.errors import Denied, JitvaultError
from jitvault.formats.canonical_json import digest_of
from jitvault.ledger.model import Change, TaskRecord
from jitvault.lifecycle.requests.reader import read_signed
from jitvault.model.approval import ApproverDecision
from jitvault.model.event_bodies import GrantRefused, StatedError
from jitvault.model.grant_refusal import QUEUE_LIFE, is_refused, is_refused_too_often
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.spec import TaskSpec
from jitvault.model.states import BEFORE_GRANT

_AGAIN = (
    "That settles the request: nothing is issued by it later. Run `jitvault grant TASK` again when the reason is gone; "
    "with --queue the request waits for that."
)


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """A requester's verified wish that a task be issued.

    `written_at` is Vault's time of it. `queued_until` is set for a request that waits instead of being refused.
    """

    nonce: str
    written_at: datetime
    queued_until: datetime | None

    def counts(self, spec: TaskSpec, approvals: Sequence[ApproverDecision]) -> bool:
        """Return whether the token may be issued with these approvals.

        A wrapping token lives for minutes. So one for the requester's inbox is only made when the requester asked for
        it after the last approval and in the open window, by Vault's clock, and is there to unwrap it. An agent's inbox
        is watched, and whoever queues a request says that they watch theirs.
        """
        if spec.spec.deliver == "agent" or self.queued_until is not None:
            return True
        asked_last = all(one.written_at < self.written_at for one in approvals)
        return asked_last and spec.window.opens(self.written_at)


def open_grant_request(worker: WorkerContext, record: TaskRecord, spec: TaskSpec) -> GrantRequest | None:
    """Return the requester's request to issue exactly this spec.

    None without one, for one that was refused before, and for one whose time in the queue is over.
    """
    entity, now = record.task.requester, worker.now()
    found = read_signed(worker, GrantDocument, request_path(entity, spec.id, "grant"), entity, spec.id)
    if found is None or found.document.spec_digest != digest_of(spec.canonical()):
        return None
    nonce, until = found.document.nonce, found.document.queued_until
    if is_refused(record.events, nonce) or is_refused_too_often(record.events, now):
        return None
    if until is not None:
        # no longer than the command itself would ask for, whatever was signed
        until = min(until, found.written_at + QUEUE_LIFE)
        if until <= now:
            return None
    return GrantRequest(nonce, found.written_at, until)


def record_refused_grant(
    worker: WorkerContext, record: TaskRecord, claim: int, request: GrantRequest, error: JitvaultError
) -> TaskRecord:
    """Record that a request for a grant is refused, and return the task."""
    body = GrantRefused(request=request.nonce, error=StatedError.of(error))
    return worker.ledger.change(record, Change(EventKind.GRANT_REFUSED, body), claim=claim, at=worker.now())


def settle_denied_grant(worker: WorkerContext, record: TaskRecord, claim: int, spec: TaskSpec) -> TaskRecord:
    """Record that a denied task's grant is refused; return the task.

    Policy may permit the task some time later. A request that waits in the queue is refused as well.
    """
    request = open_grant_request(worker, record, spec)
    if request is None:
        return record
    return record_refused_grant(worker, record, claim, request, Denied(f"task {spec.id} is denied"))


def settle_refused_grant(worker: WorkerContext, task_id: str, claim: int, error: JitvaultError) -> None:
    """Record that the request for a grant is refused by `error`.

    A request in the queue goes on waiting. The error's hint then says that the refusal is settled.
    """
    record = worker.record(task_id)
    if record.task.state not in BEFORE_GRANT:
        # an issue has begun, and ends by itself
        return
    request = open_grant_request(worker, record, Revision.of(record.revision.body).spec)
    if request is None or request.queued_until is not None:
        return
    error.hint = f"{error.hint} {_AGAIN}"
    error.leads_on = True
    record_refused_grant(worker, record, claim, request, error)
