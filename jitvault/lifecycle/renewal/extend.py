"""Extend a task with access.

The signed request is read, the task is decided anew, and its deadline moves. Where the task's token can live until the
new deadline, the deadline moves and the token is renewed further. Where it cannot, the token and its leases are revoked
and proven dead, and only then the next token is issued: a task never has two live tokens. Both ways begin with one
commit; if this process stops after it, the next run goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from jitvault.context import WorkerContext
from jitvault.errors import Denied, InvalidInput, JitvaultError, NotConfirmed, WrongState
from jitvault.formats.time_window import format_duration
from jitvault.ledger.model import Change, GrantRow, OperationRow, Row, TaskRecord
from jitvault.lifecycle.confirmation.confirm import TaskJudgement, judge
from jitvault.lifecycle.confirmation.evidence import collect_reconciled
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_extends
from jitvault.lifecycle.decision.evaluate import evaluate_extension
from jitvault.lifecycle.decision.template_gate import check_provable
from jitvault.lifecycle.issuance.attempts import check_attempt_due
from jitvault.lifecycle.issuance.issue import MAX_ATTEMPTS, issue
from jitvault.lifecycle.record.integrity import check_issuable
from jitvault.lifecycle.renewal.due_turn import due_turn
from jitvault.lifecycle.requests.publish import publish
from jitvault.lifecycle.requests.reader import ExtensionRequest, extension_requests
from jitvault.lifecycle.revocation.results import next_try
from jitvault.lifecycle.revocation.revoke import is_replaced_token_unproven, revoke
from jitvault.model.approval import RequestDecision
from jitvault.model.event_bodies import (
    AboutExtension,
    AttemptSettled,
    EndCause,
    Extended,
    ExtensionCancelled,
    ExtensionPending,
    ExtensionRefused,
    Judged,
    StatedError,
    said,
)
from jitvault.model.extension import Extension, whole_window_s
from jitvault.model.extension_history import (
    MOST_ASKED,
    answered_requests,
    is_too_often,
    recent_extension_events,
    window_start,
)
from jitvault.model.grant_terms import grant_terms
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party
from jitvault.model.states import EndReason, State, Verdict
from jitvault.model.ttl import least
from jitvault.model.vault_access import cap_of, role_name, smallest_cap
from jitvault.stream.reading import canary

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Requested:
    """One request for an extension, and the extension that it results in.

    `replaces` says that the task's token cannot live so long and has to be replaced.
    """

    request: ExtensionRequest
    extension: Extension
    replaces: bool


def extend(worker: WorkerContext, record: TaskRecord, claim: int) -> TaskRecord:
    """Answer an open extension request.

    The task is extended, the missing approvers are recorded, or the request is refused. Returns the task after it.

    The caller has just checked that the task may go on. Afterwards the task may be `issuing`; then `issue_replacement`
    goes on with it.
    """
    # what was true when this was due only shows that there is no request; the decision goes by what is true now
    with due_turn(worker, record.task.due_at):
        asked = None if worker.is_late() else _open_request(worker, record)
    if asked is None:
        return record
    if asked.request.cancels is not None:
        return _cancel(worker, record, claim, asked, asked.request.cancels)
    revision = Revision.of(record.revision.body)
    try:
        decision = evaluate_extension(worker, revision, asked.extension, asked.request.by)
        _check_possible(worker, record, revision, asked, decision)
    except (Denied, InvalidInput) as error:
        return _refuse(worker, record, claim, asked, error)
    if decision.state is State.PENDING_APPROVAL or not _is_someone_ready(revision, asked, decision):
        return _wait(worker, record, claim, asked, decision)
    # nothing is extended on a stream that lags or belongs to another Vault
    canary(worker)
    return _apply(worker, record, claim, asked, decision)


def is_extension_asked(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether an extension request has no answer yet."""
    return _open_request(worker, record) is not None


_AGAIN = "The task continues until its deadline. Ask for what is permitted, or have another task granted."


def issue_replacement(
    worker: WorkerContext, record: TaskRecord, claim: int
) -> EndCause | tuple[OperationRow, TaskRecord]:
    """Revoke the token that an extension replaces, and issue the next one.

    The caller has settled what an unfinished run may have made of the next token. Returns the committed intent to
    publish that, or why the task has to end where no token can be issued. Raises NotConfirmed while the former token is
    not proven dead.
    """
    extension = next(body for _, body in said(reversed(record.events), Extended))
    if is_replaced_token_unproven(record):
        _revoke_former(worker, record, claim)
        record = worker.record(record.task.task_id)
    first = next(grant.attempt for grant in record.grants if grant.grant_id == extension.replaces)
    made = [grant for grant in record.grants if grant.attempt > first and grant.accessor_hmac is not None]
    if len(made) >= MAX_ATTEMPTS:
        return EndCause(reason=EndReason.ISSUE_FAILED, note="the token for its extension could not be delivered")
    worker.ledger.extend(record.task.task_id, claim)
    check_attempt_due(worker, record, claim)
    publish(worker, record, None)
    check_issuable(worker, record, claim)
    canary(worker)
    try:
        # the cap on the window was checked for the whole window already: counted from now on it would be wrong
        return issue(worker, record, claim, structs.replace(extension.decision.obligations, max_window_s=None))
    except InvalidInput as error:
        return EndCause(reason=EndReason.ISSUE_FAILED, note=str(error))


