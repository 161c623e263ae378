"""What became of a grant that a crash or a lost answer left half done.

A token that was created and not surely delivered is never delivered again: it is ended and proven dead, and
another attempt follows. Where even the accessor is lost, the stream says whether the token was created, and
Vault lists the tokens of the role as leases that can be revoked by path. Where the audit device failed at that very
moment no line says that it was created, and the list alone shows it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.context import WorkerContext
from jitvault.errors import OutcomeUnknown
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import ENDED_UNSEEN, Change, GrantRow, OperationRow, OpState, TaskRecord
from jitvault.lifecycle.confirmation.confirm import judge
from jitvault.lifecycle.confirmation.evidence import collect_evidence
from jitvault.lifecycle.revocation.revoke import revoke_token
from jitvault.model.kinds import EventKind
from jitvault.model.states import Verdict
from jitvault.stream.reading import canary


def resolve_unfinished_issue(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """End the unsettled grant of a task that is being issued, if there is one, and prove it.

    Raises OutcomeUnknown while it cannot be known yet whether the token was created.
    """
    open_grants = [grant for grant in file.grants if not grant.settled]
    if not open_grants:
        return
    grant = open_grants[0]
    if grant.wrapped_accessor or (grant.token_lease and grant.accessor_hmac):
        revoke_token(worker, file, grant, claim)
    else:
        _find(worker, file, grant, claim)
    found = collect_evidence(worker, file.task.task_id)
    judged = judge(worker, found)
    _settle(worker, file, claim, next(g for g in judged.grants if g.grant_id == grant.grant_id), found.newest)


def _settle(worker: WorkerContext, file: TaskRecord, claim: int, grant: GrantRow, newest: Canary) -> None:
    dead = (Verdict.NEVER_ISSUED, Verdict.AUDIT_CONFIRMED, Verdict.EXPIRED, Verdict.GONE)
    if grant.verdict not in dead:
        raise OutcomeUnknown(f"task {file.task.task_id}: the token of attempt {grant.attempt} is not proven dead yet")
    body = {"grant": grant.grant_id, "verdict": grant.verdict.value, "canary": newest.place.offset}
    change = Change(EventKind.ATTEMPT_SETTLED, body, rows=(replace(grant, settled=True),))
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _find(worker: WorkerContext, file: TaskRecord, grant: GrantRow, claim: int) -> None:
    """Find and end a token whose create was sent and whose answer never came."""
    operation = next(op for op in file.operations if op.op_id == grant.create_op)
    newest = canary(worker)
    lines = _lines_of(worker.ledger.trail(file), operation)
    created = next((o for o in lines if o.closing and not o.failed and o.subject), None)
    if created is not None and operation.state is OpState.ABANDONED:
        # Vault refused ours, so somebody else used its id meanwhile
        worker.ledger.alarm(operation.op_id, worker.now())
    if created is not None:
        expires_at = created.at + timedelta(seconds=grant.step_s)
        named = replace(grant, accessor_hmac=created.subject, verdict=Verdict.LIVE, expires_at=expires_at)
        body = {
            "grant": grant.grant_id,
            "op": operation.op_id,
            "accessor": created.subject,
            "line": created.line,
            "expires_at": expires_at.isoformat(),
        }
        settled = replace(operation, state=OpState.SETTLED, answer="created")
        worker.ledger.apply(
            file.task.task_id,
            Change(EventKind.TOKEN_CREATED, body, rows=(named, settled)),
            claim=claim,
            at=worker.now(),
        )
        _end_by_path(worker, file, named, created, lines, claim)
        return
    if operation.state is not OpState.ABANDONED or lines:
        _wait_until_surely_never_sent(worker, operation, newest.at)
    unseen = _end_unseen(worker, file, grant, operation, lines, newest, claim)
    # nobody was told of it, so nobody had it: as far as the task goes it was never issued
    grant = replace(grant, verdict=Verdict.NEVER_ISSUED)
    if unseen:
        grant = replace(grant, token_lease=unseen[-1], dead_at=worker.now())
    never = replace(operation, state=OpState.ABANDONED, answer=ENDED_UNSEEN if unseen else "never sent")
    waited: dict[str, object] = {"op": operation.op_id, "canary": newest.place.offset, "ended": unseen}
    worker.ledger.apply(
        file.task.task_id, Change(EventKind.NEVER_CREATED, waited, rows=(grant, never)), claim=claim, at=worker.now()
    )


def _end_unseen(
    worker: WorkerContext,
    file: TaskRecord,
    grant: GrantRow,
    operation: OperationRow,
    lines: list[Observation],
    newest: Canary,
    claim: int,
) -> list[str]:
    """End what may have been created though no line says so; gives the leases, which Vault does not have any more.

    If its response line cannot be written the caller gets a 500 although the act was done (docs/vault-facts.md, "Audit
    devices"). Every token of the role counts that nobody knows and that was made while the request could run: nobody
    was told of it, and a grant that is known has its issue time in the ledger long before.
    """
    longest = worker.settle_window + timedelta(seconds=1)
    if lines:
        sent = min(o.at for o in lines)
        since, until = sent, sent + longest
    elif operation.state is OpState.ABANDONED:
        return []
    else:
        # by our clock
        since, until = operation.sent_at - MAX_SKEW, operation.sent_at + longest + MAX_SKEW
    found = _unknown_tokens(worker, grant, since, min(until, newest.at - timedelta(seconds=1)))
    for named in found:
        revoke_token(worker, file, named, claim)
        if worker.leases.lookup(named.token_lease or "") is not None:
            raise OutcomeUnknown(f"task {grant.task_id}: a token that was perhaps created is not gone yet")
    return [named.token_lease or "" for named in found]


def _lines_of(trail: AuditTrail, operation: OperationRow) -> list[Observation]:
    """The stream's lines of a create, by its operation id in a line of one of our own sessions."""
    return [
        o
        for o in trail.observations
        if o.kind is Kind.TOKEN_CREATED and o.op == operation.op_id and o.actor in trail.worker_accessors
    ]


def _wait_until_surely_never_sent(worker: WorkerContext, operation: OperationRow, canary_at: datetime) -> None:
    """A request can reach Vault until its time-out and then run as long as Vault's longest request."""
    sure = operation.sent_at + worker.settle_window + timedelta(seconds=1)
    if canary_at < sure:
        left = (sure - canary_at).total_seconds()
        raise OutcomeUnknown(
            f"task {operation.task_id}: whether a token was created is known in {left:.0f} s at the earliest",
            hint="Run the same command again then.",
        )


def _end_by_path(
    worker: WorkerContext, file: TaskRecord, grant: GrantRow, created: Observation, lines: list[Observation], claim: int
) -> None:
    """Revoke the token of a lost answer by its lease path.

    Vault lists the role's tokens as leases; the one whose issue time lies between the request line and the
    response line, and belongs to no token that we know, is it. Its wrapping token stands beside it in the
    list, and differs in that it cannot be renewed. Where none is listed, it is dead already.
    """
    sent = min(o.at for o in lines)
    for named in _unknown_tokens(worker, grant, sent, created.at)[:1]:
        revoke_token(worker, file, named, claim)


def _unknown_tokens(worker: WorkerContext, grant: GrantRow, since: datetime, until: datetime) -> list[GrantRow]:
    """The grant with each token of its role that is nobody's and was made in that time by Vault's clock."""
    known = worker.ledger.issue_times(grant.role)
    found = []
    for lease_id in worker.leases.list(f"auth/token/create/{grant.role}"):
        record = worker.leases.lookup(lease_id)
        if record is None or record.issued_at is None or record.issued_at in known or not record.renewable:
            continue
        if since <= record.issued_at <= until:
            found.append(replace(grant, token_lease=lease_id, issued_at=record.issued_at))
    return found
