"""Issue the one token of an approved task.

The steps are: intent, wrapped create, look-up, delivery. jitvault only ever sees the token inside its wrapping, and the
wrapping token only until it is in the inbox. An attempt that may have made a token and may not have delivered it is
revoked and proven dead before the next attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from jitvault.audit.create_intent import ttl_word
from jitvault.audit.observation import Observation
from jitvault.context import WorkerContext, new_id
from jitvault.documents.paths import inbox_path
from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    SecurityFinding,
    VaultRefused,
    VaultUnavailable,
    WrongState,
)
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.time_window import format_duration
from jitvault.ledger.model import Change, GrantAdmission, GrantRow, OperationRow, OpState, TaskRecord
from jitvault.lifecycle.decision.ancestors import cap_to_ancestors, check_above, check_room
from jitvault.lifecycle.decision.template_gate import check_provable
from jitvault.lifecycle.record.renewals import expiry_to_commit
from jitvault.lifecycle.requests.publish import announced_publication
from jitvault.model.connection import uses_as_word
from jitvault.model.event_bodies import Delivered, TokenCreated, Unanswered
from jitvault.model.grant_terms import Terms, grant_terms
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.revision import Revision
from jitvault.model.states import State, Verdict
from jitvault.model.token_limits import TokenLimits
from jitvault.model.ttl import early_end, least, needs_renewal, next_look, renew_at
from jitvault.model.vault_access import cap_of, data_by_path, role_name, smallest_cap
from jitvault.operations import announce, carry_out, new_operation, perform, record_answer
from jitvault.policy.decision import Obligations
from jitvault.stream.own_lines import OwnLines
from jitvault.vault.interface import TokenFacts, WrappedToken

MAX_ATTEMPTS = 3


def issue(
    worker: WorkerContext,
    record: TaskRecord,
    claim: int,
    obligations: Obligations,
    *,
    admission: GrantAdmission | None = None,
) -> tuple[OperationRow, TaskRecord]:
    """Create, check and deliver the token; return the committed intent to publish that, and the task.

    The task is `issued` afterwards. `obligations` are those of the decision that permits the issue. `admission` checks
    inside the transaction what that decision rests on; it is given for a task that had no access before. Before
    anything is done, raises InvalidInput when the task's end could not be proven, or when the caps of policy or the
    rest of the parent's time are too short; and DecisionStale when another task was issued first.
    """
    revision = Revision.of(record.revision.body)
    check_provable(worker, revision, obligations.confirm)
    check_room(worker, revision)
    now = worker.now()
    granted = grant_terms(
        revision, now, cap_to_ancestors(worker, revision, now, obligations), until=record.task.ends_at
    )
    grant = _new_grant(worker, record, revision, granted, now)
    lines = OwnLines(worker)
    wrapped, operation, record = perform(
        worker,
        record,
        claim,
        OperationKind.CREATE_TOKEN,
        grant.grant_id,
        lambda op: _create(worker, revision, grant, granted.ends_at, op),
        op_id=grant.create_op,
        rows=(grant,),
        admission=admission,
        state=State.ISSUING,
        # should this process die here, the next one goes on as soon as this claim is over
        due_at=now,
    )
    known = _named(worker, grant, wrapped, lines.creation(operation.op_id))
    try:
        facts = _looked_up(worker, revision, known, lines.begun)
    except (SecurityFinding, VaultRefused, VaultUnavailable):
        # nothing says yet that what was answered is the token of that line
        _commit_created(worker, record, _named(worker, grant, wrapped, None), operation, wrapped, claim)
        raise
    if facts is None:
        raise _take_back_name(worker, grant, operation, claim)
    dated = replace(known, issued_at=facts.issued_at, expires_at=_latest_end(worker, known, facts, granted.ends_at))
    inbox = inbox_path(revision.recipient.entity, record.task.task_id)
    delivery = new_operation(worker, OperationKind.DELIVER, inbox, task_id=record.task.task_id)
    record = _commit_created(worker, record, dated, operation, wrapped, claim, delivery)
    return _deliver(worker, record, revision, dated, wrapped, claim, delivery, (facts.expires_at, granted.ends_at))


def _latest_end(worker: WorkerContext, grant: GrantRow, facts: TokenFacts, ends_at: datetime) -> datetime | None:
    """Return until when the token can live by its first renewals, which then need no event of their own."""
    if grant.renew_at is None or facts.expires_at is None:
        return facts.expires_at
    return max(facts.expires_at, expiry_to_commit(worker, ends_at, grant.step_s))


def _named(worker: WorkerContext, grant: GrantRow, wrapped: WrappedToken, line: Observation | None) -> GrantRow:
    """Return the grant with its token, and with the HMACs by which the audit stream names it.

    `line` is the line of the token's creation, where it is there already.
    """
    hashed = worker.hasher.hash
    return replace(
        grant,
        wrapped_accessor=wrapped.wrapped_accessor,
        accessor_hmac=line.subject if line else hashed(wrapped.wrapped_accessor),
        wrapping_hmac=line.alias if line else hashed(wrapped.wrapping_token.reveal()),
        creation_path=wrapped.creation_path,
        verdict=Verdict.LIVE,
    )


def _looked_up(worker: WorkerContext, revision: Revision, grant: GrantRow, sent: float) -> TokenFacts | None:
    """Return what Vault says of the token, None where it has none of this grant.

    `sent` is when its creation was sent at the earliest, by the clock of facts. Raises SecurityFinding where that is
    not what was requested.
    """
    facts = worker.tokens.lookup_accessor(grant.wrapped_accessor or "")
    if facts is None or facts.meta.get("jitvault_grant") != grant.grant_id:
        return None
    # what was read before says nothing of the token, unless the lines up to its own show no change
    with worker.facts.since(sent):
        _check_token(worker, revision, grant, facts)
    return facts


def _commit_created(
    worker: WorkerContext,
    record: TaskRecord,
    grant: GrantRow,
    operation: OperationRow,
    wrapped: WrappedToken,
    claim: int,
    *next_ops: OperationRow,
) -> TaskRecord:
    """Commit which token was created, with the intents of what is done with it next; return the task.

    Where another process took the task over, the token is revoked, and WrongState is raised.
    """
    created = Change(
        EventKind.TOKEN_CREATED,
        TokenCreated(grant=grant.grant_id, op=operation.op_id, accessor=grant.accessor_hmac),
        rows=(grant, operation, *next_ops),
    )
    try:
        return worker.ledger.change(record, created, claim=claim, at=worker.now())
    except WrongState:
        _revoke_overtaken(worker, wrapped)
        raise


def _new_grant(
    worker: WorkerContext, record: TaskRecord, revision: Revision, granted: Terms, now: datetime
) -> GrantRow:
    """Return the row of the next attempt, as it is committed with the intent."""
    if any(not grant.settled for grant in record.grants):
        raise WrongState(f"task {record.task.task_id} has another grant that is not finished")
    cap = smallest_cap(timedelta(seconds=granted.window_s))
    step_s = least(granted.ttl_s, worker.rolling_step // timedelta(seconds=1))
    return GrantRow(
        grant_id=new_id(),
        task_id=record.task.task_id,
        attempt=len(record.grants) + 1,
        digest=revision.digest,
        role=role_name(cap, revision.spec.spec.network),
        create_op=new_id(),
        wrapped_accessor=None,
        accessor_hmac=None,
        token_lease=None,
        creation_path=None,
        requested_ttl_s=granted.requested_ttl_s,
        ttl_s=granted.ttl_s,
        step_s=step_s,
        wrap_ttl_s=granted.wrap_ttl_s,
        issued_at=None,
        expires_at=None,
        rolling=needs_renewal(now, granted.ends_at, step_s),
        renew_at=renew_at(now, step_s, granted.ends_at),
        delivered=False,
        settled=False,
        verdict=Verdict.NEVER_ISSUED,
        dead_at=None,
        asked=_requested_values(worker, revision, step_s),
    )


def _requested_values(worker: WorkerContext, revision: Revision, step_s: int) -> dict[str, dict[str, str]]:
    """Return the values of the request that Vault acts on, with their HMACs.

    The request's audit line is later compared with them.
    """
    policies = sorted({entry.policy for entry in revision.access})
    ttl = ttl_word(step_s)
    hashed = worker.hasher.remembered
    return {"policies": {policy: hashed(policy) for policy in policies}, "ttl": {ttl: hashed(ttl)}}


def _create(worker: WorkerContext, revision: Revision, grant: GrantRow, ends_at: datetime, op: str) -> WrappedToken:
    """Create the wrapped token in Vault.

    Raises InvalidInput where a parent ended.
    """
    content = revision.content
    # Checked once more, now that the intent is committed. Whoever ends a parent looks for children after the commit of
    # that end. So of the two processes at least one sees the other.
    check_above(worker, revision)
    return worker.tokens.create_wrapped(
        grant.role,
        policies=sorted({entry.policy for entry in revision.access}),
        meta={
            "jitvault_installation": worker.installation,
            "jitvault_task": grant.task_id,
            "jitvault_grant": grant.grant_id,
            "jitvault_digest": revision.digest,
            "jitvault_agent": content.agent.entity,
            **_ancestors(revision),
            # with these the agent knows from its token alone what to read and what to send: template=path …
            "jitvault_reads": " ".join(sorted(fetch.as_word() for fetch in revision.fetches)),
            "jitvault_limits": TokenLimits(revision.lease_budget, worker.denied_limit).as_word(),
            "jitvault_uses": uses_as_word(revision.uses),
            "jitvault_ends_at": rfc3339(ends_at),
            **_heartbeat(revision),
        },
        ttl_s=grant.step_s,
        wrap_ttl_s=grant.wrap_ttl_s,
        op=op,
    )


def _revoke_overtaken(worker: WorkerContext, wrapped: WrappedToken) -> None:
    """Revoke a token created after another process took the task over.

    A process that was suspended for longer than its claim lives may send its create request when the task is over and
    confirmed already; the other process could not see a request that was not sent yet. No one was given that token, and
    only this process knows its accessor.
    """
    with suppress(JitvaultError):
        worker.tokens.revoke_accessor(wrapped.wrapped_accessor, op=new_id())


def _ancestors(revision: Revision) -> dict[str, str]:
    """Return the token metadata that names the task's ancestors."""
    tasks = [link.task for link in revision.delegation]
    return {"jitvault_parent": tasks[-1], "jitvault_delegation": " ".join(tasks)} if tasks else {}