def _open_request(worker: WorkerContext, record: TaskRecord) -> _Requested | None:
    """Return the extension request without an answer, if any.

    The requester's request comes before the agent's.
    """
    task = record.task
    revision = Revision.of(record.revision.body)
    began = window_start(record.events)
    ends_at = task.ends_at
    if began is None or ends_at is None:
        return None
    parts = [revision.content.requester.entity, revision.content.agent.entity]
    answered = answered_requests(record.events)
    for request in extension_requests(worker, task.task_id, parts, digest=revision.digest, ends_at=ends_at):
        too_often = is_too_often(record.events, request.by.id, request.nonce, worker.now())
        if (request.by.id, request.nonce) not in answered and not too_often:
            until = ends_at + timedelta(seconds=request.seconds)
            extension = Extension(
                installation=worker.installation,
                task=task.task_id,
                revision=task.revision,
                revision_digest=revision.digest,
                by=Party(request.by.id, request.by.name),
                reason=request.reason,
                since=ends_at,
                seconds=request.seconds,
                until=until,
                window_s=whole_window_s(began, until),
            )
            return _Requested(request, extension, _outlives(worker, record.grants[-1], extension))
    return None


def _outlives(worker: WorkerContext, grant: GrantRow, extension: Extension) -> bool:
    """Return whether the token cannot be renewed up to the new deadline.

    Only the cap of the token's role counts, as the role is now.
    """
    role = worker.tokens.role(grant.role) or {}
    capped_s = int(role.get("token_explicit_max_ttl") or 0)
    cap = min(cap_of(grant.role), timedelta(seconds=capped_s)) if capped_s else cap_of(grant.role)
    return grant.issued_at is None or extension.until > grant.issued_at + cap


def _check_possible(
    worker: WorkerContext, record: TaskRecord, revision: Revision, asked: _Requested, decision: RequestDecision
) -> None:
    """Raise InvalidInput or Denied where the extension cannot be granted.

    The window would be too long, or no token could be made for it.
    """
    extension = asked.extension
    task_id = record.task.task_id
    obligations = decision.policy.obligations
    if decision.state is State.DENIED:
        raise Denied(f"task {task_id} is not extended: {decision.why_denied}", hint=_AGAIN)
    longest_s = min(entry.max_window_s for entry in revision.access)
    whole = format_duration(timedelta(seconds=extension.window_s))
    if extension.window_s > longest_s:
        most = format_duration(timedelta(seconds=longest_s))
        raise InvalidInput(f"task {task_id}: its window would be {whole}; its templates allow {most}", hint=_AGAIN)
    if obligations.max_window_s is not None and extension.window_s > obligations.max_window_s:
        most = format_duration(timedelta(seconds=obligations.max_window_s))
        raise Denied(f"task {task_id}: its window would be {whole}; policy allows {most}", hint=_AGAIN)
    check_extends(worker, revision, extension.until)
    if not asked.replaces:
        return
    now = worker.now()
    caps = structs.replace(obligations, max_window_s=None)
    granted = grant_terms(revision, now, cap_to_ancestors(worker, revision, now, caps), until=extension.until)
    role = role_name(smallest_cap(timedelta(seconds=granted.window_s)), revision.spec.spec.network)
    if worker.tokens.role(role) is None:
        hint = "An administrator provisions it with `jitvault init`."
        raise InvalidInput(f"task {task_id}: token role {role} is missing", hint=hint)
    check_provable(worker, revision, obligations.confirm)


def _is_someone_ready(revision: Revision, asked: _Requested, decision: RequestDecision) -> bool:
    """Return whether someone is there to unwrap a next token, if any.

    As for a grant, a requester who asked after the last approval is there. An agent's inbox is watched.
    """
    if not asked.replaces or revision.spec.spec.deliver == "agent":
        return True
    by_requester = asked.request.by.id == revision.content.requester.entity
    return by_requester and all(one.written_at < asked.request.written_at for one in decision.tally.approved_by)


def _apply(
    worker: WorkerContext, record: TaskRecord, claim: int, asked: _Requested, decision: RequestDecision
) -> TaskRecord:
    """Move the deadline in one commit, and return the task.

    A token that goes on is due for renewal at once. A token that is replaced has no access until the next one is
    issued.
    """
    now = worker.now()
    grant = record.grants[-1]
    max_ttl_s = decision.policy.obligations.max_ttl_s
    ttl_s = least(grant.ttl_s, max_ttl_s)
    step_s = least(grant.step_s, max_ttl_s)
    rows: list[Row] = []
    if not asked.replaces:
        rows = [replace(grant, ttl_s=ttl_s, step_s=step_s, rolling=True, renew_at=now)]
        rows += [replace(lease, renew_at=now) for lease in record.leases if lease.verdict is Verdict.LIVE]
    replaces = grant.grant_id if asked.replaces else None
    change = Change(
        EventKind.EXTENDED,
        Extended(
            replaces=replaces,
            signed_request=asked.request.envelope,
            signed=tuple(one.envelope for one in decision.tally.approved_by),
            **_decided_fields(asked, decision),
        ),
        state=State.ISSUING if asked.replaces else None,
        fields={"ends_at": asked.extension.until, "due_at": now},
        rows=rows,
    )
    return worker.ledger.change(record, change, claim=claim, at=now)


