"""Resolve an issue that a crash or a lost answer left unfinished.

A token that was created but may not have been delivered is never delivered again: it is revoked and proven dead, and
another attempt follows. Where even its accessor is lost, the stream says whether the token was created. Vault lists
the tokens of the role as leases, which can be revoked by their path. Where the audit device failed at that very
moment, no line says that the token was created, and only the list shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.context import WorkerContext, new_id
from jitvault.errors import OutcomeUnknown
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import ENDED_UNSEEN, Change, GrantRow, OperationRow, OpState, TaskRecord
from jitvault.lifecycle.confirmation.confirm import judge
from jitvault.lifecycle.confirmation.evidence import Evidence, collect_evidence
from jitvault.lifecycle.revocation.revoke import revoke_unfinished_token
from jitvault.model.event_bodies import AttemptSettled, NeverCreated, TokenCreated
from jitvault.model.kinds import EventKind
from jitvault.model.states import Verdict
from jitvault.stream.reading import canary


def resolve_unfinished_issue(worker: WorkerContext, record: TaskRecord, claim: int) -> TaskRecord:
    """Revoke the unsettled grant of a task, and prove it dead.

    The task is one that is being issued. Returns the task after it. Does nothing where all grants are settled. Raises
    OutcomeUnknown while it cannot be known yet whether the token was created.
    """
    open_grants = [grant for grant in record.grants if not grant.settled]
    if not open_grants:
        return record
    grant = open_grants[0]
    if grant.wrapped_accessor or (grant.token_lease and grant.accessor_hmac):
        revoke_unfinished_token(worker, record, grant, claim)
    else:
        _find(worker, record, grant, claim)
    found = collect_evidence(worker, record)
    judged = judge(worker, found)
    judged_grant = next(row for row in judged.grants if row.grant_id == grant.grant_id)
    return _settle(worker, found.record, claim, judged_grant, found.newest)


def _settle(worker: WorkerContext, record: TaskRecord, claim: int, grant: GrantRow, newest: Canary) -> TaskRecord:
    """Commit that the grant is over, and return the task.

    Raises OutcomeUnknown while it is not proven dead.
    """
    dead = (Verdict.NEVER_ISSUED, Verdict.AUDIT_CONFIRMED, Verdict.EXPIRED, Verdict.GONE)
    if grant.verdict not in dead:
        raise OutcomeUnknown(f"task {record.task.task_id}: the token of attempt {grant.attempt} is not proven dead yet")
    body = AttemptSettled(grant=grant.grant_id, verdict=grant.verdict.value, canary=newest.place.offset)
    change = Change(EventKind.ATTEMPT_SETTLED, body, rows=(replace(grant, settled=True),))
    return worker.ledger.change(record, change, claim=claim, at=worker.now())


def _find(worker: WorkerContext, record: TaskRecord, grant: GrantRow, claim: int) -> None:
    """Find and revoke a token whose create request got no answer."""
    operation = next(op for op in record.operations if op.op_id == grant.create_op)
    newest = canary(worker)
    lines = _lines_of(worker.ledger.trail(record), operation)
    created = next((o for o in lines if o.closing and not o.failed and o.subject), None)
    if created is not None and operation.state is OpState.ABANDONED:
        # Vault refused the worker's request, so someone else used its operation id
        worker.ledger.judge_failed_create(operation.op_id, worker.now())
    if created is not None:
        named = _named_by_line(grant, created)
        settled = replace(operation, state=OpState.SETTLED, answer="created")
        worker.ledger.apply(
            record.task.task_id,
            Change(EventKind.TOKEN_CREATED, _created_body(named, created), rows=(named, settled)),
            claim=claim,
            at=worker.now(),
        )
        _end_by_path(worker, record, named, created, lines, claim)
        return
    if operation.state is not OpState.ABANDONED or lines:
        _wait_until_surely_never_sent(worker, operation, newest.at)
    unseen = _revoke_unseen(worker, record, grant, operation, lines, newest, claim)
    # no one ever got such a token, so for the task it counts as never issued
    grant = replace(grant, verdict=Verdict.NEVER_ISSUED)
    if unseen:
        grant = replace(grant, token_lease=unseen[-1], dead_at=worker.now())
    never = replace(operation, state=OpState.ABANDONED, answer=ENDED_UNSEEN if unseen else "never sent")
    waited = NeverCreated(op=operation.op_id, canary=newest.place.offset, ended=tuple(unseen))
    worker.ledger.apply(
        record.task.task_id, Change(EventKind.NEVER_CREATED, waited, rows=(grant, never)), claim=claim, at=worker.now()
    )


def _revoke_unseen(
    worker: WorkerContext,
    record: TaskRecord,
    grant: GrantRow,
    operation: OperationRow,
    lines: list[Observation],
    newest: Canary,
    claim: int,
) -> list[str]:
    """Revoke tokens that may have been created without a line.

    Return their leases.

    Vault does not have the returned leases any more. If a response line cannot be written, the caller gets a 500
    although the token was created (docs/vault-facts.md, "Audit devices"). So every token of the role counts that
    belongs to no grant and was made while the request could run. No one was given such a token, and a grant that is
    known has its issue time in the ledger long before.
    """
    longest = worker.settle_window + timedelta(seconds=1)
    if lines:
        sent = min(o.at for o in lines)
        since, until = sent, sent + longest
    elif operation.state is OpState.ABANDONED:
        return []
    else:
        # no line has Vault's time of the request, so this host's clock counts
        since, until = operation.sent_at - MAX_SKEW, operation.sent_at + longest + MAX_SKEW
    found = _unknown_tokens(worker, grant, since, min(until, newest.at - timedelta(seconds=1)))
    for named in found:
        revoke_unfinished_token(worker, record, named, claim)
        if worker.leases.lookup(named.token_lease or "") is not None:
            raise OutcomeUnknown(f"task {grant.task_id}: a token that may have been created is not gone yet")
    return [named.token_lease or "" for named in found]


def _lines_of(trail: AuditTrail, operation: OperationRow) -> list[Observation]:
    """Return the lines of a create request, by its operation id.

    Only lines of the worker's own sessions count.
    """
    return [
        o
        for o in trail.observations
        if o.kind is Kind.TOKEN_CREATED and o.op == operation.op_id and o.actor in trail.worker_accessors
    ]


def _wait_until_surely_never_sent(worker: WorkerContext, operation: OperationRow, canary_at: datetime) -> None:
    """Raise OutcomeUnknown while the request may still reach Vault.

    It may also still run in Vault. A request can reach Vault until its time-out, and then runs at most as long as
    Vault's longest request.
    """
    sure = operation.sent_at + worker.settle_window + timedelta(seconds=1)
    if canary_at < sure:
        left = (sure - canary_at).total_seconds()
        raise OutcomeUnknown(
            f"task {operation.task_id}: whether a token was created is known in {left:.0f} s at the earliest",
            hint="Run the same command again then.",
        )


def _end_by_path(
    worker: WorkerContext,
    record: TaskRecord,
    grant: GrantRow,
    created: Observation,
    lines: Iterable[Observation],
    claim: int,
) -> None:
    """Revoke the token of a lost answer by its lease path.

    Vault lists the role's tokens as leases. The token is the one whose issue time lies between the request line and the
    response line, and which belongs to no known grant. Of several such, no one was given any: all are revoked. The list
    also has its wrapping token, which differs in that it cannot be renewed. Where no such lease is listed, the token is
    dead already.
    """
    sent = min(o.at for o in lines if o.request_id == created.request_id)
    for named in _unknown_tokens(worker, grant, sent, created.at):
        revoke_unfinished_token(worker, record, named, claim)


def end_unnamed_tokens(worker: WorkerContext, found: Evidence, claim: int) -> bool:
    """Name and revoke the tokens that no grant of an ending task names.

    Returns whether there were any; the caller proves them as all others.
    """
    unnamed = found.unnamed_tokens()
    record = found.record
    for created in unnamed:
        of_op = next(grant for grant in record.grants if grant.create_op == created.op)
        # a line that came late, of a token that no line had shown until then, belongs to its own attempt
        named = _named_by_line(of_op if of_op.accessor_hmac is None else _before_all(record, of_op), created)
        change = Change(EventKind.TOKEN_CREATED, _created_body(named, created), rows=(named,))
        worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())
        lines = (o for o in found.trail.observations if o.kind is Kind.TOKEN_CREATED)
        _end_by_path(worker, worker.record(record.task.task_id), named, created, lines, claim)
        record = worker.record(record.task.task_id)
    return bool(unnamed)


def _before_all(record: TaskRecord, grant: GrantRow) -> GrantRow:
    """Return the row of one more token of an attempt, before the first one.

    So the task's last grant stays the one that was delivered.
    """
    attempt = min(each.attempt for each in record.grants) - 1
    return replace(
        grant,
        grant_id=new_id(),
        attempt=attempt,
        create_op=new_id(),
        wrapped_accessor=None,
        token_lease=None,
        issued_at=None,
        dead_at=None,
        renew_at=None,
        wrapping_hmac=None,
        delivered=False,
        settled=True,
        asked=None,
    )


def _named_by_line(grant: GrantRow, created: Observation) -> GrantRow:
    """Return the grant with its token, as the token's line shows it."""
    expires_at = created.at + timedelta(seconds=grant.step_s)
    return replace(grant, accessor_hmac=created.subject, verdict=Verdict.LIVE, expires_at=expires_at)


def _created_body(grant: GrantRow, created: Observation) -> TokenCreated:
    """Return what the chain keeps of a token that its line alone names."""
    return TokenCreated(grant=grant.grant_id, op=created.op, accessor=created.subject, line=created.line)


def _unknown_tokens(worker: WorkerContext, grant: GrantRow, since: datetime, until: datetime) -> list[GrantRow]:
    """Return the grant once for each unknown token of its role.

    The tokens are those that were made in the time from `since` to `until`. Times are by Vault's clock; each returned
    row has the token's lease and issue time.
    """
    known = worker.ledger.issue_times(grant.role)
    found = []
    for lease_id in worker.leases.list(f"auth/token/create/{grant.role}"):
        record = worker.leases.lookup(lease_id)
        if record is None or record.issued_at is None or record.issued_at in known or not record.renewable:
            continue
        if since <= record.issued_at <= until:
            found.append(replace(grant, token_lease=lease_id, issued_at=record.issued_at))
    return found