def _heartbeat(revision: Revision) -> dict[str, str]:
    """Return the token metadata that says how long the token may do nothing."""
    heartbeat = revision.spec.spec.window.heartbeat
    return {"jitvault_heartbeat": format_duration(heartbeat)} if heartbeat is not None else {}


def _take_back_name(worker: WorkerContext, grant: GrantRow, operation: OperationRow, claim: int) -> OutcomeUnknown:
    """Record that the create was not answered, and return the error.

    What came names the token of another grant, or none: something on the way confused two answers. That token is left
    alone, and the stream shows whether this grant has one.
    """
    error = OutcomeUnknown(f"task {grant.task_id}: what answered the request for its token does not name that token")
    unknown = record_answer(worker, operation, OpState.UNKNOWN, error)
    event = EventKind.of(OperationKind.CREATE_TOKEN, OpState.UNKNOWN)
    body = Unanswered(op=unknown.op_id, grant=grant.grant_id, answer=unknown.answer)
    worker.ledger.apply(grant.task_id, Change(event, body, rows=(grant, unknown)), claim=claim, at=worker.now())
    return error


def _check_token(worker: WorkerContext, revision: Revision, grant: GrantRow, facts: TokenFacts) -> None:
    """Raise SecurityFinding unless Vault made the token that was requested.

    A wrapped answer does not show Vault's warnings, so the token was looked up.
    """
    wrong = []
    if sorted(facts.policies) != sorted({entry.policy for entry in revision.access}):
        wrong.append("its policies")
    # the cap is the role's: a token does not show it, and on renewal only the role's counts
    role = worker.tokens.role(grant.role) or {}
    capped = 0 < int(role.get("token_explicit_max_ttl") or 0) <= cap_of(grant.role).total_seconds()
    if not capped or not 0 < facts.ttl_s <= grant.step_s:
        wrong.append("its TTL")
    if not facts.orphan or facts.path != f"auth/token/create/{grant.role}":
        wrong.append("its role")
    if wrong:
        raise SecurityFinding(
            f"task {grant.task_id}: Vault did not create the requested token: {', '.join(wrong)} differ",
            hint="Run `jitvault init --plan` to see what was changed, then grant again.",
        )