def _wait(
    worker: WorkerContext, record: TaskRecord, claim: int, asked: _Requested, decision: RequestDecision
) -> TaskRecord:
    """Record which approvals are missing, and return the task.

    Nothing is recorded where the chain says so already.
    """
    tally = decision.tally
    body = ExtensionPending(
        replaces=asked.replaces,
        missing=tally.missing,
        open_to=tuple(tally.open_to(decision.policy.obligations.approvals)),
        refused=tally.refused,
        **_decided_fields(asked, decision),
    )
    last = next((body for _, body in said(reversed(record.events), AboutExtension)), None)
    if last is not None and structs.replace(last, state="", rows=None) == body:
        return record
    if len(recent_extension_events(record.events, asked.request.by.id, worker.now())) >= MOST_ASKED:
        # an approver could write another decision each time, and make the chain grow
        return record
    return worker.ledger.change(record, Change(EventKind.EXTENSION_PENDING, body), claim=claim, at=worker.now())


def _refuse(
    worker: WorkerContext, record: TaskRecord, claim: int, asked: _Requested, error: JitvaultError
) -> TaskRecord:
    """Record the refusal, and return the task; a refusal is final.

    A request that its author was told is refused must not be granted later, when the author does not watch it.
    """
    body = ExtensionRefused(error=StatedError.of(error), **_request_fields(asked))
    return worker.ledger.change(record, Change(EventKind.EXTENSION_REFUSED, body), claim=claim, at=worker.now())


def _cancel(worker: WorkerContext, record: TaskRecord, claim: int, asked: _Requested, request: str) -> TaskRecord:
    """Record that the author took a request back, and return the task."""
    message = f"task {record.task.task_id}: {asked.request.by.name} cancelled the request for more time"
    error = StatedError.of(WrongState(message, hint=_AGAIN))
    body = ExtensionCancelled(cancels=request, error=error, **_request_fields(asked))
    return worker.ledger.change(record, Change(EventKind.EXTENSION_CANCELLED, body), claim=claim, at=worker.now())


def _request_fields(asked: _Requested) -> dict[str, Any]:
    return {"request": asked.request.nonce, "extension": asked.extension}


def _decided_fields(asked: _Requested, decision: RequestDecision) -> dict[str, Any]:
    """Return what the chain keeps of the decision."""
    approved_by = tuple(Party(one.entity_id, one.name) for one in decision.tally.approved_by)
    return {**_request_fields(asked), "decision": decision.policy, "approved_by": approved_by}


def _revoke_former(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Revoke the former token and its leases, and prove all of them dead.

    Raises NotConfirmed where they cannot be proven dead yet.
    """
    task_id = record.task.task_id
    old = next(grant.grant_id for grant in record.grants if not grant.settled)
    for _ in range(_ROUNDS):
        worker.ledger.extend(task_id, claim)
        # a read that was in flight still gets a lease, which the next round revokes
        evidence = collect_reconciled(worker, revoke(worker, record, claim), claim)
        record = evidence.record
        found = judge(worker, evidence)
        if found.proven:
            break
    rows: tuple[Row, ...] = (*found.leases, *found.checks)
    if not found.proven:
        _record_unproven(worker, record, claim, found)
        raise NotConfirmed(
            f"task {task_id}: its old token and leases are revoked and not proven dead yet, so it has no new token",
            hint=f"`jitvault status {task_id}` names the check that failed; the next command on the task tries again.",
        )
    newest = evidence.newest
    settled = next(replace(grant, settled=True) for grant in found.grants if grant.grant_id == old)
    body = AttemptSettled(grant=old, verdict=settled.verdict.value, canary=newest.place.offset)
    change = Change(EventKind.ATTEMPT_SETTLED, body, rows=(settled, *rows))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _record_unproven(worker: WorkerContext, record: TaskRecord, claim: int, found: TaskJudgement) -> None:
    """Record what the former token lacks to be proven dead; each try is later.

    People are notified as of any end that is not proven. Until then the task has no access, and an operator can end it.
    """
    now = worker.now()
    begun = next(datetime.fromisoformat(event.at) for event, _ in said(reversed(record.events), Extended))
    rows: tuple[Row, ...] = (*found.grants, *found.leases, *found.checks)
    change = Change(
        EventKind.JUDGED,
        Judged(note="the former token is not proven dead yet"),
        fields={"due_at": next_try(begun, now)},
        rows=rows,
    )
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=now)
    worker.ledger.tell_unproven(record.task.task_id, now)