def _deliver(
    worker: WorkerContext,
    record: TaskRecord,
    revision: Revision,
    grant: GrantRow,
    wrapped: WrappedToken,
    claim: int,
    delivery: OperationRow,
    times: tuple[datetime | None, datetime],
) -> tuple[OperationRow, TaskRecord]:
    """Put the wrapped token into the inbox; return the committed intent to publish that, and the task.

    The task is `issued` by that commit. `delivery` is the committed intent to deliver. `times` are when the token
    expires if nobody renews it, and the task's deadline.
    """
    first_end, ends_at = times
    task_id = grant.task_id
    message: dict[str, Any] = {
        "task_id": task_id,
        "grant_id": grant.grant_id,
        "digest": revision.digest,
        "expires_at": rfc3339(first_end) if first_end else None,
        "ends_at": rfc3339(ends_at),
        "wrapping": [
            {
                "token": wrapped.wrapping_token.reveal(),
                "ttl": wrapped.wrap_ttl_s,
                "creation_path": wrapped.creation_path,
                "template": ",".join(sorted({entry.template for entry in revision.access})),
                "reads": sorted(entry.path for entry in revision.access),
                "sends": data_by_path(revision.fetches),
            }
        ],
    }
    _, operation = carry_out(worker, task_id, claim, delivery, lambda op: _put(worker, delivery, claim, message, op))
    publication = announced_publication(worker, task_id)
    delivered = replace(grant, delivered=True)
    expired_at = early_end(grant.expires_at, grant.renew_at, ends_at)
    change = Change(
        EventKind.DELIVERED,
        Delivered(
            grant=grant.grant_id,
            to=revision.recipient.entity,
            expires_at=message["expires_at"],
            ends_at=message["ends_at"],
        ),
        state=State.ISSUED,
        fields={
            "due_at": next_look(ends_at, expired_at, grant.renew_at, grant.unwrap_deadline),
            "ends_at": ends_at,
        },
        rows=(delivered, operation, publication),
    )
    try:
        record = worker.ledger.change(record, change, claim=claim, at=worker.now())
    except WrongState:
        _empty(worker, delivery, message)
        raise
    return publication, record


def _put(worker: WorkerContext, delivery: OperationRow, claim: int, message: Mapping[str, Any], op: str) -> None:
    """Deliver the message if this process still holds the task's claim.

    The commit of the intent may have taken longer than a claim lives.
    """
    worker.ledger.extend(message["task_id"], claim)
    worker.documents.put(delivery.subject, message, op=op)


def _empty(worker: WorkerContext, delivery: OperationRow, message: Mapping[str, Any]) -> None:
    """Remove the wrapping token from an inbox.

    This is done after another process took the task over. The worker may write to an inbox but not delete from it, so
    it writes an empty message. Vault keeps only one version of a document in an inbox.
    """
    with suppress(JitvaultError):
        op = announce(worker, OperationKind.DELIVER, delivery.subject, task_id=delivery.task_id)
        worker.documents.put(delivery.subject, {**message, "wrapping": []}, op=op)
